"""Webhooks over HTTP and by the client: the same as here, and no secret in any answer but the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferq import AsyncQueue, Settings, verify_webhook
from inferq.client import AsyncClient
from inferq.config import WebhookSettings
from inferq.errors import Conflict, Forbidden, InvalidQuery, InvalidTask, RecordNotFound, WrongState
from inferq.server import create_app
from inferq.server.serving import Server
from inferq.testing import EchoExecutor, wait_until

ASKED: dict[str, Any] = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "x"}]}}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[AsyncQueue, str]]:
    """A queue that works, and the URL of its server."""
    async with AsyncExitStack() as stack:
        settings = Settings(webhooks=WebhookSettings(allow_private=True, initial_delay=0.001, max_delay=0.002, max_retries=0))
        queue = AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", backends=[EchoExecutor("echo")], settings=settings)
        await stack.enter_async_context(queue)
        server = Server(create_app(queue), port=0)
        task = asyncio.create_task(server.serve())

        async def stop() -> None:
            server.stop()
            await task

        stack.push_async_callback(stop)
        await server.listening.wait()
        yield queue, f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def client(served: tuple[AsyncQueue, str]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served[1]) as made:
        yield made


async def test_the_client_does_all_that_the_queue_does(client: AsyncClient, receiver: Any) -> None:
    made = await client.webhooks.put("ops", url=receiver.url, events=["task.completed"], query="tag:billing", headers={"x-token": "t"})
    assert made.secret
    assert made.webhook == await client.webhooks.get("ops") == (await client.webhooks.list())[0]
    assert made.webhook.headers == {"x-token": "***"}
    assert (await client.webhooks.put("ops", url=receiver.url, events=["task.completed"])).secret is None
    receiver.answers = [500]
    await (await client.submit(**ASKED)).result()

    async def ended() -> Any:
        page = await client.webhooks.deliveries("ops", failed=True)
        return page.deliveries

    (failed,) = await wait_until(ended, what="the delivery to fail")
    assert (failed.status, failed.state) == (500, "failed")
    (again,) = await client.webhooks.replay("ops")

    async def taken() -> bool:
        return (await client.webhooks.delivery(again.id)).state == "completed"

    await wait_until(taken, what="the replay to be taken")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    ping = await client.webhooks.test("ops")
    await receiver.until(3)
    headers, body = receiver.got[2]
    assert verify_webhook(body, headers, made.secret)["type"] == ping.type == "webhook.test"
    assert (await client.webhooks.disable("ops", reason="moving")).reason == "moving"
    with pytest.raises(WrongState):
        await client.webhooks.test("ops")
    assert (await client.webhooks.enable("ops")).enabled
    await client.webhooks.remove("ops")
    with pytest.raises(RecordNotFound, match="'ops'"):
        await client.webhooks.get("ops")


async def test_wrong_webhooks_are_refused_as_they_are_here(client: AsyncClient, receiver: Any) -> None:
    fine: dict[str, Any] = {"url": receiver.url}
    for wrong, error in (
        ({"url": "ftp://x"}, InvalidTask),
        ({"events": ["nothing"]}, InvalidTask),
        ({"query": "nothing:1"}, InvalidQuery),
        ({"secret": "hunter2"}, InvalidTask),
        ({"headers": {"host": "x"}}, InvalidTask),
    ):
        with pytest.raises(error) as refused:
            await client.webhooks.put("ops", **(fine | wrong))
        assert "hunter2" not in str(refused.value)
    await client.webhooks.put("ops", **fine)
    with pytest.raises(Conflict):
        await client.webhooks.put("ops", **fine, replace=False)


async def test_no_answer_but_the_first_holds_a_secret_and_tenants_have_no_webhooks(served: tuple[AsyncQueue, str], receiver: Any) -> None:
    queue, url = served
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/api/webhooks", json={"name": "ops", "url": receiver.url}) as answer:
            assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
            secret = (await answer.json())["secret"]
        for path in ("/api/webhooks", "/api/webhooks/ops", "/api/webhooks/ops/deliveries", "/api/events?after=0", "/api/audit"):
            async with session.get(url + path, headers={"accept": "application/json"}) as answer:
                assert secret not in await answer.text()
    key = await queue.keys.create("team", role="operator", tenant="a")
    async with AsyncClient(url, api_key=key.secret) as client:
        with pytest.raises(Forbidden, match="all tenants"):
            await client.webhooks.list()


async def test_the_client_makes_and_ends_keys(served: tuple[AsyncQueue, str]) -> None:
    queue, url = served
    boss = await queue.keys.create("boss", role="admin")
    async with AsyncClient(url, api_key=boss.secret) as client:
        made = await client.keys.create("team-a", max_priority="high", models=["qwen3*"], expires=3600)
        assert made.key == await client.keys.get("team-a") == (await client.keys.list())[1]
        assert (await queue.keys.verify(made.secret)).max_priority == 10
        with pytest.raises(Conflict):
            await client.keys.create("team-a")
        limits = await client.keys.set_limits("team-a", concurrency=2)
        assert await client.keys.limits() == {"team-a": limits}
        assert (await client.keys.revoke("team-a")).revoked
        audit = await client.keys.audit(limit=10)
        assert [(entry.method, entry.route, entry.status) for entry in reversed(audit)] == [
            ("POST", "/api/keys", 201),
            ("POST", "/api/keys", 409),
            ("PUT", "/api/tenants/{name}", 200),
            ("DELETE", "/api/keys/{id}", 200),
        ]
        assert made.secret.rpartition("_")[2] not in repr(audit)
