"""Depth and width of the queue: a million waiting tasks against a thousand, 10,000 flows against one; memory and start with a million."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median
from processes import inferq_child, memory_mb
from report import Row
from subject import Completions, fill, open_queue, submissions

from inferq import AsyncQueue, Call
from inferq.executor import Produced
from inferq.executors.echo import EchoExecutor

SIZE = 1024
SHALLOW = 1_000
DEPTH_GOAL, FLOWS_GOAL = 0.9, 0.5
MEMORY_GOAL = 60.0
"""MB over an idle process on an empty file."""
START_GOAL = 2.0
"""Seconds from opening the queue to the first handler."""
_GROUP = 100
_AHEAD = 5
"""Groups that may be submitted before as many tasks have completed: the number of waiting tasks stays where it was."""


# in a process of its own ---------------------------------------------------------------------------------------------


async def prepare(path: str, count: int, tenants: int, priorities: int) -> Sample:
    """Fill a file; also: how much the submitting process grew."""
    async with open_queue(path, work=False) as queue:
        await fill(queue, submissions(1000, SIZE, tenants=tenants, priorities=priorities))
        before, begun = memory_mb(), time.perf_counter()
        await fill(queue, submissions(count - 1000, SIZE, tenants=tenants, priorities=priorities))
        return {"grown_mb": memory_mb() - before, "per_second": (count - 1000) / max(time.perf_counter() - begun, 1e-9)}


async def steady(path: str, count: int, tenants: int, priorities: int) -> Sample:
    """`count` lives while as many tasks come as go; what waits in the file stays there for the next time."""
    async with open_queue(path, work=True) as queue:
        completions = Completions(queue.store)
        # The first claims after opening read a cold file: they are not counted.
        await _turn_over(queue, completions, count // 10 + _AHEAD * _GROUP, tenants, priorities)
        begun = time.perf_counter()
        await _turn_over(queue, completions, count, tenants, priorities)
        took = time.perf_counter() - begun
        await queue.stop(0)
    return {"per_second": count / took}


async def _turn_over(queue: AsyncQueue, completions: Completions, count: int, tenants: int, priorities: int) -> None:
    start, sent = completions.count, 0
    items = submissions(count, SIZE, tenants=tenants, priorities=priorities)
    while group := [item for _, item in zip(range(min(_GROUP, count - sent)), items, strict=False)]:
        sent += len(await queue.submit_many(group))
        await completions.reach(start + sent - _AHEAD * _GROUP)
    await completions.reach(start + count)


class First(EchoExecutor):
    """Notes when its first task started."""

    def __init__(self) -> None:
        super().__init__("echo")
        self.at: float | None = None

    def run(self, call: Call) -> Produced:
        if self.at is None:
            self.at = time.perf_counter()
        return super().run(call)


async def opened(path: str, lives: int) -> Sample:
    """Open the file and work on it: time to the first handler, memory after so many lives. 0 lives: an idle process."""
    first, begun = First(), time.perf_counter()
    async with open_queue(path, work=True, executors=[first]) as queue:
        completions = Completions(queue.store)
        if lives:
            await completions.reach(lives)
        else:
            await asyncio.sleep(0.3)
        memory = memory_mb()
        await queue.stop(0)
    return {"memory_mb": memory, "peak_mb": memory_mb("VmHWM"), "first_seconds": (first.at or begun) - begun}


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    depth = bench.size(10_000, 1_000_000)
    tenants, priorities = bench.size(100, 1000), 10
    lives = bench.size(2_000, 20_000)
    paths = {name: bench.place() for name in ("deep", "shallow", "wide", "empty")}
    filled = {
        "deep": _child("prepare", paths["deep"], count=depth, tenants=1, priorities=1),
        "shallow": _child("prepare", paths["shallow"], count=SHALLOW + 1000, tenants=1, priorities=1),
        "wide": _child("prepare", paths["wide"], count=depth, tenants=tenants, priorities=priorities),
    }
    opening = interleaved(
        REPETITIONS,
        {
            "idle": lambda: _child("opened", paths["empty"], lives=0),
            "deep": lambda: _child("opened", paths["deep"], lives=bench.size(1_000, 5_000)),
        },
    )
    lived = interleaved(
        REPETITIONS,
        {
            "shallow": lambda: _child("steady", paths["shallow"], count=lives, tenants=1, priorities=1),
            "deep": lambda: _child("steady", paths["deep"], count=lives, tenants=1, priorities=1),
            "wide": lambda: _child("steady", paths["wide"], count=lives, tenants=tenants, priorities=priorities),
        },
    )
    for path in paths.values():
        bench.drop(path)
    is_judged = not bench.is_quick
    return [
        *_lives(lived, depth, tenants * priorities, is_judged=is_judged),
        *_opening(opening, filled["deep"], depth, is_judged=is_judged),
    ]


def _child(function: str, path: str, **arguments: Any) -> Sample:
    return inferq_child(__name__, function, timeout=300, path=path, **arguments)


def _lives(samples: dict[str, list[Sample]], depth: int, flows: int, *, is_judged: bool) -> list[Row]:
    shallow, deep, wide = (median(samples[name], "per_second") for name in ("shallow", "deep", "wide"))
    rows = []
    for name, rate, other, what, against, goal in (
        ("backlog", deep, shallow, f"whole life, {depth:,} waiting", f"{SHALLOW:,} waiting", DEPTH_GOAL),
        ("flows", wide, deep, f"whole life, {depth:,} waiting in {flows:,} flows", "in one flow", FLOWS_GOAL),
    ):
        ratio = rate / other
        met = ratio >= goal if is_judged else None
        rows.append(Row(name, what, rate, "tasks/s", against, other, ratio, f">= {goal}x", met, detail={"samples": samples}))
    return rows


def _opening(samples: dict[str, list[Sample]], filled: Sample, depth: int, *, is_judged: bool) -> list[Row]:
    idle, deep = median(samples["idle"], "memory_mb"), median(samples["deep"], "memory_mb")
    more, first = deep - idle, median(samples["deep"], "first_seconds")
    note = f"idle {idle:.0f} MB; the process that submitted them grew by {filled['grown_mb']:.0f} MB at {filled['per_second']:,.0f}/s"
    goals = (f"<= {MEMORY_GOAL:g} MB", f"<= {START_GOAL:g} s")
    met = (more <= MEMORY_GOAL, first <= START_GOAL) if is_judged else (None, None)
    detail = {"samples": samples}
    return [
        Row("memory", f"memory over idle, {depth:,} waiting", more, "MB", goal=goals[0], met=met[0], note=note, detail=detail),
        Row("start", f"open to first handler, {depth:,} waiting", first, "s", goal=goals[1], met=met[1]),
    ]
