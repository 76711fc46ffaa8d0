"""No key of a tenant sees or changes anything of another tenant, whatever route it takes: walked over the table of routes itself."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from inferq.server.route import Lines, Ndjson, Sse

OURS, THEIRS = "tenant-alpha", "tenant-beta"
PRIVATE = "alphas-private-words"
MESSAGES = [{"role": "user", "content": PRIVATE}]

BODIES: dict[str, Any] = {
    "POST /api/tasks": {
        "executor": "echo",
        "action": "chat",
        "model": "m",
        "payload": {"messages": [{"role": "user", "content": "beta"}]},
        "key": "key-waiting",
    },
    "POST /api/operations": {"verb": "cancel", "q": "state:*"},
    "POST /api/tasks/{id}/priority": {"priority": 1},
}
"""Bodies with which a route would really do something; the others get an empty object."""


async def make_theirs(site: Any) -> dict[str, str]:
    """Something of every kind that a tenant can have: what it is called in paths, and its id."""
    queue = site.queue
    ids = {}
    for name in ("waiting", "failed"):
        handle = await queue.submit(
            "echo",
            "chat",
            model="m",
            payload={"messages": MESSAGES},
            tenant=OURS,
            tags=[PRIVATE],
            key=f"key-{name}",
        )
        ids[name] = handle.id
    await queue.cancel(ids["failed"])
    batch = await queue.batches.create_for("alphas-batch", {"note": PRIVATE}, tenant=OURS)
    template = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": MESSAGES}, "tenant": OURS}
    schedule = await queue.schedules.put("alphas-nightly", "0 3 * * *", task=template)
    return ids | {"batch": batch.id, "batch name": "alphas-batch", "schedule": "alphas-nightly", "schedule id": schedule.id}


@pytest.mark.parametrize("role", ["read", "submit", "operator"])
async def test_nothing_of_another_tenant_shows_or_changes_on_any_route(open_site: Any, role: str) -> None:
    site = await open_site(work=False, heartbeat=0.05)
    ids = await make_theirs(site)
    before = await as_it_is(site, ids)
    key = await site.queue.keys.create("b", role=role, tenant=THEIRS)
    paused = await site.queue.paused()
    for route in site.app.table.routes:
        if not route.path.startswith("/api/"):
            continue
        for id in ids.values():
            status, text = await asked(site, route, id, key.secret)
            assert status < 500, (route, text)
            for private in (PRIVATE, OURS, *ids.values()):
                # A path is the caller's own words; an answer that repeats it tells nothing.
                assert private not in text.replace(id, ""), (route, status, text)
            if "{id}" in route.path and route.path.startswith("/api/tasks/"):
                unknown = await asked(site, route, id[:-4] + "0000", key.secret)
                assert status == unknown[0], (route, text)
    assert await as_it_is(site, ids) == before
    assert await site.queue.paused() == paused


async def as_it_is(site: Any, ids: dict[str, str]) -> list[Any]:
    tasks = [await site.queue.get(ids[name]) for name in ("waiting", "failed")]
    return [*tasks, await site.queue.batches.get(ids["batch"]), await site.queue.schedules.get("alphas-nightly")]


async def asked(site: Any, route: Any, id: str, secret: str) -> tuple[int, str]:
    """Status and text of an answer; of a stream what comes until its first comment."""
    path = route.path
    for parameter in ("{id}", "{name}"):
        path = path.replace(parameter, id)
    headers = {"authorization": f"Bearer {secret}"}
    how: dict[str, Any] = {}
    if route.body is Lines:
        how = {"data": b"{}\n"}
        headers["content-type"] = "application/x-ndjson"
    elif route.body is not None:
        how = {"json": BODIES.get(f"{route.method} {route.path}", {})}
    kinds = [kind for returned in route.returns.values() for kind in (returned if isinstance(returned, tuple) else (returned,))]
    streams = any(isinstance(kind, Sse | Ndjson) for kind in kinds)
    if any(isinstance(kind, Sse) for kind in kinds):
        headers["accept"] = "text/event-stream"
        headers["last-event-id"] = "0"
    async with site.session.request(route.method, site.url + path, headers=headers, **how) as answer:
        if not streams:
            return answer.status, await answer.text()
        text = ""
        async with asyncio.timeout(10):
            async for line in answer.content:
                if line.startswith(b":"):
                    break
                text += line.decode()
        return answer.status, text


async def test_a_list_shows_only_ones_own_and_the_admin_sees_all(open_site: Any) -> None:
    site = await open_site(work=False)
    ids = await make_theirs(site)
    mine = await site.queue.submit("echo", "chat", model="m", payload={"messages": MESSAGES}, tenant=THEIRS)
    boss = await site.queue.keys.create("boss", role="admin")
    key = await site.queue.keys.create("b", tenant=THEIRS)

    async def listed(secret: str) -> set[str]:
        page = await site.get("/api/tasks", headers={"authorization": f"Bearer {secret}"})
        return {task["id"] for task in page["items"]}

    assert await listed(key.secret) == {mine.id}
    assert await listed(boss.secret) == {mine.id, ids["waiting"], ids["failed"]}


async def test_a_name_that_others_have_is_free_for_every_tenant(open_site: Any) -> None:
    site = await open_site(work=False)
    create = site.queue.keys.create
    boss = {"headers": {"authorization": f"Bearer {(await create('boss', role='admin')).secret}"}}
    a, b = [
        {"headers": {"authorization": f"Bearer {(await create(name, role='operator', tenant=name)).secret}"}} for name in (OURS, THEIRS)
    ]
    body = {"name": "nightly", "expression": "0 3 * * *"}
    task = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": MESSAGES}}
    made = []
    for who in (a, b, boss):
        made.append((await site.post("/api/cron", body | {"task": task}, **who))["id"])
        assert (await site.ask("POST", "/api/cron", json=body | {"task": task}, **who))[0] == 409
        changed = {"expression": f"{len(made)} 3 * * *", "task": task}
        assert (await site.ask("PUT", "/api/cron/nightly", json=changed, **who))[0] == 200
        assert (await site.ask("PUT", "/api/cron/weekly", json=changed, **who))[0] == 201
    for at, who in enumerate((a, b, boss), 1):
        shown = await site.get("/api/cron/nightly", **who)
        assert (shown["id"], shown["expression"]) == (made[at - 1], f"{at} 3 * * *")
        run = await site.post("/api/cron/nightly/run", **who)
        if who is not boss:
            assert [task["id"] for task in (await site.get("/api/cron/nightly/history", **who))["items"]] == [run["id"]]
            names = {one["name"]: one["id"] for one in (await site.get("/api/cron", **who))["items"]}
            assert names["nightly"] == made[at - 1]
            assert set(names) == {"nightly", "weekly"}

    seen, after = [], ""
    while after is not None:
        page = await site.get(f"/api/cron?limit=1&after={quote(after, safe='')}", **boss)
        seen += [one["id"] for one in page["items"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == 6
    assert (await site.get(f"/api/cron/{OURS}%2Fnightly", **boss))["id"] == made[0]
    assert (await site.ask("GET", f"/api/cron/{OURS}%2Fnightly", **b))[0] == 404
    assert (await site.ask("PUT", f"/api/cron/{made[0]}", json={"expression": "9 9 * * *"}, **b))[0] == 404
    assert (await site.ask("PUT", f"/api/cron/{made[0]}", json={"expression": "9 9 * * *", "task": task}, **boss))[0] == 200
    assert (await site.get("/api/cron/nightly", **a))["expression"] == "9 9 * * *"
    assert (await site.ask("DELETE", "/api/cron/nightly", **b))[0] == 204
    assert [(await site.ask("GET", "/api/cron/nightly", **who))[0] for who in (a, b, boss)] == [200, 404, 200]


@pytest.mark.parametrize("bounds", [{"models": ["n*"]}, {"max_priority": "low"}, {"executors": ["other"]}], ids=str)
async def test_what_a_key_may_not_submit_it_cannot_have_made_again(open_site: Any, bounds: dict[str, Any]) -> None:
    """Tasks that a stronger key of the tenant made: no retry, retry of a batch, bulk retry or schedule is a way around one's own key."""
    site = await open_site(work=False)
    keys = site.queue.keys
    strong, weak = [
        {"headers": {"authorization": f"Bearer {(await keys.create(name, role='operator', tenant=THEIRS, **of)).secret}"}}
        for name, of in (("strong", {}), ("weak", bounds))
    ]
    fields = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": MESSAGES}}
    task = (await site.post("/api/tasks", fields, **strong))["id"]
    lines = {"content-type": "application/x-ndjson", **strong["headers"]}
    batch = (await site.post("/api/batches/import", data=msgspec.json.encode(fields), headers=lines))["batch"]["id"]
    await site.post("/api/cron", {"name": "s", "expression": "0 0 1 1 *", "task": fields, "enabled": False}, **strong)
    for path in (f"/api/tasks/{task}", f"/api/batches/{batch}"):
        await site.post(f"{path}/cancel", **weak)

    for method, path, body in (
        ("POST", f"/api/tasks/{task}/retry", None),
        ("POST", f"/api/batches/{batch}/retry", {"cancelled": True}),
        ("POST", "/api/cron/s/run", None),
        ("POST", "/api/cron/s/enable", None),
        ("PUT", "/api/cron/s", {"expression": "* * * * *"}),
    ):
        status, problem, _ = await site.ask(method, path, json=body, **weak)
        assert (status, problem["code"]) == (403, "forbidden"), (path, problem)
    for who, count in ((weak, 0), (strong, 2)):
        assert (await site.queue.stats()).states["cancelled"] == 2
        bulk = await site.post("/api/operations", {"verb": "retry", "q": "state:cancelled"}, **who)
        done = await site.get(f"/api/operations/{bulk['id']}?wait=20", **who)
        assert (done["state"], done["done"]) == ("done", count)
    assert not (await site.queue.schedules.get("s")).enabled


