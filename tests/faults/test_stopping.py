"""Stopping: the first signal finishes or hands back within the grace, the second at once; nothing is burnt, nothing runs twice for it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from faultkit.children import Start
from faultkit.history import read_contents, read_history
from faultkit.place import Place

from inferq.task import State
from inferq.testing import wait_until

pytestmark = pytest.mark.faults


async def test_the_first_signal_lets_running_tasks_finish_and_claims_no_more(place: Place, start: Start, tmp_path: Path) -> None:
    place = replace(place, slots=2, grace=60.0)
    hold = tmp_path / "go-on"
    async with place.queue(work=False) as queue:
        worker = start("worker", place).ready()
        running = [await queue.submit("record", "do", payload={"n": n, "hold": str(hold)}) for n in range(2)]
        await _started(place, 2)
        waiting = [await queue.submit("record", "do", payload={"n": n}) for n in range(2, 5)]
        worker.terminate()
        hold.touch()
        assert worker.wait() == 0
        assert [(await handle.wait(timeout=5)).state for handle in running] == [State.COMPLETED] * 2
        assert [((await handle.refresh()).state, (await handle.refresh()).attempt) for handle in waiting] == [(State.PENDING, 0)] * 3


async def test_what_has_not_finished_within_the_grace_is_handed_back_unburnt(place: Place, start: Start) -> None:
    place = replace(place, grace=0.3)
    async with place.queue(work=False) as queue:
        worker = start("worker", place).ready()
        handle = await queue.submit("record", "do", payload={"n": 1, "hold": "/nonexistent"}, max_retries=0)
        await _started(place, 1)
        worker.terminate()
        assert worker.wait() == 0
        await _handed_back(place, [handle.id])


async def test_the_second_signal_stops_at_once(place: Place, start: Start) -> None:
    place = replace(place, grace=600.0)
    async with place.queue(work=False) as queue:
        worker = start("worker", place).ready()
        handles = [await queue.submit("record", "do", payload={"n": n, "hold": "/nonexistent"}, max_retries=0) for n in range(3)]
        await _started(place, 3)
        worker.terminate()
        began = time.monotonic()
        worker.terminate()
        assert worker.wait(20) == 0
        assert time.monotonic() - began < 5
        await _handed_back(place, [handle.id for handle in handles])


async def test_handed_back_work_is_taken_by_another_worker_with_all_its_retries(place: Place, start: Start, tmp_path: Path) -> None:
    place = replace(place, grace=0.1)
    hold = tmp_path / "go-on"
    async with place.queue(work=False) as queue:
        handle = await queue.submit("record", "do", payload={"n": 1, "hold": str(hold)}, max_retries=0)
        for attempt in range(1, 7):  # oftener than lost_limit: handing back is not losing
            worker = start("worker", place).ready()
            await _started(place, attempt)
            worker.terminate()
            assert worker.wait() == 0
        hold.touch()
        with start("worker", place).ready():
            result = await handle.result(timeout=20)
        assert result.attempts == 7
        assert [record.outcome for record in await queue.attempts(handle.id)] == ["released"] * 6 + ["completed"]


async def test_a_task_that_may_run_at_most_once_is_not_handed_back_once_it_began(place: Place, start: Start) -> None:
    place = replace(place, grace=0.1)
    async with place.queue(work=False) as queue:
        handle = await queue.submit("record", "do", payload={"n": 1, "hold": "/nonexistent"}, at_most_once=True)
        worker = start("worker", place).ready()
        await _started(place, 1)
        worker.terminate()
        assert worker.wait() == 0
        task = await handle.refresh()
        assert (task.state, task.code) == (State.FAILED, "lost")
        with start("worker", place).ready():
            after = await queue.submit("record", "do", payload={"n": 2})
            await after.result(timeout=20)
    assert sum(run.task == handle.id and run.what == "start" for run in read_history(place, set()).runs) == 1


async def test_a_worker_with_nothing_to_do_stops_at_the_first_signal(place: Place, start: Start) -> None:
    place = replace(place, grace=600.0)
    worker = start("worker", place).ready()
    worker.terminate()
    assert worker.wait(20) == 0


async def _started(place: Place, count: int) -> None:
    def enough() -> bool:
        return sum(run.what == "start" for run in read_history(place, set()).runs) >= count

    await wait_until(enough, timeout=20, what=f"{count} attempts to have started")


async def _handed_back(place: Place, ids: list[str]) -> None:
    async with place.queue(work=False) as queue:
        contents = await read_contents(queue)
    for id in ids:
        task = contents.tasks[id]
        assert (task.state, task.failures, task.lost) == (State.PENDING, 0, 0)
        assert [record.outcome for record in contents.attempts[id]] == ["released"]
    assert contents.complaints == []
