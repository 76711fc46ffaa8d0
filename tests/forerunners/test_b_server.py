"""Gaps of the second forerunner's server, each shown not to be ours, over real HTTP and by a client that is not ours."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from inferq import Settings
from inferq.config import ServerSettings, WorkerSettings
from inferq.server import create_app
from inferq.server.serving import Server

CHAT = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "hello"}]}}


class Site:
    """A server and a session to ask it with."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, queue: Any) -> None:
        self.server, self.session, self.queue = server, session, queue
        self.url = f"http://127.0.0.1:{server.port}"

    async def ask(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, **how) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def site(opened: Any) -> AsyncIterator[Site]:
    settings = Settings(worker=WorkerSettings(shutdown_grace=0.0), server=ServerSettings(write_timeout=0.3))
    queue = await opened(settings=settings)
    server = Server(create_app(queue), port=0)
    task = asyncio.create_task(server.serve())
    await server.listening.wait()
    async with aiohttp.ClientSession() as session:
        yield Site(server, session, queue)
    server.stop()
    await task


async def test_b01_a_submit_over_http_answers_with_the_tasks_id_and_its_result_can_be_waited_for(site: Site) -> None:
    status, made = await site.ask("POST", "/api/tasks", json=CHAT)
    _, result = await site.ask("GET", f"/api/tasks/{made['task_id']}/result?wait=20")

    assert status == 201
    assert (result["task_id"], result["text"]) == (made["task_id"], "hello")


async def test_b01_what_the_forerunners_client_sent_is_taken(site: Site) -> None:
    theirs = {"type": "chat", "executor": "echo", "model": "m", "priority": 10, "payload": CHAT["payload"], "remote_execution": False}
    _, made = await site.ask("POST", "/api/tasks", json=theirs)
    _, task = await site.ask("GET", f"/api/tasks/{made['task_id']}")

    assert (task["action"], task["priority"]) == ("chat", 10)


async def test_b02_server_and_clients_mean_the_same_port(site: Site) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    env["INFERQ_SERVER__PORT"] = str(site.server.port)
    for verb in (("health",), ("list", "-o", "json")):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "inferq", *verb, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await child.communicate()
        assert child.returncode == 0, (out, errors)

    assert Settings().server.port == 7125


async def test_b08_broken_and_silent_browsers_hold_up_nobody(site: Site) -> None:
    broken = [await site.session.ws_connect(site.url + "/ws") for _ in range(5)]
    for ws in broken:
        await ws.send_json({"op": "subscribe", "topics": ["events", "stats"]})
        transport = ws._conn.transport if ws._conn is not None else None  # type: ignore[attr-defined]
        assert transport is not None
        # Cut without a farewell, as a laptop's lid does: a reset instead of a close.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_json({"op": "subscribe", "topics": ["events"], "types": ["task.completed"]})
        for _ in range(20):
            assert (await site.ask("POST", "/api/tasks", json=CHAT))[0] == 201
        seen = 0
        while seen < 20:
            seen += len((await ws.receive_json(timeout=20)).get("items", []))

    assert seen == 20


async def test_b18_a_client_sets_nothing_that_is_the_queues_own(site: Site) -> None:
    for field, value in (("id", "mine"), ("state", "completed"), ("status", "completed"), ("result", "x"), ("created_at", 0), ("seq", 1)):
        status, problem = await site.ask("POST", "/api/tasks", json=CHAT | {field: value})
        assert (status, problem["errors"][0]["pointer"]) == (400, f"/{field}")
    assert (await site.ask("GET", "/api/stats"))[1]["total_tasks"] == 0


async def test_b18_other_sites_pages_are_refused_and_nobody_is_sent_the_whole_list(site: Site) -> None:
    status, _ = await site.ask("POST", "/api/tasks", json=CHAT, headers={"Origin": "https://evil.example"})
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await site.session.ws_connect(site.url + "/ws", headers={"Origin": "https://evil.example"})
    for _ in range(20):
        await site.ask("POST", "/api/tasks", json=CHAT)
    async with site.session.ws_connect(site.url + "/ws") as ws:
        hello = await ws.receive()
        await ws.send_json({"op": "subscribe", "topics": ["events"]})
        await ws.receive()
        await site.ask("POST", "/api/tasks", json=CHAT)
        first = await ws.receive()

    assert status == 403
    assert len(hello.data) < 200
    assert len(first.data) < 2000, "an event tells what happened to one task, not all tasks with their results"
    assert "payload" not in first.data


async def test_b19_changes_of_unknown_and_ended_tasks_are_404_and_409(site: Site) -> None:
    _, made = await site.ask("POST", "/api/tasks", json=CHAT)
    await site.queue.wait(made["id"])

    for what, body in (("cancel", None), ("priority", {"priority": 1})):
        unknown, _ = await site.ask("POST", f"/api/tasks/nobody/{what}", json=body)
        ended, problem = await site.ask("POST", f"/api/tasks/{made['id']}/{what}", json=body)
        assert (unknown, ended, problem["code"]) == (404, 409, "wrong_state")
