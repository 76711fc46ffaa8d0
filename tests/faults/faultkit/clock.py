"""A wall clock that one process steps for several: the offset lies in a small shared file."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from inferq.clock import Now

_OFFSET = struct.Struct("<q")


class SteppedClock:
    """The machine's clocks, the wall clock moved by the milliseconds in the file; the monotonic one knows nothing of it."""

    def __init__(self, path: Path | str) -> None:
        place = Path(path)
        if not place.exists():
            place.write_bytes(_OFFSET.pack(0))
        with place.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _OFFSET.size)

    def read(self) -> Now:
        (offset,) = _OFFSET.unpack(self._shared[:])
        return Now(time.time_ns() // 1_000_000 + offset, time.monotonic_ns() // 1_000_000)

    def step(self, seconds: float) -> None:
        """Move the wall clock of every process that uses the file."""
        (offset,) = _OFFSET.unpack(self._shared[:])
        self._shared[:] = _OFFSET.pack(offset + round(seconds * 1000))
