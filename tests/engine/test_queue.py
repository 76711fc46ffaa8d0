"""The front door: events, callbacks, futures, batches, listing, bounds, retention, and two queues on one file."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from places import Does, Gated

from inferq import (
    Call,
    DuplicateKey,
    Event,
    Filter,
    QueueFull,
    Reject,
    State,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskResult,
    WrongState,
)
from inferq.config import StateRetention
from inferq.errors import AmbiguousId
from inferq.testing import FakeClock, wait_until


async def fate(call: Call) -> Any:
    """Fails where the payload says so."""
    if call.payload.get("fail"):
        raise Reject("as asked", failure="bad_request")
    return call.payload.get("n")


def work(**payload: Any) -> dict[str, Any]:
    return {"executor": "does", "action": "work", "payload": payload}


# ── callbacks, futures, batches ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_callback_is_called_once_with_the_handle_when_the_task_has_ended(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    told: list[Any] = []
    handle.add_done_callback(told.append)
    await wait_until(lambda: gated.running == 1)
    assert told == []
    gated.let_all_go()
    await wait_until(lambda: told)
    assert told == [handle]


async def test_a_callback_is_called_for_a_task_that_has_already_ended_and_however_it_ended(opened: Any) -> None:
    queue = await opened(Does(fate))
    (handle,) = await queue.submit_many([work(fail=True)])
    await handle.wait()
    told: list[Any] = []
    handle.add_done_callback(told.append)
    await wait_until(lambda: told == [handle])


async def test_a_callback_that_raises_harms_nobody(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    queue = await opened(Does(fate))

    def raises(_: object) -> None:
        raise RuntimeError("a callback's own bug")

    queue.subscribe(raises)
    (handle,) = await queue.submit_many([work(n=1)])
    handle.add_done_callback(raises)
    assert (await handle.result(timeout=10)).data == 1
    await wait_until(lambda: "queue.background_failed" in caplog.text)
    assert "hub.callback_failed" in caplog.text


async def test_futures_can_be_waited_for_together(opened: Any) -> None:
    queue = await opened(Does(fate))
    futures = [handle.future() for handle in await queue.submit_many([work(n=n) for n in range(5)])]
    done, pending = await asyncio.wait(futures)
    assert pending == set()
    assert sorted(future.result().data for future in done) == list(range(5))


async def test_a_batch_gives_results_in_order_with_errors_in_their_places(opened: Any) -> None:
    queue = await opened(Does(fate))
    results = await queue.batch([work(n=0), work(fail=True), work(n=2)])
    assert [result.data if isinstance(result, TaskResult) else type(result) for result in results] == [0, TaskFailed, 2]


async def test_a_cancelled_task_ends_its_batch_too(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    results = asyncio.create_task(queue.batch([{"executor": "gated", "action": "work", "payload": {"name": n}} for n in "ab"]))
    await wait_until(lambda: gated.running == 1)
    (waiting,) = (await queue.list(Filter(states=(State.PENDING,)))).tasks
    await queue.cancel(waiting.id)
    gated.let_all_go()
    first, second = await results
    assert first.data == {"name": "a"}
    assert isinstance(second, TaskCancelled)


async def test_a_batch_in_the_background_returns_at_once_and_tells_all_results_once(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    told: list[Any] = []
    wanted = [{"executor": "gated", "action": "work", "payload": {"name": n}} for n in "abc"]
    handles = await queue.batch_in_background(wanted, told.append)
    await wait_until(lambda: gated.running == 3)
    gated.let_go("c", "b")
    await asyncio.gather(handles[1].result(), handles[2].result())
    assert told == []
    gated.let_go("a")
    await wait_until(lambda: told)
    assert [[result.data["name"] for result in results] for results in told] == [["a", "b", "c"]]


async def test_a_batch_is_kept_whole_or_not_at_all(opened: Any) -> None:
    queue = await opened(Does(fate))
    with pytest.raises(Exception, match=r"submissions\[2\]"):
        await queue.submit_many([work(n=0), work(n=1), {"executor": "does", "action": "nothing"}])
    assert (await queue.stats()).total == 0


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def follow(queue: Any, *types: str, after: int, until: str) -> list[Event]:
    seen: list[Event] = []
    async for event in queue.events(*types, after=after):
        seen.append(event)
        if event.type == until:
            break
    return seen


async def test_events_can_be_read_from_any_position_and_go_on(opened: Any) -> None:
    queue = await opened(Does(fate))
    (handle,) = await queue.submit_many([work(n=0)])
    await handle.result()
    whole = await follow(queue, after=0, until="task.completed")
    assert [event.type for event in whole] == ["task.submitted", "task.started", "task.completed"]
    for number, event in enumerate(whole[:-1]):
        assert await follow(queue, after=event.position, until="task.completed") == whole[number + 1 :]
    more = asyncio.create_task(follow(queue, after=whole[-1].position, until="task.completed"))
    (again,) = await queue.submit_many([work(n=1)])
    assert {event.task_id for event in await more} == {again.id}


async def test_a_type_filter_gives_only_what_was_asked_for(opened: Any) -> None:
    queue = await opened(Does(fate))
    seen: list[str] = []
    stop = queue.subscribe(lambda event: seen.append(event.type), "task.failed", "task_cancelled")
    await queue.batch([work(n=0), work(fail=True)])
    await wait_until(lambda: seen)
    assert seen == ["task.failed"]
    stop()
    await queue.batch([work(fail=True)])
    last = await queue.store.last_event()
    assert await follow(queue, "task.fa*", after=0, until="task.failed")
    assert seen == ["task.failed"]
    assert last > 0


async def test_a_type_that_does_not_exist_is_an_error_and_no_endless_silence(opened: Any) -> None:
    queue = await opened(Does(fate))
    with pytest.raises(ValueError, match=r"task\.finished"):
        queue.subscribe(print, "task.finished")
    with pytest.raises(ValueError, match=r"task\.finished"):
        await anext(queue.events("task.finished"))


async def test_events_of_another_queue_on_the_file_are_heard_here(opened: Any, tmp_path: Any) -> None:
    worker = await opened(Does(fate), url=tmp_path / "q.db")
    door = await opened(Does(fate), url=tmp_path / "q.db", work=False)
    here: list[str] = []
    door.subscribe(lambda event: here.append(event.type))
    (handle,) = await worker.submit_many([work(n=0)])
    await handle.result()
    await wait_until(lambda: here == ["task.submitted", "task.started", "task.completed"])


# ── keys, ids, lists, bounds ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_key_and_body_is_the_same_task_and_another_body_is_refused(opened: Any) -> None:
    does = Does(fate)
    queue = await opened(does)
    first = await queue.submit("does", "work", payload={"n": 1}, key="k")
    second = await queue.submit("does", "work", payload={"n": 1}, key="k")
    assert first.id == second.id
    with pytest.raises(DuplicateKey):
        await queue.submit("does", "work", payload={"n": 2}, key="k")
    await first.result()
    assert len(does.calls) == 1


async def test_the_same_key_with_the_same_delay_is_the_same_task(opened: Any) -> None:
    clock = FakeClock()
    queue = await opened(Does(fate), clock=clock, work=False)
    first = await queue.submit("does", "work", key="k", delay="10m", deadline="1h")
    clock.advance(5)  # a caller that heard no answer asks again, a little later
    again = await queue.submit("does", "work", key="k", delay="10m", deadline="1h")
    assert again.id == first.id


async def test_a_full_queue_refuses_and_says_when_to_come_back(opened: Any) -> None:
    queue = await opened(Gated(), work=False, max_queue_size=2)
    await queue.submit_many([{"executor": "gated", "action": "work"}] * 2)
    with pytest.raises(QueueFull) as caught:
        await queue.submit("gated", "work")
    assert caught.value.retryable
    assert (await queue.stats()).total == 2


async def test_an_id_may_be_shortened_while_it_is_unique(opened: Any) -> None:
    queue = await opened(Gated(), work=False)
    handles = await queue.submit_many([{"executor": "gated", "action": "work"}] * 2)
    assert await queue.resolve(handles[0].id[:-1]) == handles[0].id
    with pytest.raises(AmbiguousId):
        await queue.resolve(handles[0].id[:5])
    with pytest.raises(TaskNotFound):
        await queue.resolve("nobody")


async def test_filters_and_pages_find_what_they_name(opened: Any) -> None:
    queue = await opened(Does(fate))
    await queue.batch([work(n=n) | {"model": "m" if n % 2 else "k", "tags": ["odd"] if n % 2 else []} for n in range(7)])
    await queue.batch([work(fail=True)])
    failed = await queue.list(Filter(states=(State.FAILED,)))
    odd = await queue.list(Filter(models=("m",), tag="odd"), limit=2)
    rest = await queue.list(Filter(models=("m",), tag="odd"), limit=2, after=odd.after)
    assert len(failed.tasks) == 1
    assert [task.spec.payload["n"] for task in odd.tasks + rest.tasks] == [5, 3, 1]
    assert rest.after is None
    assert [task.spec.payload.get("n") async for task in queue.iterate()] == [None, 6, 5, 4, 3, 2, 1, 0]


async def test_statistics_count_states_priorities_lanes_and_slots(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=3)
    await queue.submit_many([{"executor": "gated", "action": "work", "model": "a"}] * 3)
    await wait_until(lambda: gated.running == 3)
    await queue.submit_many([{"executor": "gated", "action": "work", "model": "b", "priority": "high"}] * 2)
    stats = await queue.stats()
    assert {state: number for state, number in stats.states.items() if number} == {"running": 3, "pending": 2}
    assert (stats.total, stats.pending_by_priority, stats.pending_by_lane) == (5, {10: 2}, {"gated/b": 2})
    assert (stats.workers_active, stats.workers_idle) == (3, 0)


# ── retry, retention ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_task_can_be_made_again(opened: Any) -> None:
    answers = iter([Reject("no"), "yes"])

    async def better_later(call: Call) -> Any:
        answer = next(answers)
        if isinstance(answer, Reject):
            raise answer
        return answer

    queue = await opened(Does(better_later))
    handle = await queue.submit("does", "work")
    with pytest.raises(TaskFailed):
        await handle.result()
    await handle.retry()
    assert (await handle.result()).data == "yes"
    with pytest.raises(WrongState):
        await handle.retry()


async def test_ended_tasks_go_when_there_are_more_than_retention_keeps(opened: Any) -> None:
    queue = await opened(Does(fate), retention=StateRetention(age=None, count=3))
    await queue.batch([work(n=n) for n in range(10)] + [work(fail=True) for _ in range(5)])
    await wait_until(lambda: _counted(queue, completed=3, failed=3))
    kept = (await queue.list(Filter(states=(State.COMPLETED,)))).tasks
    assert len(kept) == 3
    assert len(await queue.store.events()) > 0


async def _counted(queue: Any, **wanted: int) -> bool:
    states = (await queue.stats()).states
    return all(states[name] == number for name, number in wanted.items())


async def test_ended_tasks_go_when_they_are_older_than_retention_keeps(opened: Any) -> None:
    queue = await opened(Does(fate), retention=StateRetention(age=0.01))
    (handle,) = await queue.submit_many([work(n=1)])
    await handle.wait()
    await wait_until(lambda: _counted(queue, completed=0))
    with pytest.raises(TaskNotFound):
        await handle.refresh()
