"""Gaps B5, B6, B7, B10, B13 and B14 of the forerunner with a server: remote endpoints that really work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doubles import ollama, openai
from doubles.server import Double, never, says, streams

from inferq import AsyncQueue, State
from inferq.config import HealthSettings, Places, Settings, load
from inferq.testing import wait_until

Opener = Callable[..., Awaitable[AsyncQueue]]


@pytest.fixture
async def cloud() -> AsyncIterator[Double]:
    made = Double()
    await made.start()
    made.says(streams(openai.chat_stream(["far"]), content_type=openai.EVENTS))
    yield made
    await made.stop()


@pytest.fixture
async def spare() -> AsyncIterator[Double]:
    made = Double()
    await made.start()
    made.says(streams(openai.chat_stream(["spare"]), content_type=openai.EVENTS))
    yield made
    await made.stop()


def block(tmp_path: Path, near: str, *endpoints: str, **env: str) -> Settings:
    """What a forerunner's file with these endpoints means."""
    listed = "".join(
        f'    - {{name: e{number}, base_url: "{url}/v1", api_key: "${{KEY_{number}:-none}}", priority: {9 - number}}}\n'
        for number, url in enumerate(endpoints)
    )
    (tmp_path / "config.yaml").write_text(
        f"ollama_host: {near}\nmax_workers: 4\nremote_scheduling:\n  enabled: true\n  local_first_policy: true\n  endpoints:\n{listed}"
    )
    places = Places(cwd=tmp_path, home=tmp_path, user=tmp_path / "u", system=(), data=tmp_path / "d")
    settings = load(env=env, places=places, file=tmp_path / "config.yaml").settings
    return msgspec.structs.replace(settings, retry=msgspec.structs.replace(settings.retry, initial_delay=0.001, max_delay=0.001))


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Callable[[Settings], Awaitable[AsyncQueue]]]:
    queues: list[AsyncQueue] = []

    async def make(settings: Settings) -> AsyncQueue:
        queue = AsyncQueue(str(tmp_path / "q.db"), settings=settings)
        await queue.start()
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close(0)


async def test_b05_the_forerunners_remote_block_sends_what_is_critical_to_its_endpoint(
    tmp_path: Path, run: Any, double: Double, cloud: Double
) -> None:
    double.says(streams(ollama.chat_stream(["near"]), content_type=ollama.LINES))
    queue = await run(block(tmp_path, double.url, cloud.url))
    normal = await (await queue.chat("m", "hi")).result()
    critical = await (await queue.chat("m", "hi", priority="critical")).result()
    wished = await (await queue.chat("m", "hi", remote=True)).result()
    assert [(one.text, one.executed_on) for one in (normal, critical, wished)] == [("near", "local"), ("far", "e0"), ("far", "e0")]


async def test_b06_health_checks_of_endpoints_that_never_answer_hold_up_no_submit(
    tmp_path: Path, run: Any, double: Double, cloud: Double
) -> None:
    double.says(streams(ollama.chat_stream(["near"]), content_type=ollama.LINES))
    cloud.says(never)
    settings = msgspec.structs.replace(block(tmp_path, double.url, cloud.url), health=HealthSettings(0.02, 600.0, 2))
    queue = await run(settings)
    await wait_until(lambda: any(seen.path == "/v1/models" for seen in cloud.seen))
    tasks = [await queue.chat("m", "hi", remote=False) for _ in range(20)]
    assert {(await task.result()).text for task in tasks} == {"near"}


async def test_b07_a_failing_endpoint_is_passed_over_for_the_next_and_then_left_alone(
    tmp_path: Path, run: Any, double: Double, cloud: Double, spare: Double
) -> None:
    cloud.says(says(openai.error("broken", type_="server_error"), status=500))
    queue = await run(block(tmp_path, double.url, cloud.url, spare.url))
    results = [await (await queue.chat("m", str(n), remote=True)).result() for n in range(12)]
    assert {result.text for result in results} == {"spare"}
    assert [one.backend for one in results[0].tried] == ["e0"]
    assert len([seen for seen in cloud.seen if seen.method == "POST"]) == 5
    (first,) = [info for info in await queue.backends.list() if info.name == "e0"]
    assert [(breaker.model, breaker.open) for breaker in first.breakers] == [("m", True)]


async def test_b10_an_endpoints_key_comes_from_the_environment_and_is_shown_nowhere(
    tmp_path: Path, run: Any, double: Double, cloud: Double
) -> None:
    queue = await run(block(tmp_path, double.url, cloud.url, KEY_0="sk-very-secret"))
    await (await queue.chat("m", "hi", remote=True)).result()
    (asked,) = [seen for seen in cloud.seen if seen.method == "POST"]
    assert asked.headers["Authorization"] == "Bearer sk-very-secret"
    shown = repr(queue.settings) + repr(await queue.backends.list()) + repr(queue.store)
    assert "sk-very-secret" not in shown


