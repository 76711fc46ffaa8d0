"""The whole life of no-op tasks (submit, claim, run, result stored) through one process with 100 slots, against queues on servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench import REPETITIONS, Bench
from measure import Missing, Sample, interleaved, median, spread
from processes import inferq_child
from report import Row, skipped
from rivals import Rival
from subject import SLOTS, Completions, fill, from_coroutines, open_queue, payload, submissions

FLOOR = 15_000
"""Tasks a second that the embedded queue must never fall under on the machine of the goals."""
CPU_GOAL = 50.0
"""Microseconds of a worker's CPU a task."""
PEERS = ("pgqueuer", "saq", "huey")
_SERVER = {"pgqueuer": "pgqueuer (Postgres)", "saq": "SAQ (Redis)", "huey": "huey (Redis)"}


# in a process of its own ---------------------------------------------------------------------------------------------


async def through(path: str, count: int, size: int, bulk: bool) -> Sample:
    """From the first submit until the last result is durable: submitting and working in one process."""
    async with open_queue(path, work=True) as queue:
        completions = Completions(queue.store)
        cpu, begun = time.process_time(), time.perf_counter()
        if bulk:
            await fill(queue, submissions(count, size))
        else:
            body = payload(size)
            await from_coroutines(count, SLOTS, lambda: queue.submit("echo", "echo", payload=body))
        submitted = time.perf_counter()
        ended = await completions.reach(count)
        spent = time.process_time() - cpu
    return {"per_second": count / (ended - begun), "submit_per_second": count / (submitted - begun), "cpu_us": spent / count * 1e6}


async def drain(path: str, count: int, size: int) -> Sample:
    """A worker on a file that another submitted to: its CPU without that of submitting."""
    async with open_queue(path, work=False) as queue:
        await fill(queue, submissions(count, size))
    cpu, begun = time.process_time(), time.perf_counter()
    async with open_queue(path, work=True) as queue:
        completions = Completions(queue.store)
        ended = await completions.reach(count)
        spent = time.process_time() - cpu
    return {"per_second": count / (ended - begun), "worker_cpu_us": spent / count * 1e6}


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    # A quick run leaves out what has no goal: starting peers three times takes longer than all the rest.
    large, small = (("pgqueuer", "saq"), ()) if bench.is_quick else (PEERS, PEERS)
    return [*_compared(bench, "life", 1024, large), *_compared(bench, "life-small", 20, small)]


def _compared(bench: Bench, scenario: str, size: int, peers: Sequence[str]) -> list[Row]:
    count = bench.size(3_000, 20_000)
    contenders: dict[str, Callable[[], Sample]] = {
        "bulk": lambda: fresh(bench, "through", count=count, size=size, bulk=True),
        "single": lambda: fresh(bench, "through", count=count, size=size, bulk=False),
        "drain": lambda: fresh(bench, "drain", count=count, size=size),
    }
    out: dict[str, str] = {}
    for peer in peers:
        try:
            rival = Rival(bench, peer)
        except Missing as error:
            out[peer] = str(error)
            continue
        # The slower ones run fewer tasks: their rate does not depend on how many there are.
        contenders[peer] = partial(rival.life, count if peer == "pgqueuer" else bench.size(800, 5_000), size, SLOTS)
    samples = interleaved(REPETITIONS, contenders, out)
    missing = [skipped(scenario, f"whole life, {size} B, vs {_SERVER[peer]}", why) for peer, why in out.items()]
    return [*_rates(scenario, size, samples), *_cpu(scenario, size, samples), *missing]


def fresh(bench: Bench, function: str, *, env: dict[str, str] | None = None, **arguments: Any) -> Sample:
    """One measurement on a new file in a new process."""
    path = bench.place()
    try:
        return inferq_child(__name__, function, env=env, path=path, **arguments)
    finally:
        bench.drop(path)


def _rates(scenario: str, size: int, samples: dict[str, list[Sample]]) -> list[Row]:
    bulk, single = median(samples["bulk"], "per_second"), median(samples["single"], "per_second")
    what = f"whole life, {size} B"
    detail = {"samples": samples}
    low, high = spread(samples["bulk"], "per_second")
    rows = [Row(scenario, f"{what}, bulk submit", bulk, "tasks/s", goal=f">= {FLOOR:,}/s", met=bulk >= FLOOR, detail=detail)]
    rows[0].detail["range"] = [low, high]
    met = single >= FLOOR
    rows.append(Row(scenario, f"{what}, 100 coroutines submit one each", single, "tasks/s", goal=f">= {FLOOR:,}/s", met=met))
    goals = {"pgqueuer": 1.0, "saq": 5.0, "huey": None}
    for peer, goal in goals.items():
        if peer not in samples:
            continue
        rate = median(samples[peer], "per_second")
        # Each with the fastest way to submit that the peer has: pgqueuer in bulk, the others one at a time.
        mine = bulk if peer == "pgqueuer" else single
        how = "bulk" if peer == "pgqueuer" else "one each"
        ratio = mine / rate
        text, met_peer = (f"> {goal:g}x", ratio > goal) if goal is not None else ("", None)
        rows.append(Row(scenario, f"{what}, {how}", mine, "tasks/s", _SERVER[peer], rate, ratio, text, met_peer))
    return rows


def _cpu(scenario: str, size: int, samples: dict[str, list[Sample]]) -> list[Row]:
    mine = median(samples["drain"], "worker_cpu_us")
    what = f"worker CPU a task, {size} B"
    rows = [Row(scenario, what, mine, "us", goal=f"<= {CPU_GOAL:g} us", met=mine <= CPU_GOAL)]
    for peer in PEERS:
        if peer in samples:
            other = median(samples[peer], "worker_cpu_us")
            rows.append(Row(scenario, what, mine, "us", _SERVER[peer], other, other / mine, "", None))
    return rows
