"""Leases: a process that stands still too long loses its claims, one whose event loop is merely blocked keeps them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from faultkit.checker import complaints
from faultkit.children import Start
from faultkit.history import read_contents, read_history
from faultkit.place import Place

from inferq.events import TaskRescued
from inferq.task import State
from inferq.testing import wait_until

pytestmark = pytest.mark.faults


async def test_every_late_write_of_a_stopped_process_is_refused(place: Place, start: Start) -> None:
    async with place.queue(work=False) as queue:
        handle = await queue.submit("record", "do", payload={"n": 1, "chunks": 2}, stream=True)
        claimant = start("claimant", place).ready()
        claimant.freeze(place)
        with start("worker", place) as worker:
            result = await handle.result(timeout=20)
            before = (await read_contents(queue)).chunks[handle.id]
            claimant.thaw()
            claimant.tell("write")
            assert [claimant.line(), claimant.line()] == ["superseded", "superseded"]
            assert claimant.wait() == 0
            assert (result.data["pid"], result.attempts) == (worker.pid, 2)
        contents = await read_contents(queue)
    assert contents.results[handle.id] == result
    assert contents.chunks[handle.id] == before
    assert contents.complaints == []


async def test_a_stopped_worker_loses_its_tasks_and_the_other_completes_them_once(place: Place, start: Start, tmp_path: Path) -> None:
    hold = tmp_path / "go-on"
    async with place.queue(work=False) as queue:
        handles = [await queue.submit("record", "do", payload={"n": n, "hold": str(hold), "chunks": 1}, stream=True) for n in range(3)]
        with start("worker", place).ready() as stopped:
            await _running(place, len(handles))
            stopped.freeze(place)
            with start("worker", place).ready() as other:
                await _running(place, 2 * len(handles))
                # Both processes now work on the same tasks; the stopped one wakes and ends its attempts first.
                stopped.thaw()
                hold.touch()
                results = [await handle.result(timeout=20) for handle in handles]
                assert {(result.data["pid"], result.attempts) for result in results} == {(other.pid, 2)}
                await _ends(place, stopped.pid, len(handles))
                stopped.terminate()
                assert stopped.wait() == 0
                other.terminate()
                assert other.wait() == 0
        contents = await read_contents(queue)
    assert complaints(read_history(place, {stopped.pid}), contents) == []
    assert {record.outcome for records in contents.attempts.values() for record in records} == {"lost", "completed"}


async def test_a_worker_that_was_stopped_past_its_lease_goes_on_to_work(place: Place, start: Start) -> None:
    async with place.queue(work=False) as queue:
        with start("worker", place).ready() as stopped:
            first = await queue.submit("record", "do", payload={"n": 0, "ms": 60_000})
            await _running(place, 1)
            stopped.freeze(place)
            with start("worker", place).ready() as other:
                await wait_until(lambda: _rescued(place), timeout=20, what="the other worker to take the task")
                other.kill()
            stopped.thaw()
            await first.cancel()
            after = await queue.submit("record", "do", payload={"n": 1}, priority="high")
            assert (await after.result(timeout=20)).data["pid"] == stopped.pid


@pytest.mark.parametrize("how", ["block", "spin"])
async def test_a_handler_that_blocks_the_event_loop_for_two_leases_keeps_its_claims(place: Place, start: Start, how: str) -> None:
    async with place.queue(work=False) as queue:
        with start("worker", place).ready() as busy:
            handle = await queue.submit("record", "do", payload={"n": 1, how: 2.5 * place.lease})
            beside = await queue.submit("record", "do", payload={"n": 2, "ms": 100})
            await _running(place, 1)
            with start("worker", place).ready():
                result = await handle.result(timeout=30)
                assert (result.data["pid"], result.attempts) == (busy.pid, 1)
                assert (await beside.result(timeout=30)).attempts == 1
        contents = await read_contents(queue)
    assert not any(isinstance(event, TaskRescued) for event in contents.events)
    assert {task.state for task in contents.tasks.values()} == {State.COMPLETED}


async def _running(place: Place, count: int) -> None:
    def started() -> bool:
        return sum(run.what == "start" for run in read_history(place, set()).runs) >= count

    await wait_until(started, timeout=20, what=f"{count} attempts to have started")


async def _ends(place: Place, pid: int, count: int) -> None:
    """The attempts of that process have ended; the file knows, whatever the store thinks of them."""

    def ended() -> bool:
        return sum(run.what == "end" and run.pid == pid for run in read_history(place, set()).runs) >= count

    await wait_until(ended, timeout=20, what=f"{count} attempts of {pid} to have ended")


async def _rescued(place: Place) -> bool:
    async with asyncio.timeout(5), place.queue(work=False) as queue:
        return any(isinstance(event, TaskRescued) for event in await queue.store.events())
