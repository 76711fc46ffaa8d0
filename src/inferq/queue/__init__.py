"""The queue in this process: the store behind it, an engine beside it."""

from __future__ import annotations

from inferq.door import Moment, QueueStats
from inferq.handle import Duration
from inferq.queue.front import AsyncQueue

__all__ = ["AsyncQueue", "Duration", "Moment", "QueueStats"]
