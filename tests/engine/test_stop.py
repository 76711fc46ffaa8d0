"""Stopping: no new claims, running tasks finish or are handed back unburnt, and nobody waits for what will not come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import pytest
from places import Does, Gated

from inferq import AsyncQueue, ConfigError, State, WaitTimeout
from inferq.errors import StoreClosed
from inferq.executor import Call
from inferq.testing import wait_until


async def test_a_stop_lets_running_tasks_finish_and_starts_no_other(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    running = await queue.submit("gated", "work", payload={"name": "running"})
    waiting = await queue.submit("gated", "work", payload={"name": "waiting"})
    await wait_until(lambda: gated.running == 1)
    stopping = asyncio.create_task(queue.stop(grace=30))
    await asyncio.sleep(0)
    gated.let_all_go()
    await stopping
    assert (await running.refresh()).state is State.COMPLETED
    assert (await waiting.refresh()).state is State.PENDING
    assert gated.started == ["running"]


async def test_what_does_not_finish_within_the_grace_is_handed_back_and_burns_nothing(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.running == 1)
    await queue.stop(grace=0.01)
    task = await handle.refresh()
    assert (task.state, task.failures, task.lost, gated.cancelled) == (State.PENDING, 0, 0, ["a"])
    assert [record.outcome for record in await queue.attempts(handle.id)] == ["released"]


async def test_a_second_stop_shortens_the_grace_of_the_first(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work")
    await wait_until(lambda: gated.running == 1)
    patient = asyncio.create_task(queue.stop(grace=3600))
    await asyncio.sleep(0)
    await queue.stop(grace=0)
    await asyncio.wait_for(patient, 10)
    assert (await handle.refresh()).state is State.PENDING


async def test_work_that_was_handed_back_is_taken_up_by_the_next_worker_at_its_place(opened: Any, tmp_path: Any) -> None:
    first = Gated()
    queue = await opened(first, url=tmp_path / "q.db", slots=1)
    for name in "abc":
        await queue.submit("gated", "work", payload={"name": name})
    await wait_until(lambda: first.running == 1)
    await queue.close(0)
    second = Gated()
    second.let_all_go()
    await opened(second, url=tmp_path / "q.db", slots=1)
    await wait_until(lambda: second.ended == ["a", "b", "c"])


async def test_a_stopped_queue_still_takes_and_answers(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    await queue.stop()
    handle = await queue.submit("gated", "work")
    assert (await handle.refresh()).state is State.PENDING
    assert gated.started == []


async def test_who_waits_for_a_result_is_told_when_the_queue_closes(opened: Any, tmp_path: Any) -> None:
    gated = Gated()
    queue = await opened(gated, url=tmp_path / "q.db")
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    waiting = asyncio.create_task(handle.result())
    batch = asyncio.create_task(queue.batch([{"executor": "gated", "action": "work"}]))
    await wait_until(lambda: gated.running == 2)
    await queue.close(0)
    for caller in (waiting, batch):
        with pytest.raises(StoreClosed):
            await asyncio.wait_for(caller, 10)


async def test_a_wait_that_ends_leaves_the_task_alone(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    with pytest.raises(WaitTimeout):
        await handle.result(timeout=0.01)
    gated.let_all_go()
    assert (await handle.result(timeout=10)).data == {"name": "a"}


async def test_closing_twice_is_closing_once_and_a_closed_queue_says_so(opened: Any) -> None:
    queue = await opened(Gated())
    await queue.close()
    await queue.close()
    with pytest.raises(StoreClosed, match="expected an open queue"):
        await queue.submit("gated", "work")


async def test_a_queue_that_cannot_start_leaves_nothing_open(opened: Any, tmp_path: Any) -> None:
    class Broken(Gated):
        async def open(self) -> None:
            raise RuntimeError("cannot open")

    path = tmp_path / "q.db"
    queue = await opened(Broken("broken"), url=path)
    handle = await queue.submit("broken", "work", max_retries=0)
    assert (await handle.wait(timeout=10)).code == "internal"
    await queue.close()
    again = await opened(Gated("broken"), url=path)
    assert (await again.get(handle.id)).state is State.FAILED


async def _listening(queue: Any) -> asyncio.Task[None]:
    """`run_until_stopped`, once it hears signals."""
    before = signal.getsignal(signal.SIGTERM)
    running = asyncio.create_task(queue.run_until_stopped())
    await wait_until(lambda: signal.getsignal(signal.SIGTERM) is not before)
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_lets_running_tasks_finish(opened: Any, number: signal.Signals) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1, grace=60.0)
    running = await queue.submit("gated", "work", payload={"name": "a"})
    waiting = await queue.submit("gated", "work", payload={"name": "b"})
    await wait_until(lambda: gated.running == 1)
    until_stopped = await _listening(queue)
    os.kill(os.getpid(), number)
    await wait_until(lambda: queue._engine.worker._stopping)
    assert not until_stopped.done()
    gated.let_all_go()
    await asyncio.wait_for(until_stopped, 10)
    assert (await running.refresh()).state is State.COMPLETED
    assert (await waiting.refresh()).state is State.PENDING


async def test_the_second_signal_hands_running_tasks_back_at_once(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, grace=3600.0)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.running == 1)
    until_stopped = await _listening(queue)
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until(lambda: queue._engine.worker._stopping)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(until_stopped, 10)
    task = await handle.refresh()
    assert (task.state, task.failures, gated.cancelled) == (State.PENDING, 0, ["a"])


async def test_a_backend_that_fails_to_close_keeps_no_store_open(opened: Any, tmp_path: Any) -> None:
    class Sticky(Gated):
        async def close(self) -> None:
            raise RuntimeError("cannot close")

    queue = await opened(Sticky("sticky"), url=tmp_path / "q.db")
    with contextlib.suppress(RuntimeError):
        await queue.close()
    with pytest.raises(StoreClosed):
        await queue.stats()


async def test_a_start_that_failed_opened_nothing_and_fails_again() -> None:
    twice = [Gated("same"), Gated("same")]
    queue = AsyncQueue("sqlite://:memory:", backends=twice)
    for _ in range(2):
        with pytest.raises(ConfigError):
            await queue.start()
    with pytest.raises(StoreClosed):
        await queue.stats()


async def test_a_second_stop_leaves_behind_what_does_not_listen(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferq.engine.worker._PATIENCE", 0.05)
    free = asyncio.Event()

    async def deaf(call: Call) -> str:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()
        return "done"

    queue = await opened(Does(deaf))
    handle = await queue.submit("does", "work")
    await wait_until(lambda: _state(handle, State.RUNNING))
    await asyncio.wait_for(queue.stop(0), 10)
    assert (await handle.refresh()).state is State.RUNNING
    free.set()


async def _state(handle: Any, state: State) -> bool:
    return (await handle.refresh()).state is state


async def test_following_events_ends_with_an_error_when_the_queue_closes(opened: Any) -> None:
    queue = await opened(Gated())
    following = asyncio.ensure_future(anext(queue.events()))
    await wait_until(lambda: bool(queue._hub._events))
    await queue.close()
    with pytest.raises(StoreClosed):
        await following
