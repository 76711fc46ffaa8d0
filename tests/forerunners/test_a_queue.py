"""Gaps of the first forerunner (an embedded queue), each shown not to be ours: recovery, cancelling, streams, callbacks, limits."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import ollama
from doubles.server import Double, never, says, streams

from inferq import (
    Answer,
    AsyncQueue,
    BackendSettings,
    Call,
    Chunk,
    Executor,
    Filter,
    InvalidTask,
    QueueFull,
    Settings,
    State,
    TaskCancelled,
    TaskFailed,
    TaskResult,
    WrongState,
)
from inferq.config import RetentionSettings, StateRetention, StoreSettings, WorkerSettings, load
from inferq.errors import StoreClosed
from inferq.testing import EchoExecutor, wait_until

Opener = Callable[..., Awaitable[AsyncQueue]]


class Counting(EchoExecutor):
    """The echo executor, counting its calls by the text they were asked."""

    def __init__(self) -> None:
        super().__init__("echo")
        self.asked: list[str] = []

    async def preprocess(self, call: Call) -> Call:
        self.asked.append(call.payload["messages"][-1]["content"])
        return call


async def chat(queue: AsyncQueue, text: str = "hi", **more: Any) -> Any:
    return await queue.chat("m", text, executor="echo", **more)


async def test_a01_a_restart_makes_no_finished_task_again(opened: Opener) -> None:
    queue = await opened(Counting())
    done, failed, cancelled = await chat(queue, "done"), await chat(queue, "no", payload={"fail": ["auth"]}), await chat(queue, delay="1h")
    await done.wait()
    await failed.wait()
    await cancelled.cancel()
    await queue.close()
    counting = Counting()
    again = await opened(counting)
    await (await chat(again, "new")).result()
    assert counting.asked == ["new"]
    states = [(await again.get(handle.id)).state for handle in (done, failed, cancelled)]
    assert states == [State.COMPLETED, State.FAILED, State.CANCELLED]


async def test_a02_a_queue_starts_again_after_its_oldest_tasks_were_removed(opened: Opener) -> None:
    none_stay = RetentionSettings(completed=StateRetention(age=0.001))
    queue = await opened(settings=Settings(store=StoreSettings(prune_interval=0.01, retention=none_stay)))
    await (await chat(queue)).result()
    await wait_until(lambda: _total(queue, 0))
    kept = await chat(queue, delay="1h")
    await queue.close()
    again = await opened()
    assert (await again.get(kept.id)).state is State.SCHEDULED
    assert await again.check() == []
    assert (await (await chat(again)).result()).text == "hi"


async def _total(queue: AsyncQueue, number: int) -> bool:
    return (await queue.stats()).total == number


CRASHING = """
import asyncio, sys
from inferq import AsyncQueue
from inferq.testing import EchoExecutor, wait_until

async def main():
    async with AsyncQueue(sys.argv[1], backends=[EchoExecutor("echo")]) as queue:
        running = await queue.chat("m", "running", executor="echo", payload={"fail": ["hang"]})
        full = {"code": "rate_limited", "after": 1.0}
        retried = await queue.chat("n", "retried", executor="echo", payload={"fail": [full]})
        done = await queue.chat("other", "done", executor="echo", backend="echo")
        await queue.pause("echo/held")
        pending = await queue.chat("held", "pending", executor="echo")
        async def are(**wanted):
            states = (await queue.stats()).states
            return all(states[name] == number for name, number in wanted.items())
        await wait_until(lambda: are(running=1, scheduled=1, completed=1, pending=1))
        print(running.id, retried.id, pending.id, done.id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a03_what_ran_waited_or_waited_for_a_retry_at_a_crash_is_made_again_once(opened: Opener, tmp_path: Path) -> None:
    crashing = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASHING, str(tmp_path / "q.db"), stdout=subprocess.PIPE)
    assert crashing.stdout is not None
    ids = (await crashing.stdout.readline()).decode().split()
    crashing.send_signal(signal.SIGKILL)
    await crashing.wait()

    counting = Counting()
    queue = await opened(counting, rescue_interval=0.05)
    assert await queue.paused() == {"echo/held"}
    await queue.resume("echo/held")
    assert [(await queue.result(id, timeout=30)).text for id in ids] == ["running", "retried", "pending", "done"]
    assert sorted(counting.asked) == ["pending", "retried", "running"], "what had ended is not made again"
    outcomes = [[record.outcome for record in await queue.attempts(id)] for id in ids]
    assert outcomes == [["lost", "completed"], ["released", "completed"], ["completed"], ["completed"]]


