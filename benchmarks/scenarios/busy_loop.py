"""What a commit takes while the program's event loop is 95 % busy with other work: does the writer thread get its turn?"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import bare
from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median, percentile
from processes import inferq_child
from report import Row
from subject import open_queue, payload

BUSY = 0.95
GOAL = 10.0
"""Milliseconds, p99."""
PYTHON_DEFAULT = 0.005
"""Seconds after which a thread that waits for the interpreter asks for it, as Python starts."""
_PERIOD, _PIECE = 0.005, 0.0002


# in a process of its own ---------------------------------------------------------------------------------------------


async def _burn() -> None:
    """The other work: pieces of 0.2 ms with a turn of the loop between them, for 95 % of every 5 ms."""
    while True:
        begun = time.perf_counter()
        while time.perf_counter() - begun < BUSY * _PERIOD:
            piece = time.perf_counter()
            while time.perf_counter() - piece < _PIECE:
                pass
            await asyncio.sleep(0)
        await asyncio.sleep(max(0.0, begun + _PERIOD - time.perf_counter()))


async def _under_load(callers: int, seconds: float, call: Callable[[], Any]) -> Sample:
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            await call()
            took.append(time.perf_counter() - begun)

    burner = asyncio.create_task(_burn())
    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    spent = time.perf_counter() - begun
    burner.cancel()
    return {"per_second": len(took) / spent, "p50_ms": percentile(took, 0.5) * 1e3, "p99_ms": percentile(took, 0.99) * 1e3}


async def submits(path: str, callers: int, seconds: float, switch_seconds: float | None) -> Sample:
    """`submit` from that many coroutines; the switch interval is the store's own unless given."""
    body = payload(1024)
    async with open_queue(path, work=False) as queue:
        if switch_seconds is not None:
            sys.setswitchinterval(switch_seconds)
        return await _under_load(callers, seconds, lambda: queue.submit("echo", "echo", payload=body))


async def front(path: str, callers: int, seconds: float) -> Sample:
    """The bare group-commit front with the short switch interval."""
    rows = bare.Front(path)
    made = await _under_load(callers, seconds, rows.add)
    rows.close()
    return made


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    seconds = 0.4 if bench.is_quick else 3.0

    def fresh(function: str, **arguments: Any) -> Sample:
        path = bench.place()
        try:
            return inferq_child(__name__, function, path=path, seconds=seconds, **arguments)
        finally:
            bench.drop(path)

    contenders: dict[str, Callable[[], Sample]] = {}
    for callers in (1, 100) if bench.is_quick else (1, 10, 100):
        contenders[f"inferq {callers}"] = partial(fresh, "submits", callers=callers, switch_seconds=None)
        contenders[f"front {callers}"] = partial(fresh, "front", callers=callers)
        contenders[f"default {callers}"] = partial(fresh, "submits", callers=callers, switch_seconds=PYTHON_DEFAULT)
    samples = interleaved(REPETITIONS, contenders)
    return [row for callers in (1, 10, 100) if f"inferq {callers}" in samples for row in _rows(samples, callers)]


def _rows(samples: dict[str, list[Sample]], callers: int) -> list[Row]:
    mine, front, default = (samples[f"{name} {callers}"] for name in ("inferq", "front", "default"))
    p99, bare_p99, default_p99 = (median(found, "p99_ms") for found in (mine, front, default))
    what = f"commit p99, loop 95 % busy, {callers} caller{'s'[: callers > 1]}"
    note = f"{median(mine, 'per_second'):,.0f} submits/s, bare front {median(front, 'per_second'):,.0f}/s"
    goal = f"<= {GOAL:g} ms"
    return [
        Row("busy-loop", what, p99, "ms", "bare front", bare_p99, bare_p99 / p99, goal, p99 <= GOAL, note, {"samples": mine}),
        Row("busy-loop", what, p99, "ms", "Python's default switch interval", default_p99, default_p99 / p99),
    ]
