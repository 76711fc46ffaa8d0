"""What the forerunner's server left open: gap B18 (mass assignment on submit, no keys, any origin, results pushed to every browser)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferq import AsyncQueue
from inferq.server import create_app
from inferq.server.serving import Server
from inferq.testing import EchoExecutor

MESSAGES = [{"role": "user", "content": "private"}]
CHAT: dict[str, Any] = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": MESSAGES}}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[AsyncQueue, str, aiohttp.ClientSession]]:
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")]) as queue:
        server = Server(create_app(queue), port=0)
        task = asyncio.create_task(server.serve())
        await server.listening.wait()
        async with aiohttp.ClientSession() as session:
            yield queue, f"http://127.0.0.1:{server.port}", session
        server.stop()
        await task


async def ask(session: aiohttp.ClientSession, method: str, url: str, **how: Any) -> tuple[int, Any]:
    async with session.request(method, url, **how) as answer:
        return answer.status, await answer.json()


OWNED = ("id", "state", "result", "error", "created", "attempt", "worker", "batch", "schedule", "code", "seq")


@pytest.mark.parametrize("field", OWNED)
async def test_b18_a_submit_sets_nothing_that_is_the_queues(served: Any, field: str) -> None:
    queue, url, session = served
    status, problem = await ask(session, "POST", f"{url}/api/tasks", json=CHAT | {field: "completed"})
    assert status == 400
    assert problem["errors"][0]["pointer"] == f"/{field}"
    assert (await queue.stats()).total == 0


async def test_b18_a_server_with_keys_answers_nobody_else_and_each_as_far_as_its_role_goes(served: Any) -> None:
    queue, url, session = served
    keys = {role: (await queue.keys.create(role, role=role)).secret for role in ("read", "submit", "operator", "admin")}
    assert (await ask(session, "POST", f"{url}/api/tasks", json=CHAT))[0] == 401
    wanted = {"read": 403, "submit": 201, "operator": 201, "admin": 201}
    for role, status in wanted.items():
        headers = {"authorization": f"Bearer {keys[role]}"}
        assert (await ask(session, "POST", f"{url}/api/tasks", json=CHAT, headers=headers))[0] == status
    assert (await ask(session, "GET", f"{url}/api/keys", headers={"authorization": f"Bearer {keys['operator']}"}))[0] == 403


async def test_b18_a_page_of_another_site_changes_nothing_and_reads_nothing(served: Any) -> None:
    queue, url, session = served
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert (await ask(session, "POST", f"{url}/api/tasks", json=CHAT, headers=headers))[0] == 403
    async with session.get(f"{url}/api/tasks", headers={"origin": "https://evil.example"}) as answer:
        assert "access-control-allow-origin" not in answer.headers
    assert (await queue.stats()).total == 0


async def test_b18_events_say_what_happened_and_hold_no_prompt_and_no_result(served: Any) -> None:
    queue, url, session = served
    handle = await queue.submit(**CHAT)
    await handle.result()
    status, page = await ask(session, "GET", f"{url}/api/events?after=0", headers={"accept": "application/json"})
    assert status == 200
    assert {event["type"] for event in page["items"]} >= {"task.submitted", "task.completed"}
    assert "private" not in str(page)


async def test_b18_priority_is_the_keys_and_not_what_a_caller_claims(served: Any) -> None:
    queue, url, session = served
    key = await queue.keys.create("batch-job", max_priority="low")
    headers = {"authorization": f"Bearer {key.secret}"}
    for claimed in ("critical", 2):
        status, problem = await ask(session, "POST", f"{url}/api/tasks", json=CHAT | {"priority": claimed}, headers=headers)
        assert (status, "ceiling" in problem["detail"]) == (403, True)
    assert (await ask(session, "POST", f"{url}/api/tasks", json=CHAT | {"priority": "low"}, headers=headers))[0] == 201
