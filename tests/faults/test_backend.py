"""A backend that is down, slow, garbled, cut or full: each ends in its outcome, and waiting for it burns no retry."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from doubles.openai import DONE, EVENTS, chat_stream, piece
from doubles.server import Double, Handler, never, says, says_text, streams

from inferq import AsyncHandle, AsyncQueue, TaskFailed
from inferq.config import BackendSettings, RetrySettings, Settings, WorkerSettings
from inferq.errors import FailureCode
from inferq.events import TaskReleased
from inferq.testing import wait_until

pytestmark = pytest.mark.faults

WORDS = ["It ", "works ", "again."]
GOOD = streams(chat_stream(WORDS), content_type=EVENTS)
HALF = [piece({"role": "assistant", "content": ""}), piece({"content": "It "}), piece({"content": "works "})]
CUT = streams(HALF, content_type=EVENTS, end="cut")
ENDLESS = streams(HALF, content_type=EVENTS)
SILENT = streams(HALF, content_type=EVENTS, end="hang")
GARBAGE = says_text("<html><body>Hello from a proxy</body></html>")
BROKEN_JSON = streams([b'data: {"choices": [{\n\n', DONE], content_type=EVENTS)
FULL = says({"error": {"message": "Rate limit reached"}}, status=429, headers={"Retry-After": "0.1"})
FULL_WITHOUT_HINT = says({"error": {"message": "Rate limit reached"}}, status=429)
BUSY = says({"error": {"message": "overloaded"}}, status=503, headers={"Retry-After": "0.1"})
ERROR = says({"error": {"message": "internal"}}, status=500)
SPENT = says({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, status=429)
UNKNOWN = says({"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}, status=404)


@dataclass
class Front:
    """A queue on one backend of scripted faults."""

    queue: AsyncQueue
    double: Double

    async def chat(self, *handlers: Handler, max_retries: int = 2, timeout: float | None = None, idle: float | None = None) -> AsyncHandle:
        self.double.says(*handlers)
        return await self.queue.chat("m", "hello", executor="openai", max_retries=max_retries, timeout=timeout, idle_timeout=idle)


def _settings(port: int) -> Settings:
    return Settings(
        backends=(BackendSettings("far", "openai", settings={"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "k"}),),
        retry=RetrySettings(initial_delay=0.02, max_delay=0.1),
        worker=WorkerSettings(poll_interval=0.5),
    )


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    double = Double()
    await double.start()
    async with AsyncQueue(f"sqlite:///{tmp_path / 'queue.db'}", settings=_settings(double.port)) as queue:
        yield Front(queue, double)
    await double.stop()


PASSING = pytest.mark.parametrize(
    ("fault", "code"),
    [(CUT, "connect"), (ENDLESS, "connect"), (GARBAGE, "server_error"), (BROKEN_JSON, "server_error"), (ERROR, "server_error")],
    ids=["cut", "no end mark", "garbage", "broken json", "500"],
)


@PASSING
async def test_what_may_pass_is_tried_again_and_burns_one_retry_a_time(front: Front, fault: Handler, code: FailureCode) -> None:
    handle = await front.chat(fault, fault, GOOD, max_retries=2)
    assert (await handle.result(timeout=20)).text == "".join(WORDS)
    task = await handle.refresh()
    assert (task.attempt, task.failures) == (3, 2)
    assert [(record.outcome, record.code) for record in await front.queue.attempts(handle.id)] == [
        ("retry", code),
        ("retry", code),
        ("completed", None),
    ]


@PASSING
async def test_a_fault_that_stays_fails_when_the_retries_are_used_up(front: Front, fault: Handler, code: FailureCode) -> None:
    handle = await front.chat(fault, max_retries=1)
    with pytest.raises(TaskFailed) as failed:
        await handle.result(timeout=20)
    assert (failed.value.failure, failed.value.attempts) == (code, 2)
    assert len(front.double.seen) == 2


async def test_half_a_stream_is_thrown_away_with_a_reset_and_only_the_whole_one_is_the_result(front: Front) -> None:
    handle = await front.chat(CUT, GOOD)
    assert (await handle.result(timeout=20)).text == "".join(WORDS)
    kinds = [(entry.position.attempt, entry.chunk.kind) async for entry in handle.stream()]
    assert kinds == [(1, "text"), (1, "text"), (2, "reset"), (2, "text"), (2, "text"), (2, "text"), (2, "end")]


@pytest.mark.parametrize("fault", [FULL, FULL_WITHOUT_HINT, BUSY], ids=["429 with a hint", "429", "503 with a hint"])
async def test_waiting_for_a_full_backend_burns_no_retry(front: Front, fault: Handler) -> None:
    handle = await front.chat(fault, fault, fault, fault, GOOD, max_retries=0)
    assert (await handle.result(timeout=20)).text == "".join(WORDS)
    task = await handle.refresh()
    assert (task.attempt, task.failures) == (5, 0)
    assert [record.outcome for record in await front.queue.attempts(handle.id)] == ["released"] * 4 + ["completed"]


async def test_a_full_backend_is_left_alone_for_as_long_as_it_asked(front: Front) -> None:
    hint = says({"error": {"message": "Rate limit reached"}}, status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    first = await front.chat(hint, GOOD, max_retries=0)
    await wait_until(lambda: _released(front.queue), what="the backend to turn it away")
    # The gate of the lane is closed for all, not only for the one that was turned away.
    second = await front.queue.chat("m", "hello", executor="openai", max_retries=0)
    for handle in (first, second):
        await handle.result(timeout=20)
    assert time.monotonic() - began >= 1.0
    assert len(front.double.seen) == 3
    assert (await second.refresh()).attempt == 1


async def test_a_backend_that_is_slower_than_the_timeout_is_hung_up_on(front: Front) -> None:
    handle = await front.chat(never, max_retries=0, timeout=0.3)
    with pytest.raises(TaskFailed) as failed:
        await handle.result(timeout=20)
    assert failed.value.failure == "timeout"
    await wait_until(front.double.hung_up.is_set, what="the call to be closed")


async def test_a_stream_that_falls_silent_is_hung_up_on_and_tried_again(front: Front) -> None:
    handle = await front.chat(SILENT, GOOD, max_retries=1, idle=0.3)
    assert (await handle.result(timeout=20)).text == "".join(WORDS)
    attempts = [(record.outcome, record.code) for record in await front.queue.attempts(handle.id)]
    assert attempts == [("retry", "timeout"), ("completed", None)]
    await wait_until(front.double.hung_up.is_set, what="the call to be closed")


@pytest.mark.parametrize(("fault", "code"), [(SPENT, "quota_exhausted"), (UNKNOWN, "model_not_found")], ids=["spent", "no such model"])
async def test_what_cannot_pass_fails_at_once(front: Front, fault: Handler, code: FailureCode) -> None:
    handle = await front.chat(fault, max_retries=5)
    with pytest.raises(TaskFailed) as failed:
        await handle.result(timeout=20)
    assert (failed.value.failure, failed.value.attempts) == (code, 1)
    assert len(front.double.seen) == 1


async def test_a_backend_that_is_down_fails_the_task_when_its_retries_are_used_up_and_not_before(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: every connect is refused
        async with AsyncQueue(f"sqlite:///{tmp_path / 'queue.db'}", settings=_settings(nobody.getsockname()[1])) as queue:
            handle = await queue.chat("m", "hello", executor="openai", max_retries=2)
            with pytest.raises(TaskFailed) as failed:
                await handle.result(timeout=20)
            assert (failed.value.failure, failed.value.attempts) == ("connect", 3)


async def test_a_task_that_may_run_at_most_once_is_tried_again_only_if_it_surely_was_not_sent(front: Front) -> None:
    turned_away = await front.chat(FULL, GOOD, max_retries=0)
    await turned_away.result(timeout=20)
    front.double.says(CUT)
    front.double.seen.clear()
    once = await front.queue.chat("m", "hello", executor="openai", at_most_once=True)
    with pytest.raises(TaskFailed) as failed:
        await once.result(timeout=20)
    assert (failed.value.failure, failed.value.attempts) == ("lost", 1)
    assert len(front.double.seen) == 1


async def _released(queue: AsyncQueue) -> bool:
    return any(isinstance(event, TaskReleased) for event in await queue.store.events())