async def test_a_model_that_stands_where_no_filter_looks_is_not_made_again_in_bulk(open_site: Any) -> None:
    site = await open_site(work=False)
    key = await site.queue.keys.create("weak", role="operator", models=["n*"])
    weak = {"headers": {"authorization": f"Bearer {key.secret}"}}
    ids = {}
    for name, more in (
        ("fine", {}),
        ("options", {"options": {"model": "gpt"}}),
        ("payload", {"payload": {"messages": MESSAGES, "model": "gpt"}}),
    ):
        handle = await site.queue.submit("echo", "chat", model="n1", **{"payload": {"messages": MESSAGES}, **more})
        await handle.cancel()
        ids[name] = handle.id
    asked = {"verb": "retry", "q": "state:cancelled"}
    preview = await site.post("/api/operations", asked | {"dry_run": True}, **weak)
    assert (preview["expected"], [one["id"] for one in preview["examples"]]) == (1, [ids["fine"]])
    bulk = await site.post("/api/operations", asked, **weak)
    done = await site.get(f"/api/operations/{bulk['id']}?wait=20", **weak)
    assert (done["state"], done["done"], done["failed"]) == ("done", 1, 0)
    states = {name: str((await site.queue.get(id)).state) for name, id in ids.items()}
    assert states == {"fine": "pending", "options": "cancelled", "payload": "cancelled"}
    assert (await site.ask("POST", f"/api/tasks/{ids['options']}/retry", **weak))[0] == 403


