"""How an attempt ends: by a failure that may pass, by one that cannot, by an executor that breaks its contract."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from places import Does, failed

from inferq import (
    Answer,
    Call,
    Chunk,
    Reject,
    State,
    Submission,
    TaskFailed,
    Unavailable,
)
from inferq.executors.echo import EchoExecutor
from inferq.testing import wait_until


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


@pytest.mark.parametrize("value", [pytest.param({"a": 1}, id="a value"), pytest.param(iter([Answer(text="1")]), id="a plain generator")])
async def test_a_run_that_is_neither_coroutine_nor_async_generator_fails_and_says_so(opened: Any, value: Any) -> None:
    does = Does(lambda call: value)
    queue = await opened(does)
    error = await failed(queue, does)
    assert (error.failure, error.attempts) == ("internal", 1)
    assert "does" in str(error)


async def test_a_cancellation_that_nobody_asked_for_is_a_failure_and_leaves_no_task_running(opened: Any) -> None:
    async def cancels_itself(call: Call) -> str:
        raise asyncio.CancelledError

    does = Does(cancels_itself)
    queue = await opened(does)
    error = await failed(queue, does, max_retries=0)
    assert error.failure == "internal"
    assert (await queue.stats()).states["running"] == 0


async def test_a_result_that_the_store_cannot_keep_fails_its_task_and_holds_up_no_other(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "rule.db"
    queue = await opened(EchoExecutor("echo"), url=f"sqlite:///{path}")
    with sqlite3.connect(path) as other:
        rule = "BEFORE INSERT ON result WHEN instr(new.body, 'poison') BEGIN SELECT RAISE(ABORT, 'no poison'); END"
        other.execute(f"CREATE TRIGGER rule {rule}")
    other.close()

    handles = await queue.submit_many([Submission("echo", "echo", payload={"text": text}) for text in ("a", "poison", "b", "c")])

    assert [(await handle.result(timeout=20)).data for handle in (handles[0], handles[2], handles[3])] == [{"text": text} for text in "abc"]
    with pytest.raises(TaskFailed, match=r"could not keep the result.*no poison") as caught:
        await handles[1].result(timeout=20)
    assert (caught.value.failure, (await queue.stats()).workers_active) == ("internal", 0)
