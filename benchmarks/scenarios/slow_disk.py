"""The whole life of no-op tasks when every disk sync takes 1 ms longer, as a share of the figure without."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from bench import REPETITIONS, Bench
from measure import Missing, Sample, interleaved, median
from processes import ChildFailed, inferq_child
from report import Row, skipped

from scenarios import life

DELAY_US = 1000
GOAL = 0.45
_WHAT = "whole life, 1024 B, bulk, 1 ms more a disk sync"


async def through(path: str, count: int, size: int) -> Sample:
    """The life, and what a disk sync takes in this process, to show that the delay is there (or not)."""
    return {**await life.through(path, count, size, bulk=True), "sync_ms": sync_ms(Path(path).parent)}


def sync_ms(folder: Path, times: int = 50) -> float:
    """Median milliseconds of an appended 4 KB block and its fdatasync."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            os.write(file.fileno(), bytes(4096))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(taken)


def measure(bench: Bench) -> list[Row]:
    try:
        preload = bench.slow_sync()
    except Missing as error:
        return [skipped("slow-disk", _WHAT, str(error))]
    slow = {"LD_PRELOAD": preload, "BENCH_SYNC_DELAY_US": str(DELAY_US)}
    count = bench.size(3_000, 20_000)
    samples = interleaved(
        REPETITIONS,
        {
            "as it is": lambda: _fresh(bench, count, {}),
            "slow": lambda: _fresh(bench, count, slow),
        },
    )
    quick, slowed = median(samples["as it is"], "per_second"), median(samples["slow"], "per_second")
    sync = [median(samples[name], "sync_ms") for name in ("as it is", "slow")]
    note = f"a sync took {sync[0]:.2f} ms without and {sync[1]:.2f} ms with the delay"
    if sync[1] < DELAY_US / 1000:
        raise ChildFailed("the slow disk was not slow: the preloaded library did not take effect")
    ratio = slowed / quick
    row = Row("slow-disk", _WHAT, slowed, "tasks/s", "without", quick, ratio, f">= {GOAL}x", ratio >= GOAL, note, {"samples": samples})
    return [row]


def _fresh(bench: Bench, count: int, env: dict[str, str]) -> Sample:
    path = bench.place()
    try:
        return inferq_child(__name__, "through", env=env, path=path, count=count, size=1024)
    finally:
        bench.drop(path)
