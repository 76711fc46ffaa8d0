"""How long an idle queue takes from submit to the start of the handler, against the same of peers."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import REPETITIONS, Bench
from measure import Missing, Sample, interleaved, median, percentile
from processes import inferq_child
from report import Row, skipped
from rivals import Rival
from subject import SLOTS, open_queue

from inferq import Call, Executor

P50_GOAL, P99_GOAL = 1.0, 3.0
"""Milliseconds."""
OTHER_PROCESS_GOAL = 100.0
"""Milliseconds within which processes on one file must wake each other."""
_WARM = 5
_PEERS = {"saq": "SAQ (Redis)", "taskiq": "taskiq (Redis)", "huey": "huey (Redis)"}


# in a process of its own ---------------------------------------------------------------------------------------------


class Probe(Executor):
    """Notes how long ago its task was sent."""

    actions = ("probe",)

    def __init__(self) -> None:
        super().__init__("probe")
        self.waited: list[float] = []

    async def run(self, call: Call) -> None:
        self.waited.append((time.monotonic_ns() - call.payload["sent"]) / 1e6)


async def one_process(path: str, count: int) -> Sample:
    """Submitter and worker share a process and its event loop."""
    probe = Probe()
    async with open_queue(path, work=True, executors=[probe]) as queue:
        await _send(queue, count)
        while len(probe.waited) < count + _WARM:
            await asyncio.sleep(0.01)
    return _summary(probe.waited)


async def two_processes(path: str, count: int) -> Sample:
    """The worker is another process on the same file; it learns of the task from the file alone."""
    probe = Probe()
    async with open_queue(path, work=True, executors=[probe]):
        program = f"import asyncio, sys; sys.path[:] = {sys.path!r}; from scenarios import idle; asyncio.run(idle.send({path!r}, {count}))"
        sender = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.DEVNULL)
        if await sender.wait():
            raise RuntimeError("the sender failed")
        while len(probe.waited) < count + _WARM:
            await asyncio.sleep(0.01)
    return _summary(probe.waited)


def disk(path: str, count: int) -> Sample:
    """The limit: the submit's commit and the claim's, as two syncs of an appended file after the same pauses."""
    waited = []
    with Path(path).open("wb", buffering=0) as file:
        for _ in range(count + _WARM):
            time.sleep(random.uniform(0.01, 0.06))
            begun = time.perf_counter()
            for _ in range(2):
                file.write(bytes(8192))
                os.fdatasync(file.fileno())
            waited.append((time.perf_counter() - begun) * 1e3)
    return _summary(waited)


async def send(path: str, count: int) -> None:
    """The other process."""
    async with open_queue(path, work=False, executors=[Probe()]) as queue:
        await _send(queue, count)


async def _send(queue: Any, count: int) -> None:
    for _ in range(count + _WARM):
        await asyncio.sleep(random.uniform(0.01, 0.06))
        await queue.submit("probe", "probe", payload={"sent": time.monotonic_ns()})


def _summary(waited: list[float]) -> Sample:
    counted = waited[_WARM:]
    return {"p50_ms": percentile(counted, 0.5), "p99_ms": percentile(counted, 0.99)}


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    count = bench.size(20, 200)
    contenders: dict[str, Callable[[], Sample]] = {
        "inferq": lambda: _fresh(bench, "one_process", count),
        "inferq, two processes": lambda: _fresh(bench, "two_processes", count),
        "disk": lambda: _fresh(bench, "disk", count),
    }
    out: dict[str, str] = {}
    for peer in _PEERS:
        if peer == "huey" and bench.is_quick:
            continue
        try:
            contenders[peer] = partial(_rival, Rival(bench, peer), count)
        except Missing as error:
            out[peer] = str(error)
    samples = interleaved(REPETITIONS, contenders, out)
    return [*_rows(samples), *(skipped("idle", f"idle submit to handler start vs {_PEERS[peer]}", why) for peer, why in out.items())]


def _fresh(bench: Bench, function: str, count: int) -> Sample:
    path = bench.place()
    try:
        return inferq_child(__name__, function, path=path, count=count)
    finally:
        bench.drop(path)


def _rival(rival: Rival, count: int) -> Sample:
    return _summary(rival.idle(count + _WARM, SLOTS))


def _rows(samples: dict[str, list[Sample]]) -> list[Row]:
    rows = []
    for key, goal in (("p50_ms", P50_GOAL), ("p99_ms", P99_GOAL)):
        mine, what = median(samples["inferq"], key), f"idle submit to handler start, {key[:3]}"
        rows.append(Row("idle", what, mine, "ms", goal=f"<= {goal:g} ms", met=mine <= goal, detail={"samples": samples["inferq"]}))
        limit = median(samples["disk"], key)
        rows.append(Row("idle", what, mine, "ms", "two disk syncs", limit, limit / mine))
        for peer, name in _PEERS.items():
            if peer in samples:
                other = median(samples[peer], key)
                text, met = ("below", mine < other) if peer != "huey" else ("", None)
                rows.append(Row("idle", what, mine, "ms", name, other, other / mine, text, met))
    apart = samples["inferq, two processes"]
    far = median(apart, "p99_ms")
    what, goal_text = "the same, worker in another process, p99", f"<= {OTHER_PROCESS_GOAL:g} ms"
    rows.append(Row("idle", what, far, "ms", goal=goal_text, met=far <= OTHER_PROCESS_GOAL, note=f"p50 {median(apart, 'p50_ms'):.1f} ms"))
    return rows
