"""The five clocks of a task, and what cancelling does to a running attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from places import Does, Gated, failed

from inferq import (
    Answer,
    Call,
    Chunk,
    RetryLater,
    State,
    TaskCancelled,
    TaskFailed,
    WrongState,
)
from inferq.testing import FakeClock, wait_until


async def endless(call: Call) -> str:
    await asyncio.Event().wait()
    return "never"


# ── five clocks ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_timeout_bounds_one_attempt_and_each_is_made_again(opened: Any) -> None:
    does = Does(endless)
    queue = await opened(does)
    error = await failed(queue, does, timeout=0.02, max_retries=2)
    assert (error.failure, error.attempts) == ("timeout", 3)
    assert "0.02 s" in str(error)


async def test_the_workers_timeout_holds_where_a_task_names_none(opened: Any) -> None:
    does = Does(endless)
    queue = await opened(does, timeout=0.02, max_retries=0)
    assert (await failed(queue, does)).failure == "timeout"


async def test_idle_timeout_bounds_the_silence_between_chunks_not_the_whole(opened: Any) -> None:
    async def talks_then_stops(call: Call) -> AsyncIterator[Chunk | Answer]:
        for number in range(3):
            yield Chunk("text", str(number))
        await asyncio.Event().wait()
        yield Answer(text="never")

    does = Does(talks_then_stops)
    queue = await opened(does)
    error = await failed(queue, does, idle_timeout=0.03, max_retries=0)
    assert error.failure == "timeout"
    assert "idle timeout of 0.03 s" in str(error)


async def test_a_stream_that_goes_on_talking_outlives_its_idle_timeout(opened: Any) -> None:
    async def talks(call: Call) -> AsyncIterator[Chunk | Answer]:
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0
        while loop.time() < until:
            yield Chunk("text", ".")
            await asyncio.sleep(0.01)
        yield Answer(text="done")

    does = Does(talks)
    queue = await opened(does)
    handle = await queue.submit("does", "work", idle_timeout=0.4, max_retries=0)
    assert (await handle.result(timeout=10)).text == "done"


async def test_a_task_that_may_not_start_any_more_fails_as_expired_and_never_runs(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    await queue.submit("gated", "work", payload={"name": "first"})
    await wait_until(lambda: gated.running == 1)
    late = await queue.submit("gated", "work", payload={"name": "late"}, start_deadline=0.01)
    clock_passed = (await late.refresh()).spec.start_deadline
    assert clock_passed is not None
    await wait_until(lambda: queue._clock.read().wall > clock_passed)
    gated.let_go("first")
    with pytest.raises(TaskFailed) as caught:
        await late.result(timeout=10)
    assert caught.value.failure == "expired"
    assert gated.started == ["first"]


async def test_a_waiting_task_expires_though_no_slot_ever_gets_free(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1, rescue_interval=0.02)
    await queue.submit("gated", "work", payload={"name": "first"})
    await wait_until(lambda: gated.running == 1)
    late = await queue.submit("gated", "work", start_deadline=0.01)
    with pytest.raises(TaskFailed) as caught:
        await late.result(timeout=10)
    assert (caught.value.failure, gated.started) == ("expired", ["first"])


async def test_a_start_deadline_does_not_bound_what_has_started(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, rescue_interval=0.02)
    handle = await queue.submit("gated", "work", payload={"name": "a"}, start_deadline=1.0)
    await wait_until(lambda: gated.running == 1)
    until = (await handle.refresh()).spec.start_deadline
    assert until is not None
    await wait_until(lambda: queue._clock.read().wall > until)
    gated.let_all_go()
    assert (await handle.result(timeout=10)).data == {"name": "a"}


async def test_deadline_bounds_the_whole_task_and_no_retry_follows_it(opened: Any) -> None:
    does = Does(endless)
    queue = await opened(does)
    error = await failed(queue, does, deadline=0.05, max_retries=50)
    assert (error.failure, error.attempts) == ("expired", 1)


async def test_a_lease_that_ran_out_voids_the_claim_and_another_worker_makes_the_next_attempt(opened: Any, tmp_path: Any) -> None:
    slow, quick = Gated("gated"), Gated("gated")
    frozen = FakeClock()
    first = await opened(slow, url=tmp_path / "q.db", clock=frozen, lease=5.0, lost_limit=1000)
    handle = await first.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: slow.running == 1)
    ahead = FakeClock(wall=frozen.read().wall, mono=frozen.read().mono)
    ahead.advance(60)
    quick.let_all_go()
    second = await opened(quick, url=tmp_path / "q.db", clock=ahead, lease=5.0, lost_limit=1000, rescue_interval=0.02)
    result = await second.handle(handle.id).result(timeout=10)
    # The first one lives on, with a clock that stands: it may win the claim again, and lose it again.
    await wait_until(lambda: slow.running == 0 and set(slow.cancelled) == {"a"}, what="the voided call to be closed")
    *before, last = [record.outcome for record in await second.attempts(handle.id)]
    assert (set(before), last, result.attempts) == ({"lost"}, "completed", len(before) + 1)


# ── cancelling ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancelling_a_running_task_closes_the_backend_call(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.running == 1)
    await handle.cancel("not needed")
    with pytest.raises(TaskCancelled) as caught:
        await handle.result(timeout=10)
    assert caught.value.reason == "not needed"
    await wait_until(lambda: gated.cancelled == ["a"])
    gated.let_all_go()
    await (await queue.submit("gated", "work", payload={"name": "b"})).result(timeout=10)
    assert gated.started == ["a", "b"], "the slot came back once and the cancelled task did not run again"


async def test_cancelling_from_another_process_closes_the_backend_call_here(opened: Any, tmp_path: Any) -> None:
    gated = Gated()
    await opened(gated, url=tmp_path / "q.db")
    other = await opened(gated, url=tmp_path / "q.db", work=False)
    handle = await other.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.running == 1)
    await handle.cancel()
    await wait_until(lambda: gated.cancelled == ["a"])
    assert (await handle.refresh()).state is State.CANCELLED


async def test_a_task_cancelled_and_retried_from_another_process_is_made_again(opened: Any, tmp_path: Any) -> None:
    gated = Gated()
    await opened(gated, url=tmp_path / "q.db", slots=2)
    other = await opened(gated, url=tmp_path / "q.db", work=False)
    handle = await other.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.running == 1)
    for attempt in range(2, 6):
        await handle.cancel()
        await handle.retry()
        await wait_until(lambda attempt=attempt: len(gated.started) == attempt)
        await wait_until(lambda attempt=attempt: len(gated.cancelled) == attempt - 1)
    gated.let_all_go()
    assert (await handle.result(timeout=10)).attempts == 5


async def test_a_call_that_answers_although_it_was_cancelled_changes_nothing(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn(call: Call) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return "never"

    does = Does(stubborn)
    queue = await opened(does)
    handle = await queue.submit("does", "work")
    await wait_until(lambda: does.calls)
    await handle.cancel()
    await wait_until(lambda: _is_free(queue))
    with pytest.raises(TaskCancelled):
        await handle.result(timeout=10)
    await queue.close()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def _is_free(queue: Any) -> bool:
    stats = await queue.stats()
    return bool(stats.workers_idle == 4)


async def test_a_task_that_waits_for_a_retry_is_cancelled_for_good(opened: Any) -> None:
    async def full(call: Call) -> str:
        raise RetryLater("429", after=3600)

    does = Does(full)
    queue = await opened(does)
    handle = await queue.submit("does", "work")
    await wait_until(lambda: len(does.calls) == 1)
    await wait_until(lambda: _is(queue, handle.id, State.SCHEDULED))
    await handle.cancel()
    assert (await handle.wait(timeout=5)).state is State.CANCELLED
    assert (await queue.stats()).states["scheduled"] == 0


async def _is(queue: Any, id: str, state: State) -> bool:
    found: State = (await queue.get(id)).state
    return found is state


async def test_an_ended_task_cannot_be_cancelled_nor_moved(opened: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    await handle.result()
    with pytest.raises(WrongState):
        await handle.cancel()
    with pytest.raises(WrongState):
        await queue.set_priority(handle.id, "high")
    assert (await handle.result()).data == {"name": "a"}


async def test_a_task_cancelled_and_retried_while_its_call_is_still_closing_keeps_the_new_attempts_chunks(opened: Any) -> None:
    may_close = asyncio.Event()

    async def behaviour(call: Call) -> AsyncIterator[Chunk | Answer]:
        if call.attempt == 1:
            yield Chunk("text", "old")
            try:
                await asyncio.Event().wait()
            finally:
                await may_close.wait()
        yield Chunk("text", "a")
        may_close.set()
        # The first call ends in the next turns of the loop, while this one's chunk is still on its way to the log.
        for _ in range(5):
            await asyncio.sleep(0)
        yield Chunk("text", "b")
        yield Answer(text="ab")

    does = Does(behaviour)
    queue = await opened(does, slots=2)
    handle = await queue.submit("does", "work", stream=True)
    stream = handle.stream()
    assert (await anext(stream)).chunk == Chunk("text", "old")
    await handle.cancel()
    await handle.retry()
    assert (await handle.result(timeout=10)).text == "ab"
    logged = [
        entry.chunk.text for entry in await queue.store.chunks(handle.id) if entry.position.attempt == 2 and entry.chunk.kind == "text"
    ]
    assert logged == ["a", "b"]