async def test_a_key_bounded_to_models_loads_no_other(open_site: Any) -> None:
    site = await open_site(work=False)
    key = await site.queue.keys.create("weak", role="operator", models=["n*"])
    for verb in ("load", "unload"):
        for model, expected in (("gpt", "forbidden"), ("n1", "conflict")):
            headers = {"authorization": f"Bearer {key.secret}"}
            _, answer, _ = await site.ask("POST", f"/api/backends/echo/{verb}", json={"model": model}, headers=headers)
            assert answer["code"] == expected, (verb, model)


async def test_numbers_do_not_tell_a_tenant_the_models_of_others(open_site: Any) -> None:
    site = await open_site(work=False)
    await site.queue.submit("echo", "chat", model="secret-model", payload={"messages": MESSAGES}, tenant=OURS)
    key = await site.queue.keys.create("b", role="operator", tenant=THEIRS)
    for path in ("/api/stats", "/api/status", "/metrics", "/api/backends", "/api/executors", "/"):
        status, body, _ = await site.ask("GET", path, headers={"authorization": f"Bearer {key.secret}"})
        assert (status in (200, 403), "secret-model" in str(body)) == (True, False), path


async def test_a_tenants_operator_switches_no_backend(site: Any) -> None:
    key = await site.queue.keys.create("b", role="operator", tenant=THEIRS)
    for switch in ("drain", "disable", "enable", "test"):
        status, _, _ = await site.ask("POST", f"/api/backends/echo/{switch}", headers={"authorization": f"Bearer {key.secret}"})
        assert status == 403, switch
    assert (await site.queue.backends.get("echo")).state == "up"
