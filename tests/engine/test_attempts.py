"""One attempt: its five clocks, its ways to end, what cancelling does, and the hooks that are really called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from places import HOUR, Does, Gated, place

from inferq import (
    Answer,
    Call,
    Chunk,
    Executor,
    Health,
    InvalidTask,
    Reject,
    RetryLater,
    State,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    Usage,
    WrongState,
)
from inferq.testing import FakeClock, wait_until


async def endless(call: Call) -> str:
    await asyncio.Event().wait()
    return "never"


async def failed(queue: Any, does: Executor, **fields: Any) -> TaskFailed:
    """How a task of `does` fails."""
    with pytest.raises(TaskFailed) as caught:
        await (await queue.submit(does.name, "work", **fields)).result(timeout=10)
    return caught.value


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
    first = await opened(slow, url=tmp_path / "q.db", clock=frozen, lease=5.0)
    handle = await first.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: slow.running == 1)
    ahead = FakeClock(wall=frozen.read().wall, mono=frozen.read().mono)
    ahead.advance(60)
    quick.let_all_go()
    second = await opened(quick, url=tmp_path / "q.db", clock=ahead, lease=5.0, rescue_interval=0.02)
    assert (await second.handle(handle.id).result(timeout=10)).attempts == 2
    await wait_until(lambda: slow.cancelled == ["a"], what="the voided call to be closed")
    assert [record.outcome for record in await second.attempts(handle.id)] == ["lost", "completed"]


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


async def test_a_call_that_answers_although_it_was_cancelled_changes_nothing(opened: Any) -> None:
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
    logged = [entry.chunk.text for entry in await queue.store.chunks(handle.id) if entry.position.attempt == 2 and entry.chunk.kind == "text"]
    assert logged == ["a", "b"]


# ── ways to end ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failure_that_may_pass_is_tried_again_until_the_budget_is_spent(opened: Any) -> None:
    async def breaks(call: Call) -> str:
        raise Unavailable("500", failure="server_error")

    does = Does(breaks)
    queue = await opened(does, max_retries=2)
    error = await failed(queue, does)
    assert (error.failure, error.attempts, len(does.calls)) == ("server_error", 3, 3)
    assert [call.attempt for call in does.calls] == [1, 2, 3]


async def test_no_retries_means_one_attempt(opened: Any) -> None:
    async def breaks(call: Call) -> str:
        raise Unavailable("500", failure="server_error")

    does = Does(breaks)
    queue = await opened(does, max_retries=5)
    assert (await failed(queue, does, max_retries=0)).attempts == 1


async def test_what_asking_again_cannot_help_fails_at_once(opened: Any) -> None:
    async def refuses(call: Call) -> str:
        raise Reject("too long", failure="context_length")

    does = Does(refuses)
    queue = await opened(does)
    error = await failed(queue, does)
    assert (error.failure, error.attempts) == ("context_length", 1)


async def test_nobody_sees_a_failure_between_attempts(opened: Any) -> None:
    async def second_time(call: Call) -> str:
        if call.attempt < 3:
            raise Unavailable("500", failure="server_error")
        return "done"

    does = Does(second_time)
    queue = await opened(does)
    seen: list[str] = []
    queue.subscribe(lambda event: seen.append(event.type))
    handle = await queue.submit("does", "work")
    assert (await handle.result(timeout=10)).attempts == 3
    await wait_until(lambda: "task.completed" in seen)
    steps = [type_ for type_ in seen if type_ != "task.staged"]  # a wait that jitter made 0 needs no staging
    assert steps == ["task.submitted", "task.started", *["task.retrying", "task.started"] * 2, "task.completed"]
    task = await handle.refresh()
    assert (task.state, task.failures, task.error, task.code) == (State.COMPLETED, 2, "", None)


async def test_a_lost_call_of_a_task_that_may_run_once_is_not_made_again(opened: Any) -> None:
    async def cut(call: Call) -> str:
        raise Unavailable("connection reset", failure="connect")

    does = Does(cut)
    queue = await opened(does)
    error = await failed(queue, does, at_most_once=True)
    assert (error.failure, error.attempts) == ("lost", 1)


async def test_a_stream_without_an_answer_is_a_failure(opened: Any) -> None:
    async def stops(call: Call) -> AsyncIterator[Chunk | Answer]:
        yield Chunk("text", "half of it")

    does = Does(stops)
    queue = await opened(does)
    error = await failed(queue, does, max_retries=0)
    assert error.failure == "server_error"
    assert "end mark" in str(error)


def _breach(*items: Any) -> Any:
    async def behaviour(call: Call) -> AsyncIterator[Any]:
        for item in items:
            yield item

    return behaviour


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(("text",), id="what is no chunk"),
        pytest.param((Answer(text="1"), Answer(text="2")), id="two answers"),
        pytest.param((Answer(text="1"), Chunk("text", "late")), id="a chunk after the answer"),
        pytest.param((Chunk("end", "completed"), Answer(text="1")), id="the queue's own end record"),
        pytest.param((Chunk("reset"), Answer(text="1")), id="the queue's own reset record"),
    ],
)
async def test_an_executor_that_breaks_its_contract_fails_the_task_and_says_so(opened: Any, items: tuple[Any, ...]) -> None:
    does = Does(_breach(*items))
    queue = await opened(does)
    error = await failed(queue, does, max_retries=0, stream=True)
    assert (error.failure, error.attempts) == ("internal", 1)
    assert "does" in str(error)


@pytest.mark.parametrize("value", [pytest.param({1, object()}, id="no JSON"), pytest.param("\ud800", id="a lone surrogate")])
async def test_an_answer_that_cannot_be_kept_fails_its_task_and_no_other(opened: Any, value: Any) -> None:
    async def behaviour(call: Call) -> Any:
        return value if call.model == "odd" else "fine"

    does = Does(behaviour)
    queue = await opened(does)
    odd = await queue.submit("does", "work", model="odd", max_retries=0)
    fine = await queue.submit("does", "work", model="good")
    assert (await fine.result(timeout=3)).data == "fine"
    with pytest.raises(TaskFailed) as caught:
        await odd.result(timeout=3)
    assert caught.value.failure == "internal"


async def test_a_chunk_that_cannot_be_kept_fails_its_task_and_no_other(opened: Any) -> None:
    async def odd(call: Call) -> AsyncIterator[Chunk | Answer]:
        yield Chunk("data", data=object() if call.model == "odd" else 1)
        yield Answer(text="done")

    does = Does(odd)
    queue = await opened(does)
    bad = await queue.submit("does", "work", model="odd", max_retries=0, stream=True)
    good = await queue.submit("does", "work", model="good", stream=True)
    assert (await good.result(timeout=3)).text == "done"
    with pytest.raises(TaskFailed) as caught:
        await bad.result(timeout=3)
    assert caught.value.failure == "internal"


async def test_an_unforeseen_exception_is_internal_and_keeps_its_words(opened: Any) -> None:
    async def bug(call: Call) -> str:
        raise KeyError("choices")

    does = Does(bug)
    queue = await opened(does)
    error = await failed(queue, does, max_retries=0)
    assert error.failure == "internal"
    assert "KeyError: 'choices'" in str(error)


async def test_network_exceptions_of_an_executor_are_failures_that_may_pass(opened: Any) -> None:
    async def refused(call: Call) -> str:
        raise ConnectionRefusedError("nobody listens")

    does = Does(refused)
    queue = await opened(does, max_retries=1)
    error = await failed(queue, does)
    assert (error.failure, error.attempts) == ("connect", 2)


# ── hooks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Hooked(Executor):
    """Every hook leaves a trace; `classify` answers in the stead of one error and names another."""

    actions = ("work",)
    required: ClassVar[dict[str, tuple[str, ...]]] = {"work": ("text",)}
    needs_model = True

    def __init__(self) -> None:
        super().__init__("hooked")
        self.trace: list[str] = []

    async def open(self) -> None:
        self.trace.append("open")

    async def close(self) -> None:
        self.trace.append("close")

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        self.trace.append("validate")
        if payload["text"] == "forbidden":
            raise InvalidTask("expected another word", field="payload.text")

    def estimate(self, action: str, payload: dict[str, Any]) -> int | None:
        self.trace.append("estimate")
        return 20_000

    async def preprocess(self, call: Call) -> Call:
        self.trace.append("preprocess")
        return Call(call.task_id, call.action, call.model, {"text": call.payload["text"].upper()}, attempt=call.attempt)

    async def run(self, call: Call) -> Answer:
        self.trace.append("run")
        if call.payload["text"] == "ODD":
            raise ValueError("odd")
        if call.payload["text"] == "EMPTY":
            raise LookupError("empty")
        return Answer(text=call.payload["text"], usage=Usage(input_tokens=1, output_tokens=2))

    async def postprocess(self, call: Call, answer: Answer) -> Answer:
        self.trace.append("postprocess")
        return Answer(text=f"<{answer.text}>", usage=answer.usage)

    def classify(self, error: Exception) -> Any:
        self.trace.append("classify")
        return Answer(text="nothing") if isinstance(error, LookupError) else Reject("as classified", failure="content_filter")

    async def health(self) -> Health:
        self.trace.append("health")
        return Health(ok=True, detail="well")

    async def models(self) -> list[str]:
        return ["one", "two"]


async def test_the_hooks_are_called_in_their_order_around_a_run(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    handle = await queue.submit("hooked", "work", model="m", payload={"text": "hi"})
    result = await handle.result(timeout=10)
    assert result.text == "<HI>"
    assert result.usage == Usage(input_tokens=1, output_tokens=2)
    assert hooked.trace == ["validate", "estimate", "open", "preprocess", "run", "postprocess"]


async def test_an_executor_is_opened_once_and_closed_once(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    fields = {"executor": "hooked", "action": "work", "model": "m", "payload": {"text": "hi"}}
    await asyncio.gather(*[handle.result(timeout=10) for handle in await queue.submit_many([fields] * 20)])
    await queue.stop()
    await queue.close()
    assert (hooked.trace.count("open"), hooked.trace.count("close")) == (1, 1)


async def test_the_estimate_of_the_executor_decides_the_size_class(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    task = await (await queue.submit("hooked", "work", model="m", payload={"text": "hi"})).refresh()
    assert (task.estimate, task.flow.size) == (20_000, "medium")


async def test_validate_refuses_at_submit_and_nothing_is_kept(opened: Any) -> None:
    queue = await opened(Hooked())
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("hooked", "work", model="m", payload={"text": "forbidden"})
    assert caught.value.field == "payload.text"
    assert (await queue.stats()).total == 0


async def test_required_fields_and_the_model_are_asked_for_before_validate(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    with pytest.raises(InvalidTask) as missing:
        await queue.submit("hooked", "work", model="m", payload={})
    with pytest.raises(InvalidTask) as nameless:
        await queue.submit("hooked", "work", payload={"text": "hi"})
    assert (missing.value.field, nameless.value.field) == ("payload.text", "model")
    assert hooked.trace == []


async def test_classify_names_a_foreign_error_or_answers_in_its_stead(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    error = await failed(queue, hooked, model="m", payload={"text": "odd"})
    assert (error.failure, error.attempts) == ("content_filter", 1)
    instead = await queue.submit("hooked", "work", model="m", payload={"text": "empty"})
    assert (await instead.result(timeout=10)).text == "<nothing>"


async def test_health_and_models_are_asked_of_the_backend(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    (backend,) = queue.backends()
    assert await backend.executor.health() == Health(ok=True, detail="well")
    assert await backend.executor.models() == ["one", "two"]


async def test_an_executor_that_cannot_be_opened_is_opened_again_by_the_next_attempt(opened: Any) -> None:
    class Sleepy(Gated):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            if self.opened < 3:
                raise Unavailable("still starting", sent=False)

    sleepy = Sleepy("sleepy")
    sleepy.let_all_go()
    queue = await opened(sleepy)
    assert (await (await queue.submit("sleepy", "work")).result(timeout=10)).attempts == 3


async def test_the_call_tells_what_was_asked(opened: Any) -> None:
    async def fine(call: Call) -> str:
        return "done"

    does = Does(fine)
    queue = await opened(place(does, kind="does"), timeout=HOUR)
    handle = await queue.submit(
        "does", "work", model="m", payload={"a": [1]}, options={"temperature": 0.5}, metadata={"who": "me"}, timeout=7, stream=False
    )
    await handle.result()
    (call,) = does.calls
    assert (call.task_id, call.action, call.model, call.attempt) == (handle.id, "work", "m", 1)
    assert (call.payload, call.options, call.metadata) == ({"a": [1]}, {"temperature": 0.5}, {"who": "me"})
    assert (call.timeout, call.stream) == (7, False)
