"""Several workers on one file, a wall clock that runs fast, jumps and goes back, SIGKILL among them: each fire makes one task."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest
from faultkit.children import Child, Start
from faultkit.clock import SteppedClock
from faultkit.place import Place

from inferq import AsyncQueue
from inferq.cron import fires
from inferq.events import ScheduleFired
from inferq.schedule import Schedule
from inferq.testing import wait_until

pytestmark = pytest.mark.faults

TASK = {"executor": "record", "action": "do", "payload": {"n": 1}}
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {
    "minutely": ("* * * * *", {"overlap": "allow"}),
    "fives": ("*/5 * * * *", {"overlap": "allow", "jitter": "3m"}),
    "berlin": ("2-58/7 * * * *", {"tz": "Europe/Berlin", "overlap": "allow"}),
    "queued": ("*/2 * * * *", {"overlap": "queue"}),
    "cancelling": ("*/3 * * * *", {"overlap": "cancel"}),
}


async def test_each_fire_makes_one_task_over_processes_kills_and_clock_steps(place: Place, start: Start) -> None:
    rng = random.Random(11)
    place = replace(place, clock=f"{place.folder}/clock")
    clock = SteppedClock(place.clock)
    async with place.queue(work=False) as queue:
        made = {}
        for name, (expression, fields) in SCHEDULES.items():
            made[name] = await queue.schedules.put(name, expression, task=TASK, misfire="all", window="7d", **fields)
        workers = [start("worker", place).ready() for _ in range(3)]
        killed = 0
        for turn in range(60):
            clock.step(rng.uniform(40, 400) if rng.random() < 0.85 else -rng.uniform(30, 600))
            await asyncio.sleep(rng.uniform(0.0, 0.05))  # a process is hit at any moment of its work
            if turn % 6 == 5:
                killed += _replace_one(workers, place, start, rng)
        await wait_until(lambda: _caught_up(queue, clock), timeout=40, every=0.1, what="every schedule to catch up")
        now = clock.read().wall
        told = await _told(queue)
        for name, first in made.items():
            await _check(queue, name, first, now)
            made_tasks = {task.id for task in await queue.schedules.history(name, limit=10_000)}
            assert told[name] == Counter(made_tasks), f"{name}: a fire without its event, or told twice"
    assert killed == 10


def _replace_one(workers: list[Child], place: Place, start: Start, rng: random.Random) -> int:
    index = rng.randrange(len(workers))
    workers[index].kill()
    workers[index] = start("worker", place)
    return 1


async def _caught_up(queue: AsyncQueue, clock: SteppedClock) -> bool:
    now = clock.read().wall
    return all(one.due is not None and one.due > now and one.held is None for one in await queue.schedules.list())


async def _told(queue: AsyncQueue) -> dict[str, Counter[str]]:
    """The tasks of each schedule's fires, as the event log has them."""
    told: dict[str, Counter[str]] = {name: Counter() for name in SCHEDULES}
    place = 0
    while logged := await queue.store.events(after=place):
        place = logged[-1].position
        for event in logged:
            if isinstance(event, ScheduleFired):
                told[event.schedule][event.task_id] += 1
    return told


async def _check(queue: AsyncQueue, name: str, first: Schedule, now: int) -> None:
    after = await queue.schedules.get(name)
    tasks = await queue.schedules.history(name, limit=10_000)
    times = Counter(task.spec.scheduled_at for task in tasks)
    assert max(times.values()) == 1, f"{name}: a fire made two tasks"
    assert after.fire_count == len(tasks), f"{name}: the count and the tasks disagree"
    nominal = list(takewhile(lambda at: at <= after.mark, fires(first.cron, first.mark, first.zone)))
    assert len(nominal) > 10
    if after.overlap == "allow":
        assert sorted(times) == nominal, f"{name}: fires were lost or invented"
    else:
        assert set(times) <= set(nominal), f"{name}: fires were invented"


async def test_after_downtime_of_all_processes_each_policy_makes_up_for_what_it_says(place: Place, start: Start) -> None:
    place = replace(place, clock=f"{place.folder}/clock")
    clock = SteppedClock(place.clock)
    async with place.queue(work=False) as queue:
        for misfire, window in (("skip", "1h"), ("once", "6h"), ("all", "6h")):
            await queue.schedules.put(misfire, "0 * * * *", task=TASK, misfire=misfire, window=window, overlap="allow")  # type: ignore[arg-type]
        with start("worker", place).ready() as worker:
            worker.kill()
        into_the_hour = clock.read().wall // 1000 % 3600
        clock.step(10 * 3600 + 1800 - into_the_hour)  # ten fires missed, the newest half an hour ago
        with start("worker", place).ready():
            await wait_until(lambda: _caught_up(queue, clock), timeout=20, what="every schedule to catch up")
        made = {name: len(await queue.schedules.history(name)) for name in ("skip", "once", "all")}
        assert made == {"skip": 0, "once": 1, "all": 6}
        newest = (await queue.schedules.get("once")).last_fire
        assert newest == clock.read().wall // 3_600_000 * 3_600_000


async def test_a_running_task_is_cancelled_before_the_next_one_is_made(place: Place, start: Start) -> None:
    place = replace(place, clock=f"{place.folder}/clock")
    clock = SteppedClock(place.clock)
    async with place.queue(work=False) as queue:
        task = {**TASK, "payload": {"n": 1, "hold": "/nonexistent"}}
        await queue.schedules.put("long", "0 * * * *", task=task, overlap="cancel", misfire="once")
        with start("worker", place).ready():
            clock.step(3600)
            first = await wait_until(lambda: _newest(queue, 1), timeout=20, what="the first fire")
            clock.step(3600)
            await wait_until(lambda: _newest(queue, 2), timeout=20, what="the second fire")
        assert str((await queue.get(first)).state) == "cancelled"


async def _newest(queue: AsyncQueue, count: int) -> str:
    tasks = await queue.schedules.history("long")
    return tasks[0].id if len(tasks) == count and str(tasks[0].state) == "running" else ""
