"""Executors that break every rule: the task ends in an outcome of its own, the queue goes on, and what is stored can be read."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from places import Does

from inferq import Answer, AsyncQueue, Call, Chunk, InvalidTask, Reject, RetryLater, State, TaskFailed, TaskNotFound, Usage
from inferq.errors import ConfigError, StoreClosed
from inferq.sync.queue import Queue
from inferq.testing import wait_until


class Odd(BaseException):
    """Not an Exception."""


def raises(error: BaseException) -> Any:
    async def run(call: Call) -> Any:
        raise error

    return run


def leaves(call: Call) -> Any:
    async def run() -> Any:
        sys.exit(3)

    return run()


def answers(answer: Any) -> Any:
    async def run(call: Call) -> Any:
        return answer

    return run


def yields(*items: Any) -> Any:
    async def run(call: Call) -> AsyncIterator[Any]:
        for item in items:
            yield item

    return run


BROKEN = [
    pytest.param(raises(Odd("odd")), id="a BaseException"),
    pytest.param(raises(GeneratorExit()), id="GeneratorExit"),
    pytest.param(raises(KeyboardInterrupt()), id="KeyboardInterrupt"),
    pytest.param(leaves, id="sys.exit"),
    pytest.param(raises(Reject("x", failure="bogus")), id="a code that does not exist"),  # type: ignore[arg-type]
    pytest.param(answers(Answer(text=["x"])), id="a text that is a list"),  # type: ignore[arg-type]
    pytest.param(answers(Answer(finish_reason=5)), id="a reason that is a number"),  # type: ignore[arg-type]
    pytest.param(answers(Answer(usage=Usage(input_tokens="many"))), id="tokens that are a text"),  # type: ignore[arg-type]
    pytest.param(answers(Answer(embeddings=[["a"]])), id="a vector of texts"),  # type: ignore[list-item]
    pytest.param(answers(Answer(embeddings=[[1.0, float("nan")]])), id="a vector with no number"),
    pytest.param(answers(Answer(embeddings=[[1.0, True]])), id="a vector with a truth"),
    pytest.param(answers(Answer(embeddings=[[10**400]])), id="a vector beyond all numbers"),
    pytest.param(yields(Chunk(5, "x"), Answer(text="x")), id="a chunk of no kind"),  # type: ignore[arg-type]
    pytest.param(yields(Chunk("text", 5), Answer(text="x")), id="a chunk whose text is a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("breaks", BROKEN)
async def test_whatever_an_executor_does_the_task_fails_as_internal_and_the_queue_goes_on(opened: Any, breaks: Any) -> None:
    queue = await opened(Does(breaks))
    handle = await queue.submit("does", "work", max_retries=0, stream=True)
    with pytest.raises(TaskFailed) as caught:
        await handle.result(timeout=10)
    assert caught.value.failure == "internal"
    assert (await handle.refresh()).state is State.FAILED
    assert await queue.attempts(handle.id)
    assert [logged.chunk.kind async for logged in handle.stream()][-1] == "end"
    assert [event async for event in _all_events(queue)]
    assert await queue.check() == []
    assert (await queue.stats()).states["running"] == 0


@pytest.mark.parametrize("count", [2**63, 10**30, 2**62, -5, True], ids=str)
async def test_a_count_of_tokens_that_can_be_none_costs_no_answer_and_holds_up_no_batch(opened: Any, count: int) -> None:
    queue = await opened(Does(answers(Answer(text="x", usage=Usage(input_tokens=count, output_tokens=7)))))
    batch = await queue.batches.from_jsonl(b'{"executor": "does", "action": "work"}\n' * 3)
    ended = await batch.wait(timeout=10)

    assert (ended.completed, ended.input_tokens, ended.output_tokens) == (3, 0, 21)
    results = [item.result async for item in batch.results()]
    assert [(result.text, result.usage.input_tokens) for result in results] == [("x", None)] * 3
    assert [event async for event in _all_events(queue)]
    assert await queue.check() == []


async def _all_events(queue: Any) -> AsyncIterator[Any]:
    for event in await queue.store.events():
        yield event


@pytest.mark.parametrize("after", [0, -5, float("nan"), float("inf"), "5", 1e300])
async def test_a_hint_that_says_nothing_is_no_busy_loop_and_no_accident(opened: Any, after: Any) -> None:
    calls = 0

    async def full(call: Call) -> Any:
        nonlocal calls
        calls += 1
        raise RetryLater("full", after=after)

    queue = await opened(Does(full))
    handle = await queue.submit("does", "work")
    await wait_until(lambda: calls > 0)

    async def waits() -> bool:
        return (await handle.refresh()).state in (State.SCHEDULED, State.PENDING, State.RUNNING) and bool(await queue.attempts(handle.id))

    await wait_until(waits)
    assert (await handle.refresh()).failures == 0
    await handle.cancel()


async def test_an_error_of_any_length_is_cut(opened: Any) -> None:
    queue = await opened(Does(raises(Reject("x" * 1_000_000))))
    handle = await queue.submit("does", "work")
    with pytest.raises(TaskFailed):
        await handle.result(timeout=10)
    (record,) = await queue.attempts(handle.id)
    assert len(record.error) <= 2000


async def test_a_call_that_ignores_its_timeout_is_ended_without_it_and_keeps_its_slot(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferq.engine.attempt._PATIENCE", 0.05)
    free = asyncio.Event()

    async def deaf(call: Call) -> str:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    queue = await opened(Does(deaf), slots=1)
    handle = await queue.submit("does", "work", timeout=0.05, max_retries=0)
    with pytest.raises(TaskFailed) as caught:
        await handle.result(timeout=10)
    assert caught.value.failure == "timeout"
    assert (await queue.stats()).workers_idle == 0, "the call still runs: its slot is not free"
    free.set()
    await wait_until(lambda: _idle(queue))
    assert (await handle.refresh()).state is State.FAILED


async def _idle(queue: Any) -> bool:
    return bool((await queue.stats()).workers_idle == 1)


async def test_a_scope_that_is_no_text_is_refused_and_the_log_stays_readable(opened: Any) -> None:
    queue = await opened(Does(answers("x")))
    for scope in (5, "", "\ud800", "a\0b"):
        with pytest.raises(InvalidTask):
            await queue.pause(scope)
    assert await queue.store.events() == []


@pytest.mark.parametrize("id", [5, None, "\ud800", ""])
async def test_an_id_that_is_no_text_is_not_found(opened: Any, id: Any) -> None:
    queue = await opened(Does(answers("x")))
    for ask in (queue.get, queue.cancel, queue.retry, queue.resolve, queue.wait):
        with pytest.raises(TaskNotFound):
            await ask(id)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -1}, {"limit": "3"}, {"limit": 2**63}, {"after": "x"}])
async def test_a_page_of_no_size_is_refused_by_its_field(opened: Any, wrong: Any) -> None:
    queue = await opened(Does(answers("x")))
    with pytest.raises(InvalidTask) as caught:
        await queue.list(**wrong)
    assert caught.value.field == next(iter(wrong))


async def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    for url in (5, "sqlite:///a\0b"):
        with pytest.raises(ConfigError):
            Queue(url).start()  # type: ignore[arg-type]


async def test_a_relative_file_is_the_same_file_after_the_program_went_elsewhere(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    queue = await opened(Does(answers("x")), url="sqlite:///q.db")
    handle = await queue.submit("does", "work")
    monkeypatch.chdir(tmp_path / "b")
    assert (await handle.result(timeout=10)).data == "x"
    assert os.listdir(tmp_path / "b") == []


async def test_one_file_under_two_names_is_one_queue(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(tmp_path)
    gate = asyncio.Event()

    async def waits(call: Call) -> int:
        await gate.wait()
        return call.attempt

    one = await opened(Does(waits), url=tmp_path / "q.db", rescue_interval=0.01)
    handle = await one.submit("does", "work")
    two = await opened(Does(waits), url=tmp_path / "there" / "q.db", rescue_interval=0.01)
    for _ in range(3):
        assert await two.store.rescue(two._clock.read()) == 0
    gate.set()
    assert (await handle.result(timeout=10)).data == 1


async def test_lock_files_that_somebody_removed_do_not_make_the_living_dead(opened: Any, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def waits(call: Call) -> int:
        await gate.wait()
        return call.attempt

    one = await opened(Does(waits), url=tmp_path / "q.db")
    handle = await one.submit("does", "work")
    two = await opened(Does(waits), url=tmp_path / "q.db")
    for lock in (tmp_path / "q.db-instances").iterdir():
        lock.unlink()
    assert await two.store.rescue(two._clock.read()) == 0
    gate.set()
    assert (await handle.result(timeout=10)).data == 1


async def test_a_backup_ends_although_others_never_stop_writing(opened: Any, tmp_path: Path) -> None:
    queue = await opened(Does(answers("x")), url=tmp_path / "q.db")
    await queue.submit_many([{"executor": "does", "action": "work", "payload": {"pad": "x" * 20_000}}] * 1500)
    stop = asyncio.Event()

    async def keep_writing() -> int:
        count = 0
        while not stop.is_set():
            await queue.submit("does", "work")
            count += 1
        return count

    writing = asyncio.create_task(keep_writing())
    async with asyncio.timeout(60):
        await queue.backup(tmp_path / "copy.db")
    stop.set()
    assert await writing > 0
    copy = await opened(Does(answers("x")), url=tmp_path / "copy.db", work=False)
    assert await copy.check() == []
    assert (await copy.stats()).total >= 1500


def test_a_queue_on_another_event_loop_says_so(tmp_path: Path) -> None:
    async def ask(queue: AsyncQueue) -> None:
        with pytest.raises(StoreClosed, match="another event loop"):
            await queue.submit("echo", "chat", model="m", payload={"messages": [{"role": "user", "content": "hi"}]})
        with pytest.raises(StoreClosed, match="another event loop"):
            await queue.stats()

    async def main() -> None:
        async with AsyncQueue(f"sqlite:///{tmp_path}/q.db", work=False) as queue:
            await asyncio.to_thread(asyncio.run, ask(queue))
            assert (await queue.stats()).total == 0

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_queue_from_before_a_fork_says_so_in_the_child(tmp_path: Path) -> None:
    with Queue(f"sqlite:///{tmp_path}/q.db", backends=[Does(answers("x"))]) as queue:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                queue.stats()
            except StoreClosed as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        os.waitpid(child, 0)
        assert "fork" in said
        assert queue.stats().total == 0
