"""Counts and sizes: what a store answers to how many, and how much of it may stay."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct, frozen=True):
    """How many tasks are in each state and, of the pending ones, at each priority and in each lane."""

    states: dict[str, int]
    pending_by_priority: dict[int, int]
    pending_by_lane: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.states.values())


class Executed(msgspec.Struct, frozen=True):
    """What a backend has done and does: tasks `completed` since the store was made, attempts `running` now, in all processes."""

    backend: str
    remote: bool
    completed: int
    running: int


class Ahead(msgspec.Struct, frozen=True):
    """Who stands before a waiting task, by strict priority and then by sequence number.

    `flow` counts its own flow, `lanes` each lane of the store with somebody before it. Counting stops at a bound: `more` says so.
    """

    flow: int
    lanes: dict[str, int]
    more: bool = False


class StoreStats(msgspec.Struct, frozen=True):
    """For operators. Bytes and counts."""

    url: str
    durability: str
    schema: int
    file_bytes: int
    wal_bytes: int
    tasks: int
    last_event: int
    """Position of the newest event."""
    instances: int
    names: tuple[str, ...] = ()
    """Names of the instances."""
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    """Of the disk that it is kept on; 0 where it is on none."""


class Compacted(msgspec.Struct, frozen=True):
    """What compacting gave back: bytes on disk before and after, of which `free` had been unused, and the `seconds` it took. With
    `dry_run` nothing was changed, and `after` is what it would be."""

    before: int
    after: int
    free: int
    seconds: float
    dry_run: bool = False


class Retention(msgspec.Struct, frozen=True):
    """What may stay, for one final state: seconds since the end, number of tasks, bytes of payload and result; None is unbounded."""

    age: float | None = 7 * 86_400.0
    count: int | None = None
    bytes: int | None = None
