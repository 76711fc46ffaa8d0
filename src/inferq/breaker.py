"""A circuit breaker: a backend that keeps failing at a model is left alone for a while, then asked by one task. Pure."""

from __future__ import annotations

import random
from typing import Final, Literal

import msgspec

Gate = Literal["shut", "probe", "open"]

COUNTED: Final = frozenset({"connect", "server_error", "timeout", "overloaded"})
"""Failure codes that speak of the backend. A bad request, a missing key or a too long context is the task's own and never counts."""


class BreakerPolicy(msgspec.Struct, frozen=True):
    """`failures` in a row open it; the first probe comes after `initial_delay` seconds, twice as long after each that fails."""

    failures: int = 5
    initial_delay: float = 2.0
    max_delay: float = 60.0


class Breaker:
    """Closed, open until a time, or half open: then exactly one probe may pass, and its end decides.

    Two failures of one task in a row count once, unless the backend could not be reached at all: a task that kills its server must
    not close the gate for all others by its own retries.
    """

    __slots__ = ("_last", "_policy", "failures", "opened", "probing", "reason", "until")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._last = ""
        self.failures = 0
        self.opened = 0
        """How often it has opened since the last success."""
        self.until: float | None = None
        """While it is open, when the next probe may pass."""
        self.probing = False
        self.reason = ""

    def gate(self, now: float) -> Gate:
        """`open`: tasks may pass. `probe`: one may. `shut`: none may."""
        if self.until is None:
            return "open"
        return "shut" if self.probing or now < self.until else "probe"

    def probe(self) -> None:
        """A task passes to find out."""
        self.probing = True

    def withdraw(self) -> None:
        """The probe ended without a verdict (cancelled, handed back): the next task may try."""
        self.probing = False

    def failed(self, code: str, now: float, rng: random.Random, *, task: str, reason: str) -> bool:
        """Count a failure of the backend; True when it opens now, or stays open after a probe."""
        probe, self.probing = self.probing, False
        if code != "connect" and task == self._last and not probe:
            return False
        self._last, self.reason = task, reason
        self.failures += 1
        if not probe and (self.until is not None or self.failures < self._policy.failures):
            # Open already: a call that had begun before tells nothing new.
            return False
        self.opened += 1
        bound = min(self._policy.max_delay, self._policy.initial_delay * 2.0 ** min(self.opened - 1, 32))
        self.until = now + bound / 2 + rng.uniform(0.0, bound / 2)
        return True
