"""Ids: UUIDs of version 7, so that they sort by the time they were made."""

from __future__ import annotations

import os
import random
import time
from threading import Lock

_lock = Lock()
_last = 0
_random = random.Random(os.urandom(32))  # noqa: S311 - ids must be unique, not secret


def _reseed() -> None:
    """A forked child must not draw what its parent draws."""
    _random.seed(os.urandom(32))


os.register_at_fork(after_in_child=_reseed)


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7; sub-millisecond bits as in method 3): unique everywhere, rising within a process.

    The random part comes from a generator seeded by the system: a system call an id would cost more than all the rest.
    """
    global _last
    with _lock:
        # 48 bits of milliseconds and 12 of fraction, read as one number that only grows.
        stamp = (time.time_ns() * 4096) // 1_000_000
        if stamp <= _last:
            stamp = _last + 1
        _last = stamp
        tail = _random.getrandbits(62)
    high, low = stamp >> 28, stamp >> 12 & 0xFFFF
    return f"{high:08x}-{low:04x}-7{stamp & 0xFFF:03x}-{tail >> 48 | 0x8000:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}"