async def test_b13_statistics_tell_remote_from_local(tmp_path: Path, run: Any, double: Double, cloud: Double) -> None:
    double.says(streams(ollama.chat_stream(["near"]), content_type=ollama.LINES))
    queue = await run(block(tmp_path, double.url, cloud.url))
    for remote in (True, False, False):
        await (await queue.chat("m", "hi", remote=remote)).result()
    stats = await queue.stats()
    assert (stats.executed_local, stats.executed_remote) == (2, 1)
    assert {info.name: info.completed for info in await queue.backends.list() if info.completed} == {"ollama": 2, "e0": 1}


async def test_b14_a_remote_result_equals_a_local_one_and_the_system_prompt_reaches_it(
    tmp_path: Path, run: Any, double: Double, cloud: Double
) -> None:
    double.says(streams(ollama.chat_stream(["same"]), content_type=ollama.LINES))
    cloud.says(streams(openai.chat_stream(["same"]), content_type=openai.EVENTS))
    queue = await run(block(tmp_path, double.url, cloud.url))
    near, far = [await (await queue.chat("m-1", "hi", system="be brief", remote=remote)).result() for remote in (False, True)]
    assert (near.text, near.message, near.finish_reason, near.model) == (far.text, far.message, far.finish_reason, far.model)
    assert set(near.to_dict()) | {"remote"} == set(far.to_dict()) | {"remote"}
    (asked,) = [seen for seen in cloud.seen if seen.method == "POST"]
    assert asked.json["messages"][0] == {"role": "system", "content": "be brief"}


async def test_b05_the_served_queue_uses_the_file(tmp_path: Path, cloud: Double, double: Double, inferq: Any) -> None:
    """The forerunner's server ignored its file: a real `inferq serve` reads it, and tasks that come over HTTP run remotely."""
    double.says(streams(ollama.chat_stream(["near"]), content_type=ollama.LINES))
    block(tmp_path, double.url, cloud.url)
    inferq.env["INFERQ_LOG__FORMAT"] = "json"
    server = await asyncio.to_thread(inferq.start, "serve", "--port", "0", "--config", str(tmp_path / "config.yaml"))
    url = await asyncio.to_thread(_started, server)
    ask = ("submit", "chat", "--url", url, "--model", "m", "hi", "--wait", "-o", "json")
    normal, critical = [json.loads(await asyncio.to_thread(inferq, *ask, "--priority", priority)) for priority in ("normal", "critical")]
    assert [(one["text"], one["executed_on"]) for one in (normal, critical)] == [("near", "local"), ("far", "e0")]
    stats = json.loads(await asyncio.to_thread(inferq, "status", "--url", url, "-o", "json"))
    assert (stats["executed_local"], stats["executed_remote"]) == (1, 1)
    server.terminate()
    await asyncio.to_thread(server.communicate)


def _started(server: Any) -> str:
    for line in server.stderr:
        if (told := json.loads(line)).get("event") == "server.started":
            return str(told["url"])
    raise AssertionError("it ended before it had started")


async def test_b14_a_remote_task_is_streamed_cancelled_retried_and_told_of_like_a_local_one(
    tmp_path: Path, run: Any, double: Double, cloud: Double
) -> None:
    near = streams(ollama.chat_stream(["a ", "b"]), content_type=ollama.LINES)
    far = streams(openai.chat_stream(["a ", "b"]), content_type=openai.EVENTS)
    answers = {
        False: (double, near, says({"error": "broken"}, status=500), says(ollama.tags("m"))),
        True: (
            cloud,
            far,
            says(openai.error("broken", type_="server_error"), status=500),
            says({"object": "list", "data": [{"id": "m", "object": "model"}]}),
        ),
    }
    queue = await run(block(tmp_path, double.url, cloud.url))
    told: dict[bool, Any] = {}
    for remote, (server, fine, broken, models) in answers.items():
        server.seen.clear()
        server.says(by_method(models, broken, fine, never))
        tried = await queue.chat("m", "hi", remote=remote, stream=True)
        chunks = [(logged.chunk.kind, logged.chunk.text) async for logged in tried.stream()]
        server.hung_up.clear()
        cancelled = await queue.chat("m", "hi", remote=remote)
        await wait_until(lambda handle=cancelled: _is(queue, handle.id, State.RUNNING))
        await wait_until(lambda server=server: len([seen for seen in server.seen if seen.method == "POST"]) == 3)
        await cancelled.cancel("enough")
        await server.hung_up.wait()
        states = [(await handle.refresh()).state for handle in (tried, cancelled)]
        attempts = [[record.outcome for record in await queue.attempts(handle.id)] for handle in (tried, cancelled)]
        log = await queue.store.events(after=0, limit=1000)
        events = [[event.type for event in log if event.task_id == handle.id] for handle in (tried, cancelled)]
        told[remote] = (chunks, states, attempts, events)
    assert told[True] == told[False]
    assert told[True][1] == [State.COMPLETED, State.CANCELLED]
    assert told[True][2][0] == ["retry", "completed"]


def by_method(got: Any, *posted: Any) -> Any:
    """Answers each POST with the next, and whoever only looks with the first."""
    left = list(posted)

    async def handle(request: Any) -> Any:
        return await (left.pop(0) if request.method == "POST" else got)(request)

    return handle


async def _is(queue: AsyncQueue, id: str, state: State) -> bool:
    return (await queue.get(id)).state is state