async def test_a04_a_cancelled_running_task_stays_cancelled(opened: Opener) -> None:
    counting = Counting()
    queue = await opened(counting)
    handle = await chat(queue, "running", payload={"fail": ["hang", "hang"]})
    await wait_until(lambda: counting.asked == ["running"])
    await handle.cancel()
    with pytest.raises(TaskCancelled):
        await handle.result()
    await (await chat(queue, "other")).result()
    assert (await handle.refresh()).state is State.CANCELLED
    assert counting.asked == ["running", "other"]


async def test_a04_a_task_that_waits_for_its_retry_is_cancelled_too(opened: Opener) -> None:
    counting = Counting()
    queue = await opened(counting)
    handle = await chat(queue, "full", payload={"fail": [{"code": "rate_limited", "after": 0.2}]})
    await wait_until(lambda: _state(queue, handle.id, State.SCHEDULED))
    due = (await handle.refresh()).due
    assert due is not None
    await handle.cancel()
    later = await queue.chat("other", "later", executor="echo", delay=0.3)
    await later.result()
    assert (await handle.refresh()).state is State.CANCELLED
    assert counting.asked == ["full", "later"]


async def _state(queue: AsyncQueue, id: str, state: State) -> bool:
    return (await queue.get(id)).state is state


async def test_a08_readers_do_not_take_chunks_from_each_other_and_the_text_is_kept(opened: Opener) -> None:
    queue = await opened()
    handle = await chat(queue, "one two three")
    first, second = await asyncio.gather(*(_words(handle) for _ in range(2)))
    assert first == second == ["one ", "two ", "three"]
    assert (await handle.result()).text == "one two three"
    assert await _words(handle) == first


async def _words(handle: Any) -> list[str]:
    return [word async for word in handle.text_stream()]


async def test_a08_a_streamed_task_waits_its_turn_is_checked_and_is_tried_again(opened: Opener) -> None:
    counting = Counting()
    queue = await opened(counting, slots=1)
    await queue.pause()
    low = await chat(queue, "low", priority="low")
    high = await chat(queue, "high", priority="high", payload={"fail": ["server_error"]})
    reading = asyncio.gather(_words(low), _words(high))
    await queue.resume()
    assert await reading == [["low"], ["high"]]
    assert counting.asked[0] == "high"
    assert (await high.result()).attempts == 2
    with pytest.raises(InvalidTask):
        await queue.chat("m", [], executor="echo", stream=True)


async def test_a09_a_callback_hears_of_the_end_and_of_no_failure_before_it(opened: Opener) -> None:
    queue = await opened()
    told: list[str] = []
    handle = await chat(queue, payload={"fail": ["server_error", "connect"]})
    handle.add_done_callback(lambda ended: told.append(ended.id))
    (result,) = await queue.batch([_chat("batch", fail=["server_error"])])
    assert isinstance(result, TaskResult)
    assert result.attempts == 2
    assert (await handle.result()).attempts == 3
    await wait_until(lambda: told == [handle.id])


