"""Waiting for what other processes do, in tests that run commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferq.testing import wait_until


def until(condition: Callable[[], object], what: str = "") -> None:
    """Ask until it is so; in a thread, because a command has an event loop of its own."""
    asyncio.run(wait_until(lambda: asyncio.to_thread(condition), timeout=30, what=what))
