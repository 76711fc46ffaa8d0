"""Gaps B1, B2, B15 and B19 of the forerunner with a server: its client and its command line over HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import queue
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import inferq
from inferq import AsyncClient, AsyncQueue, Client, State, TaskResult
from inferq.config import Settings
from inferq.server import create_app
from inferq.server.serving import Server

Opener = Callable[..., Awaitable[AsyncQueue]]
TASK = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "hello"}]}}


@pytest.fixture
async def url(opened: Opener) -> AsyncIterator[str]:
    """A server over a queue that runs tasks."""
    server = Server(create_app(await opened()), port=0)
    serving = asyncio.create_task(server.serve())
    await server.listening.wait()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()
    await serving


async def command(url: str, *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the real command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inferq", *args, "--url", url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_b01_a_submit_over_http_answers_with_the_id_and_the_client_has_it(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/tasks", json=TASK) as answer:
        assert answer.status == 201
        made = await answer.json()
    assert made["task_id"] == made["id"] != ""
    async with AsyncClient(url) as client:
        assert (await client.result(made["task_id"])).text == "hello"
        handle = await client.chat("m", "again", executor="echo")
        assert handle.id != ""
        assert (await handle.result()).text == "again"


async def test_b01_sync_waits_and_prints_the_results(url: str, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    await asyncio.to_thread(file.write_text, json.dumps([TASK, TASK]))
    code, out, err = await command(url, "submit", "batch", "--file", str(file), "--sync")
    assert code == 0, err
    told = json.loads(out)
    assert [(task["status"], task["result"]["text"]) for task in told["tasks"]] == [("completed", "hello")] * 2


def test_b02_server_client_and_documentation_mean_the_same_port() -> None:
    assert Settings().server.port == 7125
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    assert "http://127.0.0.1:7125" in page
    assert "8080" not in page


FORERUNNERS_CLIENT = {
    "ListTasks": "list",
    "SubmitTask": "submit",
    "CancelTask": "cancel",
    "UpdateTaskPriority": "set_priority",
    "GetTask": "get",
    "GetQueueStats": "stats",
    "SubmitBatchTasks": "batch",
    "SubmitBatchTasksAsync": "batch_in_background",
    "SubmitScheduledTask": "submit",
    "SubmitScheduledBatchTasks": "batch",
    "SubmitScheduledBatchTasksAsync": "batch_in_background",
    "AddCronTask": "schedules.put",
    "GetCronTask": "schedules.get",
    "UpdateCronTask": "schedules.update",
    "RemoveCronTask": "schedules.remove",
    "ListCronTasks": "schedules.list",
    "EnableCronTask": "schedules.enable",
    "DisableCronTask": "schedules.disable",
}


@pytest.mark.parametrize("name", FORERUNNERS_CLIENT)
async def test_b01_every_method_of_the_forerunners_client_has_one_here_blocking_and_not(name: str, url: str) -> None:
    def found(door: Any) -> Any:
        for part in FORERUNNERS_CLIENT[name].split("."):
            door = getattr(door, part)
        return door

    async with AsyncClient(url) as client:
        assert inspect.iscoroutinefunction(found(client))

    def blocking() -> bool:
        with Client(url) as plain:
            return callable(found(plain)) and not inspect.iscoroutinefunction(found(plain))

    assert await asyncio.to_thread(blocking)


async def test_b01_every_method_of_the_forerunners_client_does_its_work(url: str) -> None:
    """All eighteen, by the blocking client, which asks the other one."""

    def use_all() -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        with Client(url) as client:
            task = client.submit("echo", "chat", model="m", payload=TASK["payload"])
            assert client.get(task.id).id == task.id
            assert task.result(timeout=20).text == "hello"
            later = client.submit("echo", "chat", model="m", payload=TASK["payload"], at=tomorrow)
            client.set_priority(later.id, 15)
            assert [(one.id, one.priority) for one in client.list("state:scheduled").tasks] == [(later.id, 15)]
            client.cancel(later.id)
            assert client.stats().states == dict.fromkeys(map(str, State), 0) | {"completed": 1, "cancelled": 1}
            soon = (datetime.now(UTC) + timedelta(milliseconds=50)).isoformat()
            assert [result.text for result in client.batch([TASK, TASK | {"scheduled_at": soon}])] == ["hello", "hello"]
            told: queue.Queue[Any] = queue.Queue()
            assert len(client.batch_in_background([TASK, TASK | {"scheduled_at": soon}], told.put)) == 2
            assert [result.text for result in told.get(timeout=20)] == ["hello", "hello"]
            made = client.schedules.put("daily", "0 9 * * *", task=TASK)
            assert client.schedules.get("daily") == made
            assert client.schedules.update("daily", expression="@hourly").expression == "@hourly"
            assert not client.schedules.disable("daily").enabled
            assert [one.name for one in client.schedules.list(enabled=False)] == ["daily"]
            assert client.schedules.enable("daily").enabled
            client.schedules.remove("daily")
            assert client.schedules.list() == []

    await asyncio.to_thread(use_all)


async def test_b01_batches_wait_without_polling_and_scheduled_ones_for_their_time(url: str) -> None:
    async with AsyncClient(url) as client:
        told: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        soon = (datetime.now(UTC) + timedelta(milliseconds=200)).isoformat()
        handles = await client.batch_in_background([TASK, TASK | {"scheduled_at": soon}], told.set_result)
        assert (await handles[1].refresh()).state is State.SCHEDULED
        assert [result.text for result in await told] == ["hello", "hello"]
        [result] = await client.batch([TASK])
        assert isinstance(result, TaskResult)


async def test_b15_the_command_line_streams_from_a_server_word_by_word(url: str) -> None:
    words = "one two three four five six seven eight"
    task = {"executor": "echo", "action": "generate", "model": "m", "payload": {"prompt": words, "tokens_per_second": 20}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inferq", "submit", "raw", "--file", "-", "--stream", "--url", url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(task).encode())
    process.stdin.close()
    first = await process.stdout.read(4)
    ended = process.returncode
    rest = await process.stdout.read()
    await process.wait()
    assert (first, ended) == (b"one ", None)  # it was still being written
    assert (first + rest).decode().split() == words.split()


async def test_b15_there_is_a_streaming_endpoint(url: str) -> None:
    async with AsyncClient(url) as client, aiohttp.ClientSession() as session:
        handle = await client.chat("m", "one two", executor="echo")
        async with session.get(f"{url}/api/tasks/{handle.id}/stream") as answer:
            assert answer.content_type == "text/event-stream"
            assert b'"text":"one "' in await answer.read()


async def test_b19_an_unknown_id_is_not_found_for_every_change_and_never_a_success(url: str) -> None:
    async with AsyncClient(url) as client:
        for change in (client.cancel("nobody"), client.retry("nobody"), client.set_priority("nobody", "high"), client.get("nobody")):
            with pytest.raises(inferq.TaskNotFound) as caught:
                await change
            assert caught.value.status == 404
        done = await client.chat("m", "hi", executor="echo")
        await done.wait()
        for late in (client.cancel(done.id), client.retry(done.id), client.set_priority(done.id, 7)):
            with pytest.raises(inferq.WrongState) as conflict:
                await late
            assert conflict.value.status == 409


async def test_b19_the_commands_end_with_the_code_of_the_error(url: str) -> None:
    for args in (("cancel", "nobody"), ("priority", "nobody", "high"), ("retry", "nobody")):
        code, _, err = await command(url, *args)
        assert (code, "nobody" in err) == (5, True)
