"""Durable submits: in bulk against SQLite alone, and one at a time from 100 coroutines against the smallest group-commit front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import bare
from bench import REPETITIONS, Bench
from measure import Missing, Sample, interleaved, median, percentile
from processes import inferq_child
from report import Row, skipped
from rivals import Rival
from subject import fill, from_coroutines, open_queue, payload, submissions

BULK_GOAL = 0.6
SINGLE_GOAL = 0.5
CALLERS = 100
SIZE = 1024


# in a process of its own ---------------------------------------------------------------------------------------------


async def bulk(path: str, count: int, group: int, callers: int) -> Sample:
    """`submit_many`, one call after the other, from that many coroutines."""
    async with open_queue(path, work=False) as queue:
        begun = time.perf_counter()
        await asyncio.gather(*(fill(queue, submissions(count // callers, SIZE), group=group) for _ in range(callers)))
        took = time.perf_counter() - begun
    return {"per_second": count / took}


def raw(path: str, count: int, group: int) -> Sample:
    """SQLite alone."""
    return dict(bare.inserts(path, count, group))


async def single(path: str, count: int) -> Sample:
    """100 coroutines that await `submit` again and again."""
    body = payload(SIZE)
    async with open_queue(path, work=False) as queue:
        begun = time.perf_counter()
        took = await from_coroutines(count, CALLERS, lambda: queue.submit("echo", "echo", payload=body))
        return _rate(count, time.perf_counter() - begun, took)


async def front(path: str, count: int) -> Sample:
    """The same on the bare front."""
    rows = bare.Front(path)
    begun = time.perf_counter()
    took = await from_coroutines(count, CALLERS, rows.add)
    made = _rate(count, time.perf_counter() - begun, took)
    rows.close()
    return made


def _rate(count: int, seconds: float, took: list[float]) -> Sample:
    return {"per_second": count / seconds, "p50_ms": percentile(took, 0.5) * 1e3, "p99_ms": percentile(took, 0.99) * 1e3}


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    count = bench.size(3_000, 50_000)
    contenders: dict[str, Callable[[], Sample]] = {
        "raw": lambda: _fresh(bench, "raw", count=count, group=100),
        "bulk 100": lambda: _fresh(bench, "bulk", count=count, group=100, callers=1),
        "bulk 2 x 100": lambda: _fresh(bench, "bulk", count=count, group=100, callers=2),
        "bulk 1000": lambda: _fresh(bench, "bulk", count=count, group=1000, callers=1),
        "front": lambda: _fresh(bench, "front", count=count),
        "single": lambda: _fresh(bench, "single", count=count),
    }
    out: dict[str, str] = {}
    for peer in ("pgqueuer", "saq"):
        try:
            contenders[peer] = partial(Rival(bench, peer).submit, count if peer == "pgqueuer" else bench.size(1_000, 10_000), SIZE)
        except Missing as error:
            out[peer] = str(error)
    samples = interleaved(REPETITIONS, contenders, out)
    return [*_rows(samples), *(skipped("submit", f"submit vs {peer}", why) for peer, why in out.items())]


def _fresh(bench: Bench, function: str, **arguments: Any) -> Sample:
    path = bench.place()
    try:
        return inferq_child(__name__, function, path=path, **arguments)
    finally:
        bench.drop(path)


def _rows(samples: dict[str, list[Sample]]) -> list[Row]:
    def rate(name: str, key: str = "per_second") -> float:
        return median(samples[name], key)

    def row(what: str, mine: str, other: str, against: str, goal: float | None, key: str = "per_second") -> Row:
        ratio = rate(mine) / rate(other, key)
        text, met = (f">= {goal:g}x", ratio >= goal) if goal is not None else ("", None)
        return Row("submit", what, rate(mine), "tasks/s", against, rate(other, key), ratio, text, met, detail={"samples": samples[mine]})

    rows = [
        row("bulk submit, groups of 100", "bulk 100", "raw", "raw SQLite, groups of 100", BULK_GOAL),
        row("bulk submit, groups of 100, 2 callers", "bulk 2 x 100", "raw", "raw SQLite, groups of 100", BULK_GOAL),
        row("bulk submit, groups of 1,000", "bulk 1000", "raw", "raw SQLite, groups of 100", BULK_GOAL),
    ]
    if "pgqueuer" in samples:
        what = "bulk submit, groups of 1,000"
        rows.append(row(what, "bulk 1000", "pgqueuer", "pgqueuer (Postgres)", 1.0, "submit_per_second"))
    rows.append(row("submit, 100 coroutines one each", "single", "front", "bare group-commit front", SINGLE_GOAL))
    p50, p99 = (median(samples["single"], key) for key in ("p50_ms", "p99_ms"))
    bare_p50, bare_p99 = (median(samples["front"], key) for key in ("p50_ms", "p99_ms"))
    rows[-1].note = f"p50 / p99 ms: {p50:.2f} / {p99:.2f}, bare {bare_p50:.2f} / {bare_p99:.2f}"
    if "saq" in samples:
        rows.append(row("submit, 100 coroutines one each", "single", "saq", "SAQ (Redis, not durable)", None, "submit_per_second"))
    return rows
