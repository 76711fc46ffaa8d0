"""Does a task cost more when there are more of them? Bulk submit and drain of 10^3 to 10^6 tasks, each against the smallest."""

from __future__ import annotations

import time
from functools import partial

from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median
from processes import inferq_child
from report import Row
from subject import Completions, fill, open_queue, submissions

SIZE = 1024


async def through(path: str, count: int) -> Sample:
    """Submit them all, then run them all, in one process."""
    async with open_queue(path, work=False) as queue:
        begun = time.perf_counter()
        await fill(queue, submissions(count, SIZE))
        submitted = time.perf_counter() - begun
    async with open_queue(path, work=True) as queue:
        begun = time.perf_counter()
        completions = Completions(queue.store)
        drained = await completions.reach(count) - begun
    return {"submit_per_second": count / submitted, "drain_per_second": count / drained}


def measure(bench: Bench) -> list[Row]:
    powers = {"quick": (3, 4), "full": (3, 4, 5), "long": (3, 4, 5, 6)}[bench.mode]

    def at(count: int) -> Sample:
        path = bench.place()
        try:
            return inferq_child(__name__, "through", timeout=600, path=path, count=count)
        finally:
            bench.drop(path)

    # A million takes minutes: measured once.
    samples = interleaved(REPETITIONS, {str(10**power): partial(at, 10**power) for power in powers if power < 6})
    if 6 in powers:
        samples[str(10**6)] = [at(10**6)]
    rows = []
    smallest = samples[str(10 ** powers[0])]
    for power in powers[1:]:
        for key, verb in (("submit_per_second", "bulk submit"), ("drain_per_second", "claim, run, finish")):
            rate, base = median(samples[str(10**power)], key), median(smallest, key)
            against = f"{10 ** powers[0]:,} tasks"
            rows.append(Row("growth", f"{verb} of {10**power:,} tasks", rate, "tasks/s", against, base, rate / base))
    return rows
