"""Groups of methods (`queue.schedules` and the like) of a blocking queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from inferq.sync.submitting import Submitting

T = TypeVar("T")


class Group(Generic[T]):
    """Blocks on the same group of the asynchronous door."""

    __slots__ = ("_asynchronous", "_queue")

    def __init__(self, queue: Submitting[Any], asynchronous: T) -> None:
        self._queue = queue
        self._asynchronous = asynchronous
