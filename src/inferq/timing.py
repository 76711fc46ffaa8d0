"""How long things took: counts under fixed bounds, cheap enough to be kept where the work is done."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

STORE_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
"""What a store's operations are counted under."""


class Times:
    """How often a measure fell under each bound, and their sum. Written by one thread; others may read it meanwhile."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulated(self) -> list[tuple[float, int]]:
        """(bound, number of measures up to it); the last bound is infinite."""
        total, found = 0, []
        for bound, count in zip((*self.bounds, float("inf")), tuple(self.counts), strict=True):
            total += count
            found.append((bound, total))
        return found


class Spent:
    """Times by what was done."""

    __slots__ = ("_bounds", "_times")

    def __init__(self, bounds: tuple[float, ...] = STORE_SECONDS) -> None:
        self._bounds = bounds
        self._times: dict[str, Times] = {}

    def add(self, name: str, value: float) -> None:
        times = self._times.get(name)
        if times is None:
            times = self._times[name] = Times(self._bounds)
        times.add(value)

    def all(self) -> Mapping[str, Times]:
        """What there is by now."""
        return dict(self._times)
