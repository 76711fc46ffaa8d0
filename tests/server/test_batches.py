"""Batches over HTTP: files in, checked whole; results out, in order; faults with pointers; each tenant its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def echo(n: int, **payload: Any) -> dict[str, Any]:
    return {"executor": "echo", "action": "echo", "payload": {"n": n, **payload}}


async def load(site: Any, data: Any, query: str = "", **headers: str) -> tuple[int, Any]:
    status, body, _ = await site.ask("POST", f"/api/batches/import{query}", data=data, headers=NDJSON | headers)
    return status, body


async def test_a_file_is_loaded_watched_and_collected(site: Any) -> None:
    status, made = await load(site, lines([echo(n, **({"fail": ["bad_request"]} if n == 2 else {})) for n in range(300)]), "?name=numbers")
    assert (status, made["added"], made["batch"]["total"]) == (201, 300, 300)
    id = made["batch"]["id"]
    done = await site.get(f"/api/batches/{id}?wait=30")
    assert (done["state"], done["completed"], done["failed"], done["done"]) == ("finished", 299, 1, 300)
    assert (await site.get("/api/batches/numbers"))["id"] == id
    async with site.session.get(f"{site.url}/api/batches/{id}/results") as answer:
        assert answer.content_type == "application/x-ndjson"
        found = [json.loads(line) async for line in answer.content]
    assert [item["line"] for item in found] == list(range(1, 301))
    assert (found[0]["result"]["data"]["n"], found[2]["state"], found[2]["code"]) == (0, "failed", "bad_request")
    page = await site.get(f"/api/batches/{id}/items?state=failed&results=false")
    assert [item["line"] for item in page["items"]] == [3]
    assert (await site.get(f"/api/batches/{id}/items?limit=2&after=297"))["next"] == "299"
    (failures,) = (await site.get(f"/api/batches/{id}/errors"))["items"]
    assert (failures["code"], failures["count"]) == ("bad_request", 1)
    assert (await site.post(f"/api/batches/{id}/retry", {"only": ["timeout"]})) == {"count": 0}
    assert (await site.post(f"/api/batches/{id}/retry")) == {"count": 1}
    assert (await site.get(f"/api/batches/{id}?wait=30"))["completed"] == 300
    assert [one["id"] for one in (await site.get("/api/batches?unfinished=false&limit=1"))["items"]] == [id]
    assert (await site.ask("DELETE", f"/api/batches/{id}"))[0] == 204
    assert (await site.ask("GET", f"/api/batches/{id}"))[0] == 404


async def test_a_file_beyond_the_servers_bound_is_refused_whether_or_not_it_says_its_length(open_site: Any) -> None:
    site = await open_site(max_import_bytes=10_000)
    data = lines([echo(n, pad="x" * 100) for n in range(200)])

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    for given in (data, pieces()):
        status, problem = await load(site, given)
        assert (status, problem["code"]) == (413, "payload_too_large")
        assert "server.max_import_bytes" in problem["detail"]
    assert (await site.get("/api/batches"))["items"] == []
    assert (await load(site, lines([echo(1)])))[0] == 201


async def test_an_array_and_a_template_come_over_http_too(site: Any) -> None:
    status, made = await load(site, json.dumps([{"id": 1, "q": "x"}]).encode(), "?prompt=Say%20{q}&key=id&executor=echo&model=m")
    assert status == 201
    (item,) = (await site.get(f"/api/batches/{made['batch']['id']}/items"))["items"]
    assert (item["key"], item["action"], item["model"]) == ("1", "chat", "m")


async def test_of_a_file_with_wrong_lines_nothing_is_kept_and_each_is_pointed_at(site: Any) -> None:
    data = lines([echo(1), {"executor": "echo", "action": "sing"}, {"executor": "echo", "action": "chat", "payload": {}}]) + b"{"
    status, problem = await load(site, data)
    assert (status, problem["code"]) == (400, "batch_invalid")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/2/action", "/3/payload/messages", "/4"]
    assert (await site.get("/api/batches"))["items"] == []
    status, made = await load(site, data, "?skip_errors=true")
    assert (status, made["added"], made["wrong"], made["errors"][0]["number"]) == (201, 1, 3, 2)


@pytest.mark.parametrize(("query", "parameter"), [
    ("?prompt={", ""), ("?fields=[1]", "fields"), ("?metadata=x", "metadata"), ("?priority=soon", "priority"), ("?at=tomorrow", ""),
    ("?colour=red", "colour"), ("?max_errors=-1", "max_errors"), ("?name=", "name"), ("?action=sing", "action"),
])  # fmt: skip
async def test_a_wrong_parameter_is_named(site: Any, query: str, parameter: str) -> None:
    status, problem = await load(site, lines([echo(1)]), query)
    assert status == 400, problem
    if parameter:
        assert problem["errors"][0]["parameter"] == parameter


async def test_what_is_no_file_of_lines_is_refused(site: Any) -> None:
    assert (await load(site, b""))[0] == 400
    status, _, _ = await site.ask("POST", "/api/batches/import", data=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 415
    assert (await site.ask("GET", "/api/batches/none"))[1]["code"] == "batch_not_found"
    for name in ("import", ".", ".."):
        assert (await site.ask("POST", "/api/batches", json={"name": name}))[0] == 400


async def test_lines_are_added_again_without_harm_until_it_is_sealed(site: Any) -> None:
    made = await site.post("/api/batches", {"name": "open", "metadata": {"a": 1}})
    assert (made["state"], made["metadata"]) == ("open", {"a": 1})
    assert (await site.ask("POST", "/api/batches", json={"name": "open"}))[1]["code"] == "batch_exists"
    for added in (2, 0):
        status, body, _ = await site.ask("POST", "/api/batches/open/tasks?first=1", data=lines([echo(1), echo(2)]), headers=NDJSON)
        assert (status, body) == (200, {"added": added})
    assert (await site.post("/api/batches/open/seal"))["total"] == 2
    status, body, _ = await site.ask("POST", "/api/batches/open/tasks", data=lines([echo(3)]), headers=NDJSON)
    assert (status, body["code"]) == (409, "wrong_state")
    assert (await site.get("/api/batches/open?wait=30"))["state"] == "finished"


async def test_a_batch_is_paused_moved_resumed_and_cancelled(open_site: Any) -> None:
    site = await open_site(work=False)
    _, made = await load(site, lines([echo(n) for n in range(3)]))
    path = f"/api/batches/{made['batch']['id']}"
    assert (await site.post(f"{path}/pause"))["state"] == "paused"
    assert (await site.post(f"{path}/priority", {"priority": "high"})) == {"count": 3}
    assert (await site.post(f"{path}/resume"))["state"] == "running"
    assert (await site.ask("DELETE", path))[1]["code"] == "wrong_state"
    cancelled = await site.post(f"{path}/cancel", {"reason": "enough"})
    assert (cancelled["state"], cancelled["cancelled"], cancelled["reason"]) == ("cancelled", 3, "enough")


async def test_results_are_followed_to_the_end_of_the_batch(site: Any) -> None:
    made = await site.post("/api/batches", {"name": "slow"})

    async def add(n: int) -> None:
        await site.ask("POST", "/api/batches/slow/tasks", data=lines([echo(n)]), headers=NDJSON)

    await add(1)
    async with site.session.get(f"{site.url}/api/batches/{made['id']}/results?follow=true") as answer:
        assert json.loads(await answer.content.readline())["line"] == 1
        await add(2)
        await site.post("/api/batches/slow/seal")
        assert json.loads(await answer.content.readline())["line"] == 2
        assert await answer.content.readline() == b""


async def test_an_upload_that_breaks_off_keeps_nothing(site: Any) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield lines([echo(1)])
        raise ConnectionResetError

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the client library makes of it
        await load(site, broken())
    assert (await site.get("/api/batches"))["items"] == []


async def test_a_tenant_sees_and_names_its_own_batches_only(site: Any) -> None:
    keys = {}
    for name in ("alpha", "beta"):
        made = await site.queue.keys.create(name, role="submit", tenant=name, max_priority=5)
        keys[name] = {"Authorization": f"Bearer {made.secret.reveal() if hasattr(made.secret, 'reveal') else made.secret}"}
    status, made = await load(site, lines([echo(1)]), "?name=mine", **keys["alpha"])
    assert (status, made["batch"]["tenant"]) == (201, "alpha")
    assert (await load(site, lines([echo(1)]), "?name=mine", **keys["beta"]))[0] == 201
    assert (await load(site, lines([echo(1)]), "?priority=high", **keys["beta"]))[0] == 403
    for path in ("", "/results", "/items", "/errors"):
        status, problem, _ = await site.ask("GET", f"/api/batches/{made['batch']['id']}{path}", headers=keys["beta"])
        assert (status, problem["code"]) == (404, "batch_not_found")
    _, listed, _ = await site.ask("GET", "/api/batches", headers=keys["alpha"])
    assert [one["id"] for one in listed["items"]] == [made["batch"]["id"]]
    _, own, _ = await site.ask("GET", "/api/batches/mine", headers=keys["beta"])
    assert own["tenant"] == "beta"
    (task,) = [task async for task in site.queue.iterate() if task.spec.batch == made["batch"]["id"]]
    assert task.spec.tenant == "alpha"


async def test_many_lines_come_in_bounded_memory_while_others_are_served(site: Any) -> None:
    asked = 0

    async def file() -> AsyncIterator[bytes]:
        for start in range(0, 20_000, 500):
            yield lines([echo(n) for n in range(start, start + 500)])

    async def meanwhile() -> None:
        nonlocal asked
        while not loading.done():
            await site.get("/api/batches")
            asked += 1

    loading = asyncio.ensure_future(load(site, file()))
    await meanwhile()
    status, made = await loading
    assert (status, made["added"]) == (201, 20_000)
    assert asked > 5
    await site.post(f"/api/batches/{made['batch']['id']}/cancel")
