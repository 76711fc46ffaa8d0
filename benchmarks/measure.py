"""Numbers from samples: percentiles, medians, and repetitions taken in turn so that a drifting machine favours nobody."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share (0 to 1) of the values lies; the nearest rank, no interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def interleaved(repetitions: int, contenders: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Run all contenders once, then all again, and so on; the order turns round every time."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(repetitions):
        names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in names:
            samples[name].append(contenders[name]())
    return samples


def median(samples: Sequence[Sample], key: str) -> float:
    return statistics.median(float(sample[key]) for sample in samples)


def spread(samples: Sequence[Sample], key: str) -> tuple[float, float]:
    """Smallest and largest."""
    values = [float(sample[key]) for sample in samples]
    return min(values), max(values)
