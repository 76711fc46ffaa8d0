"""Two processes on one file wake each other: submit here, start there; end there, heard here."""

from __future__ import annotations

import time
from statistics import median

import pytest
from faultkit.children import Start
from faultkit.history import read_history
from faultkit.place import Place

pytestmark = pytest.mark.faults

ROUNDS = 30
BOUND_MS = 100.0


async def test_a_submit_in_one_process_starts_in_another_and_its_end_is_heard_within_100_ms(place: Place, start: Start) -> None:
    submitted: dict[str, int] = {}
    heard: dict[str, int] = {}
    async with place.queue(work=False) as queue:
        with start("worker", place).ready():
            for number in range(ROUNDS):
                began = time.monotonic_ns()
                handle = await queue.submit("record", "do", payload={"n": number, "ms": 1})
                submitted[handle.id] = began
                await handle.result(timeout=10)
                heard[handle.id] = time.monotonic_ns()
    runs = read_history(place, set()).runs
    starts = [(run.mono - submitted[run.task]) / 1e6 for run in runs if run.what == "start"]
    ends = [(heard[run.task] - run.mono) / 1e6 for run in runs if run.what == "end"]
    print(f"submit to start: median {median(starts):.1f} ms, worst {max(starts):.1f} ms")
    print(f"end to heard: median {median(ends):.1f} ms, worst {max(ends):.1f} ms")
    assert len(starts) == len(ends) == ROUNDS
    assert median(starts) <= BOUND_MS
    assert median(ends) <= BOUND_MS
