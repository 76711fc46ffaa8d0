"""Executors: finding them by entry point, running one of them, and a registry for using them without the queue."""

from __future__ import annotations

from inferq.executors.loader import GROUP, Entry, found, load
from inferq.executors.registry import Executors, perform, produce

__all__ = ["GROUP", "Entry", "Executors", "found", "load", "perform", "produce"]
