"""A clock that tests own: it moves when told to, both readings together or the wall clock alone."""

from __future__ import annotations

from threading import Lock

from inferq.clock import Now


class FakeClock:
    """Keeps the `Clock` contract. Safe to read from any thread, as a store's own threads do.

    Instants are milliseconds, as in `Now`; amounts to move by are seconds.
    """

    def __init__(self, *, wall: int = 1_800_000_000_000, mono: int = 1_000_000) -> None:
        self._now = Now(wall, mono)
        self._lock = Lock()

    def read(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> Now:
        """Let time pass: both clocks go on by `seconds`. Raises ValueError for a negative amount, since time only passes forwards."""
        if seconds < 0:
            raise ValueError(f"expected at least 0 seconds, got {seconds}; `step` moves the wall clock back")
        return self._move(round(seconds * 1000), round(seconds * 1000))

    def step(self, seconds: float) -> Now:
        """Set the wall clock on (or back) by `seconds` as an operator or NTP does; the monotonic clock does not notice."""
        return self._move(round(seconds * 1000), 0)

    def _move(self, wall: int, mono: int) -> Now:
        with self._lock:
            self._now = Now(self._now.wall + wall, self._now.mono + mono)
            return self._now
