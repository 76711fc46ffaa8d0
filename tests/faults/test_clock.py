"""A wall clock that steps back and forth by an hour under two workers: no task runs twice, none is stuck, retries go on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from faultkit.checker import complaints
from faultkit.children import Start
from faultkit.clock import SteppedClock
from faultkit.history import read_contents, read_history
from faultkit.place import Place
from faultkit.recorder import Log

from inferq import AsyncQueue, TaskFailed
from inferq.task import State
from inferq.testing import wait_until

pytestmark = pytest.mark.faults

HOUR = 3600.0


@pytest.fixture
def stepped(place: Place) -> tuple[Place, SteppedClock]:
    """A place whose processes share one wall clock, and that clock."""
    file = f"{place.folder}/clock"
    return replace(place, clock=file), SteppedClock(file)


@pytest.mark.parametrize("steps", [[HOUR], [-HOUR], [HOUR, -HOUR, -HOUR, HOUR, -HOUR]], ids=["forth", "back", "both"])
async def test_nothing_runs_twice_or_is_stuck_when_the_wall_clock_steps(
    stepped: tuple[Place, SteppedClock], start: Start, steps: list[float]
) -> None:
    place, clock = stepped
    rng, count = random.Random(7), 60
    async with place.queue(work=False) as queue:
        workers = [start("worker", place).ready() for _ in range(2)]
        log = Log(place.acks)
        for number in range(count):
            payload = {"n": number, "ms": rng.randint(0, 40), "fail": rng.choice([[], [], ["again"], ["again", "wait", "again"]])}
            handle = await queue.submit("record", "do", payload=payload, key=f"k{number}")
            log.write(key=f"k{number}", id=handle.id)
            if number % (count // len(steps)) == count // len(steps) // 2:
                clock.step(steps[number // (count // len(steps))])
        await wait_until(lambda: _drained(queue), timeout=30, every=0.02, what="every task to end")
        for worker in workers:
            worker.terminate()
            assert worker.wait() == 0
        contents = await read_contents(queue)
    assert complaints(read_history(place, set()), contents) == []
    assert {task.state for task in contents.tasks.values()} == {State.COMPLETED}


async def test_a_retry_that_waits_is_not_put_off_by_a_clock_that_goes_back(stepped: tuple[Place, SteppedClock]) -> None:
    place, clock = stepped
    async with place.queue(work=True) as queue:
        for _ in range(3):
            handle = await queue.submit("record", "do", payload={"n": 1, "fail": ["again", "again"]})
            await wait_until(lambda h=handle: _has_failed_once(queue, h.id), what="the first failure")
            clock.step(-HOUR)
            assert (await handle.result(timeout=20)).attempts == 3


async def test_a_retry_that_waits_while_nobody_works_goes_on_after_the_clock_went_back(stepped: tuple[Place, SteppedClock]) -> None:
    place, clock = stepped
    async with place.queue(work=True) as queue:
        handle = await queue.submit("record", "do", payload={"n": 1, "fail": ["again"]})
        await wait_until(lambda: _has_failed_once(queue, handle.id), what="the first failure")
    clock.step(-HOUR)
    async with place.queue(work=True) as queue:
        assert (await queue.result(handle.id, timeout=20)).attempts == 2


async def test_an_attempts_timeout_is_not_cut_short_by_the_wall_clock(stepped: tuple[Place, SteppedClock]) -> None:
    place, clock = stepped
    async with place.queue(work=True) as queue:
        handle = await queue.submit("record", "do", payload={"n": 1, "ms": 400}, timeout=60, max_retries=0)
        await wait_until(lambda: _is_running(queue, handle.id), what="it to run")
        clock.step(HOUR)
        assert (await handle.result(timeout=20)).attempts == 1
        silent = await queue.submit("record", "do", payload={"n": 2, "hold": "/nonexistent"}, timeout=0.4, max_retries=0)
        await wait_until(lambda: _is_running(queue, silent.id), what="it to run")
        clock.step(-HOUR)
        with pytest.raises(TaskFailed, match="timeout"):
            await silent.result(timeout=20)


async def test_a_lease_is_judged_by_the_monotonic_clock_alone(stepped: tuple[Place, SteppedClock], start: Start) -> None:
    place, clock = stepped
    async with place.queue(work=False) as queue:
        with start("worker", place).ready() as holder:
            handle = await queue.submit("record", "do", payload={"n": 1, "ms": 2500 * place.lease})
            await wait_until(lambda: _is_running(queue, handle.id), what="it to run")
            with start("worker", place).ready():
                for step in (HOUR, -HOUR, -HOUR, HOUR):
                    clock.step(step)
                    done = await queue.submit("record", "do", payload={"n": 2}, priority="high")
                    await done.result(timeout=20)
                result = await handle.result(timeout=30)
        assert (result.data["pid"], result.attempts) == (holder.pid, 1)


async def _drained(queue: AsyncQueue) -> bool:
    states = (await queue.stats()).states
    return not states["scheduled"] + states["pending"] + states["running"]


async def _has_failed_once(queue: AsyncQueue, id: str) -> bool:
    return (await queue.get(id)).failures >= 1


async def _is_running(queue: AsyncQueue, id: str) -> bool:
    return (await queue.get(id)).state is State.RUNNING
