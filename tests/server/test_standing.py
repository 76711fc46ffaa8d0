"""What is open ends with the key that opened it; what ends early is not taken for whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from inferq.testing import wait_until

Chat = Callable[..., dict[str, Any]]


def bearer(made: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {made.secret}"}


async def rest(answer: aiohttp.ClientResponse) -> bytes:
    """What comes to the end of a stream, which must come."""
    async with asyncio.timeout(10):
        return await answer.content.read()


async def test_revoking_a_key_ends_its_streams_and_no_others(open_site: Any, chat: Chat) -> None:
    site = await open_site(work=False)
    keys = site.queue.keys
    gone, stays = await keys.create("gone", role="operator"), await keys.create("stays", role="operator")
    task = await site.post("/api/tasks", chat(), headers=bearer(stays))
    paths = ("/api/events", f"/api/tasks/{task['id']}/stream")
    theirs = [await site.session.get(site.url + path, headers=bearer(gone)) for path in paths]
    async with site.session.get(site.url + "/api/events", headers=bearer(stays)) as ours:
        await ours.content.readuntil(b"\n\n")
        await keys.revoke("gone")
        for answer in theirs:
            await rest(answer)
        await site.queue.cancel(task["id"])
        async with asyncio.timeout(10):
            while b"task.cancelled" not in await ours.content.readuntil(b"\n\n"):
                pass
    for path in paths:
        assert (await site.ask("GET", path, headers=bearer(gone)))[0] == 401


async def test_revoking_a_key_closes_its_sockets(site: Any) -> None:
    gone = await site.queue.keys.create("gone", role="operator")
    async with site.session.ws_connect(site.url + "/ws", headers=bearer(gone)) as ws:
        assert (await ws.receive_json())["op"] == "hello"
        await ws.send_json({"op": "subscribe", "topics": ["stats"]})
        assert (await ws.receive_json())["op"] == "subscribed"
        await site.queue.keys.revoke("gone")
        async with asyncio.timeout(10):
            while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert ws.close_code == 1008


async def test_a_stream_ends_with_its_keys_time(open_site: Any) -> None:
    site = await open_site(work=False, heartbeat=0.05)
    short = await site.queue.keys.create("short", role="operator", expires=0.5)
    async with site.session.get(site.url + "/api/events", headers=bearer(short)) as answer:
        assert answer.status == 200
        await rest(answer)


async def test_what_was_open_to_everybody_ends_when_there_is_a_key(site: Any) -> None:
    async with site.session.get(site.url + "/api/events") as answer:
        await answer.content.readuntil(b"\n\n")
        await site.queue.keys.create("first", role="admin")
        await rest(answer)


async def test_the_watch_ends_with_the_last_stream(site: Any) -> None:
    before = len(asyncio.all_tasks())
    async with site.session.get(site.url + "/api/events") as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    await wait_until(lambda: len(asyncio.all_tasks()) <= before, timeout=10)


@pytest.mark.parametrize("why", ["the server stops", "the key is revoked"])
async def test_results_that_end_early_do_not_look_whole(open_site: Any, chat: Chat, why: str) -> None:
    site = await open_site(work=False)
    made = await site.queue.keys.create("boss", role="admin")
    batch = await site.post("/api/batches", {"name": "nightly"}, headers=bearer(made))
    lines = {"Content-Type": "application/x-ndjson", **bearer(made)}
    await site.post(f"/api/batches/{batch['id']}/tasks", chat(), headers=lines)
    async with site.session.get(site.url + "/api/batches/nightly/results?follow=true", headers=bearer(made)) as answer:
        assert answer.status == 200
        if why == "the server stops":
            site.app.stopping.set()
        else:
            await site.queue.keys.revoke("boss")
        with pytest.raises(aiohttp.ClientPayloadError):
            await rest(answer)


async def test_a_copy_of_the_store_that_ends_early_does_not_look_whole(open_site: Any, chat: Chat) -> None:
    site = await open_site(work=False)
    for _ in range(16):
        await site.post("/api/tasks", [chat("x" * 20_000) for _ in range(45)])
    async with aiohttp.ClientSession(read_bufsize=4096) as session, session.get(site.url + "/api/store/backup") as answer:
        assert (await answer.content.readexactly(16)).startswith(b"SQLite format 3")
        site.app.stopping.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await rest(answer)
