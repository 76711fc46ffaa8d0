"""Numbers from samples: percentiles, medians, and repetitions taken in turn so that a drifting machine favours nobody."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = dict[str, Any]


class Missing(Exception):
    """Something a comparison needs is not to be had here; the message says what."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share (0 to 1) of the values lies; the nearest rank, no interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def interleaved(
    repetitions: int, contenders: Mapping[str, Callable[[], Sample]], out: dict[str, str] | None = None
) -> dict[str, list[Sample]]:
    """Run all contenders once, then all again, and so on; the order turns round every time.

    One that raises Missing is out of the comparison from then on, with the reason in `out`.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(repetitions):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            if name not in samples:
                continue
            try:
                samples[name].append(contenders[name]())
            except Missing as error:
                if out is None:
                    raise
                out[name] = str(error)
                del samples[name]
    return samples


def median(samples: Sequence[Sample], key: str) -> float:
    return statistics.median(float(sample[key]) for sample in samples)


def spread(samples: Sequence[Sample], key: str) -> tuple[float, float]:
    """Smallest and largest."""
    values = [float(sample[key]) for sample in samples]
    return min(values), max(values)
