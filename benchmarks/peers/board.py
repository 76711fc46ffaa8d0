"""What handlers and senders note for the measuring process: a file of 64-bit numbers that all of them map."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from pathlib import Path

_SLOTS = 4096
_DONE, _FIRST, _LAST, _PROBES = 0, 1, 2, 16
PROBES = _SLOTS - _PROBES


class Board:
    """Times are CLOCK_MONOTONIC nanoseconds, the same for all processes of a machine."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            path.write_bytes(bytes(8 * _SLOTS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * _SLOTS)
        self._lock = threading.Lock()

    def _get(self, slot: int) -> int:
        value: int = struct.unpack_from("q", self._map, 8 * slot)[0]
        return value

    def _set(self, slot: int, value: int) -> None:
        struct.pack_into("q", self._map, 8 * slot, value)

    def clear(self) -> None:
        self._map[:] = bytes(8 * _SLOTS)

    def begin(self) -> None:
        """The sender is about to send the first task."""
        self._set(_FIRST, time.monotonic_ns())

    def hit(self, number: int, sent: int) -> None:
        """A handler started task `number`; `sent` is when it was sent, 0 when nobody asks."""
        now = time.monotonic_ns()
        with self._lock:
            self._set(_DONE, self._get(_DONE) + 1)
            self._set(_LAST, now)
            if sent:
                self._set(_PROBES + number, now - sent)

    @property
    def done(self) -> int:
        return self._get(_DONE)

    @property
    def seconds(self) -> float:
        """From the first send to the latest hit."""
        return (self._get(_LAST) - self._get(_FIRST)) / 1e9

    def probes(self, count: int) -> list[float]:
        """Milliseconds from send to start of the first `count` probes."""
        return [self._get(_PROBES + number) / 1e6 for number in range(count)]
