"""Archives over HTTP: for administrators only, and no way around what may not come over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncClient, AsyncQueue
from inferq.errors import Forbidden

Chat = Callable[..., dict[str, Any]]
LINES = {"content-type": "application/x-ndjson"}


async def test_a_server_gives_and_takes_what_an_embedded_queue_does(site: Any, chat: Chat, tmp_path: Path) -> None:
    made = await site.post("/api/tasks", chat("once"))
    await site.queue.wait(made["id"], timeout=10)
    async with AsyncClient(site.url) as client:
        await client.archive.export(tmp_path / "there.jsonl")
        again = await client.archive.load(tmp_path / "there.jsonl")
    await site.queue.archive.export(tmp_path / "here.jsonl")
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert (again.added, again.present, again.whole) == ({}, 1, True)
    async with site.session.get(f"{site.url}/api/store/export") as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        assert await answer.read() == (tmp_path / "here.jsonl").read_bytes()


async def test_what_may_not_be_submitted_over_http_does_not_come_in_an_archive_either(open_site: Any, tmp_path: Path) -> None:
    async with AsyncQueue("sqlite://:memory:", work=False) as other:
        script = {"executor": "script", "action": "execute", "payload": {"argv": ["true"]}}
        await other.submit_many([script])
        await other.schedules.put("hourly", "@hourly", task=script)
        await other.archive.export(tmp_path / "a.jsonl")
    site = await open_site(configured=True)
    status, body, _ = await site.ask("POST", "/api/store/import", data=(tmp_path / "a.jsonl").read_bytes(), headers=LINES)
    assert (status, body["added"], body["wrong"]) == (200, {}, 2)
    assert all("script" in one["reason"] and "over HTTP" in one["reason"] for one in body["errors"]), body["errors"]
    assert (await site.get("/api/stats"))["total"] == 0


async def test_only_administrators_may_and_a_wrong_body_is_a_problem(site: Any) -> None:
    operator = await site.queue.keys.create("op", role="operator")
    async with AsyncClient(site.url, api_key=operator.secret) as client:
        with pytest.raises(Forbidden):
            _ = [piece async for piece in client.archive.pieces()]
    admin = {"authorization": f"Bearer {(await site.queue.keys.create('boss', role='admin')).secret}"}
    status, problem, _ = await site.ask("POST", "/api/store/import", data=b"hello", headers=LINES | admin)
    assert (status, problem["code"]) == (400, "bad_request")
    assert problem["detail"].startswith("line 1: this is no archive of inferq")
    status, body, _ = await site.ask("POST", "/api/store/import?dry_run=true", data=b'{"kind":"inferq","format":1}', headers=LINES | admin)
    assert (status, body["whole"], body["dry_run"]) == (200, False, True)


async def test_a_server_gives_space_back_to_administrators(site: Any) -> None:
    async with AsyncClient(site.url) as client:
        would = await client.compact(dry_run=True)
        done = await client.compact()
    assert would.dry_run
    assert not done.dry_run
    assert 0 < done.after <= done.before
    operator = {"authorization": f"Bearer {(await site.queue.keys.create('op', role='operator')).secret}"}
    assert (await site.ask("POST", "/api/store/compact", headers=operator))[0] == 403