def _chat(text: str, **more: Any) -> dict[str, Any]:
    return {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": text}], **more}}


async def test_a09_nobody_waits_for_ever_for_a_queue_that_closed(opened: Opener) -> None:
    queue = await opened()
    batch = asyncio.create_task(queue.batch([_chat("never", fail=["hang"])]))
    await wait_until(lambda: _running(queue, 1))
    await queue.close(0)
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(batch, 10)


async def _running(queue: AsyncQueue, number: int) -> bool:
    return (await queue.stats()).states["running"] == number


async def test_a10_the_configured_ollama_host_is_the_one_that_is_asked(opened: Opener, double: Double) -> None:
    double.says(streams(ollama.chat_stream(["Hel", "lo"]), content_type=ollama.LINES))
    loaded = load(arguments={"ollama_host": f"127.0.0.1:{double.port}"}, env={}, search=False)
    queue = await opened(*(backend for backend in loaded.settings.backends if backend.name == "ollama"))
    assert (await (await queue.chat("m", "hi")).result()).text == "Hello"
    assert [seen.path for seen in double.seen] == ["/api/chat"]


async def test_a11_a_timeout_of_five_minutes_is_five_minutes(
    opened: Opener, double: Double, jump: Callable[[float], Awaitable[None]]
) -> None:
    double.says(never)
    queue = await opened(BackendSettings("ollama", "ollama", settings={"base_url": double.url}), timeout=300.0)
    handle = await queue.chat("m", "hi", max_retries=0)
    await double.reached.wait()
    await jump(290)
    assert (await handle.refresh()).state is State.RUNNING
    assert not double.hung_up.is_set()
    await jump(20)
    with pytest.raises(TaskFailed) as caught:
        await handle.result()
    asked = [seen.path for seen in double.seen if seen.path == "/api/chat"]
    assert (caught.value.failure, caught.value.attempts, len(asked)) == ("timeout", 1, 1)
    await double.hung_up.wait()


async def test_a12_the_event_filter_filters_and_failures_have_their_event(opened: Opener) -> None:
    queue = await opened()
    seen: list[tuple[str, str]] = []
    queue.subscribe(lambda event: seen.append((event.type, event.task_id)), "task_failed")
    await (await chat(queue)).result()
    bad = await chat(queue, payload={"fail": ["auth"]})
    await bad.wait()
    await wait_until(lambda: seen)
    assert seen == [("task.failed", bad.id)]


async def test_a15_a_queue_has_a_size_and_a_payload_a_bound(opened: Opener) -> None:
    queue = await opened(settings=Settings(store=StoreSettings(max_queue_size=2, max_payload_bytes=10_000)), work=False)
    await chat(queue)
    await chat(queue, delay="1h")
    with pytest.raises(QueueFull) as full:
        await chat(queue)
    assert full.value.retryable
    with pytest.raises(InvalidTask, match="10,000 bytes"):
        await chat(queue, "x" * 20_000)
    assert (await queue.stats()).total == 2


async def test_a16_no_tick_decides_how_many_tasks_start(opened: Opener) -> None:
    queue = await opened(slots=4)  # its fallback poll comes once an hour
    results = await asyncio.wait_for(queue.batch([_chat(str(number)) for number in range(300)]), 60)
    assert [result.text for result in results if isinstance(result, TaskResult)] == [str(number) for number in range(300)]


async def test_a17_any_integer_is_a_priority_and_is_served(opened: Opener) -> None:
    counting = Counting()
    queue = await opened(counting, slots=1)
    await queue.pause()
    for priority in (7, -1, 0, 2**40, 15, -(2**40)):
        last = await chat(queue, str(priority), priority=priority)
    await queue.resume()
    await last.result()
    assert counting.asked == [str(2**40), "15", "7", "0", "-1", str(-(2**40))]


async def test_a18_model_options_reach_the_model(opened: Opener, double: Double) -> None:
    double.says(streams(ollama.chat_stream(["ok"]), content_type=ollama.LINES))
    queue = await opened(BackendSettings("ollama", "ollama", settings={"base_url": double.url}))
    await (await queue.chat("m", "hi", options={"temperature": 0.25, "num_ctx": 4096})).result()
    assert double.seen[0].json["options"] == {"temperature": 0.25, "num_ctx": 4096}


async def test_a19_the_settings_that_bound_and_batch_have_their_effect(opened: Opener) -> None:
    given = {"queue": {"max_completed_tasks": 2, "cleanup_interval": "10ms"}, "scheduler": {"batch_size": 1}}
    settings = load(arguments=_flat(given), env={}, search=False).settings
    assert (settings.store.retention.completed.count, settings.worker.claim_batch) == (2, 1)
    keep = StoreSettings(prune_interval=0.01, retention=RetentionSettings(completed=StateRetention(age=None, count=2)))
    queue = await opened(settings=Settings(store=keep, worker=WorkerSettings(claim_batch=1, poll_interval=3600.0)))
    await queue.batch([_chat(str(number)) for number in range(6)])
    await wait_until(lambda: _total(queue, 2))
    assert [task.spec.payload["messages"][0]["content"] for task in (await queue.list()).tasks] == ["5", "4"]


def _flat(groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{group}.{name}": value for group, inside in groups.items() for name, value in inside.items()}


async def test_a21_equals_start_in_the_order_they_came_also_around_a_retry(opened: Opener) -> None:
    counting = Counting()
    queue = await opened(counting, slots=1)
    await queue.pause()
    for name in ("a", "b", "c"):
        last = await chat(queue, name, payload={"fail": ["server_error"]} if name == "a" else {})
    await queue.resume()
    await last.result()
    await wait_until(lambda: _total_of(queue, State.COMPLETED, 3))
    firsts = list(dict.fromkeys(counting.asked))
    assert firsts == ["a", "b", "c"], "nobody overtakes on the first attempt"
    with pytest.raises(InvalidTask, match="created"):
        await queue.submit_many([{"executor": "echo", "action": "echo", "created": 0}])


async def _total_of(queue: AsyncQueue, state: State, number: int) -> bool:
    return (await queue.stats()).states[state] == number


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_a22_an_ended_task_can_be_neither_cancelled_nor_moved_and_keeps_its_record(opened: Opener, end: str) -> None:
    queue = await opened()
    handle = await chat(queue, delay="1h" if end == "cancelled" else None, payload={"fail": ["auth"]} if end == "failed" else {})
    if end == "cancelled":
        await handle.cancel()
    before = await handle.wait()
    assert before.state == end
    with pytest.raises(WrongState):
        await queue.set_priority(handle.id, "critical")
    with pytest.raises(WrongState):
        await handle.cancel()
    assert await handle.refresh() == before


async def test_a08_a_reader_that_stops_reading_does_not_stop_the_task(opened: Opener) -> None:
    class Many(Executor):
        actions = ("talk",)

        async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
            for number in range(2_000):
                yield Chunk("text", f"{number} ")
            yield Answer(text="done")

    queue = await opened(Many("many"))
    handle = await queue.submit("many", "talk", stream=True)
    async for _ in handle.stream():
        break
    assert (await handle.result()).text == "done"
    assert len(await _words(handle)) == 2_000


async def test_a13_a_nested_file_and_durations_as_text_in_json_are_read(tmp_path: Path) -> None:
    nested = tmp_path / "config.yaml"
    nested.write_text(
        'ollama: {host: "http://gpu:11434", timeout: 7m}\nqueue: {max_workers: 8}\nretry: {max_retries: 5, initial_delay: 2s}\n'
    )
    as_json = tmp_path / "config.json"
    as_json.write_text('{"ollama_timeout": "7m", "max_workers": 8, "retry_config": {"max_retries": 5, "initial_delay": "2s"}}')
    for file in (nested, as_json):
        settings = load(file=file, env={}).settings
        assert (settings.worker.timeout, settings.worker.slots) == (420.0, 8)
        assert (settings.retry.max_retries, settings.retry.initial_delay) == (5, 2.0)
    (ollama_,) = (backend for backend in load(file=nested, env={}).settings.backends if backend.name == "ollama")
    assert ollama_.settings["base_url"] == "http://gpu:11434"


async def test_a20_a_page_counts_the_tasks_that_match_newest_first(opened: Opener) -> None:
    queue = await opened()
    await queue.batch([_chat(str(number)) | {"model": "even" if number % 2 == 0 else "odd"} for number in range(9)])
    first = await queue.list(Filter(models=("odd",)), limit=2)
    rest = await queue.list(Filter(models=("odd",)), limit=2, after=first.after)
    assert [task.spec.payload["messages"][0]["content"] for task in first.tasks + rest.tasks] == ["7", "5", "3", "1"]


async def test_a10_the_host_of_one_backend_is_not_the_host_of_another(opened: Opener, double: Double) -> None:
    other = Double()
    await other.start()
    try:
        for server, text in ((double, "one"), (other, "two")):
            server.says(says(ollama.embeddings([1.0] if text == "one" else [2.0])))
        places = [BackendSettings(name, "ollama", settings={"base_url": s.url}) for name, s in (("one", double), ("two", other))]
        queue = await opened(*places)
        results = [await (await queue.embed("m", "x", backend=name)).result() for name in ("one", "two")]
        assert [result.embedding for result in results] == [[1.0], [2.0]]
    finally:
        await queue.close()
        await other.stop()
