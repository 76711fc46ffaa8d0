"""What every queue offers, here and over HTTP: `submitting`, `asking`, `watching`, `changing`, and groups such as `queue.batches`.

What can be said in terms of a few questions is written here once; the questions are abstract, and `queue/` and `client/` answer them.
"""

from __future__ import annotations

from inferq.door.arguments import Moment, checked_ids, checked_place, checked_position, instant_of
from inferq.door.asking import QueueStats
from inferq.door.front import AsyncDoor
from inferq.door.watching import Reaction

__all__ = [
    "AsyncDoor",
    "Moment",
    "QueueStats",
    "Reaction",
    "checked_ids",
    "checked_place",
    "checked_position",
    "instant_of",
]
