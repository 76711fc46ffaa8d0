"""Keys at the server: who may come in, what each role may, and what is written down of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inferq.access import MadeKey
from inferq.server.route import MUTATING

Chat = Callable[..., dict[str, Any]]


def bearer(key: MadeKey | str) -> dict[str, str]:
    return {"headers": {"authorization": f"Bearer {key if isinstance(key, str) else key.secret}"}}  # type: ignore[dict-item]


async def test_without_keys_this_machine_is_the_admin_and_nobody_who_is_passed_on(site: Any) -> None:
    assert (await site.get("/api/me"))["role"] == "admin"
    assert (await site.get("/api/me", **bearer("sk-what-an-sdk-sends")))["role"] == "admin"
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        status, body, headers = await site.ask("GET", "/api/me", headers={name: "for=203.0.113.9"})
        assert (status, body["code"]) == (401, "unauthenticated")
        assert headers["www-authenticate"].startswith("Bearer")


async def test_from_the_first_key_on_every_api_route_needs_one(site: Any) -> None:
    made = await site.queue.keys.create("boss", role="admin")
    for route in site.app.table.routes:
        if route.open or not route.path.startswith("/api/"):
            continue
        path = route.path.replace("{", "").replace("}", "")
        status, body, _ = await site.ask(route.method, path, json={} if route.body else None)
        assert (status, body["code"]) == (401, "unauthenticated"), route
        status, _, _ = await site.ask(route.method, path, **bearer(made.secret[:-1] + ("a" if made.secret[-1] != "a" else "b")))
        assert status == 401, route
    assert (await site.get("/api/me", **bearer(made)))["name"] == "boss"
    assert (await site.get("/api/me", headers={"x-api-key": made.secret}))["name"] == "boss"


async def test_no_other_scheme_opens_and_no_message_repeats_what_came(site: Any) -> None:
    await site.queue.keys.create("boss", role="admin")
    for given in ("Basic Ym9zczpzZWNyZXQ=", "Bearer", "Bearer iq_aaaa_secretsecret", "Token x"):
        status, body, _ = await site.ask("GET", "/api/tasks", headers={"authorization": given})
        assert status == 401
        assert "secret" not in str(body)
        assert "Ym9zczpzZWNyZXQ" not in str(body)


async def test_each_role_may_what_the_table_of_routes_says(site: Any) -> None:
    keys = {role: await site.queue.keys.create(role, role=role) for role in ("read", "submit", "operator", "admin")}
    order = list(keys)
    for route in site.app.table.routes:
        if route.open:
            continue
        for role in order[: order.index(route.role)]:
            path = route.path.replace("{", "").replace("}", "")
            status, body, _ = await site.ask(route.method, path, json={} if route.body else None, **bearer(keys[role]))
            assert (status, body["code"]) == (403, "forbidden"), (route, role)
            assert route.role in body["detail"]


async def test_a_key_is_made_listed_and_revoked_over_http_and_shown_once(site: Any) -> None:
    boss = await site.queue.keys.create("boss", role="admin")
    status, made, headers = await site.ask(
        "POST",
        "/api/keys",
        json={"name": "team-a", "max_priority": "high", "models": ["qwen3*"], "expires_in": "90d"},
        **bearer(boss),
    )
    assert (status, headers["cache-control"]) == (201, "no-store")
    assert made["key"] | {"expires": 0} | {"created": 0} == {
        "id": made["key"]["id"],
        "name": "team-a",
        "role": "submit",
        "tenant": "team-a",
        "max_priority": 10,
        "models": ["qwen3*"],
        "created": 0,
        "expires": 0,
    }
    assert (await site.get("/api/me", **bearer(made["secret"])))["tenant"] == "team-a"
    listing = await site.get("/api/keys", **bearer(boss))
    assert [key["name"] for key in listing["items"]] == ["boss", "team-a"]
    assert made["secret"].rpartition("_")[2] not in str(listing)
    assert (await site.ask("DELETE", "/api/keys/team-a", **bearer(boss)))[0] == 200
    assert (await site.ask("GET", "/api/me", **bearer(made["secret"])))[0] == 401
    assert (await site.get(f"/api/keys/{made['key']['id']}", **bearer(boss)))["revoked"]
    assert (await site.ask("GET", "/api/keys/nobody", **bearer(boss)))[1]["code"] == "record_not_found"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x", "role": "root"}, "/role"),
        ({"name": "x", "role": "admin", "tenant": "a"}, "/tenant"),
        ({"name": "x", "models": ["*x"]}, "/models"),
        ({"name": "x", "expires": 1, "expires_in": 1}, "/expires_in"),
        ({"name": "x", "expires": 1}, "/expires"),
        ({"name": "x", "digest": "0"}, "/digest"),
    ],
)
async def test_a_wrong_key_is_refused_with_the_place(site: Any, body: dict[str, Any], pointer: str) -> None:
    status, problem, _ = await site.ask("POST", "/api/keys", json=body)
    assert status == 400
    assert problem["errors"][0]["pointer"].startswith(pointer), problem
    assert await site.queue.keys.list() == []


async def test_a_ceiling_and_a_tenant_cannot_be_talked_around(site: Any, chat: Chat) -> None:
    key = await site.queue.keys.create("team-a", max_priority="normal", models=["m"], executors=["echo"])
    made = await site.post("/api/tasks", chat(), **bearer(key))
    assert (await site.queue.get(made["id"])).flow.tenant == "team-a"
    wrong = [
        chat(priority="critical"),
        chat(tenant="team-b"),
        chat(model="other"),
        chat() | {"executor": "ollama"},
        chat(payload={"messages": [], "model": "other"}),
        [chat(), chat(priority=6)],
    ]
    for body in wrong:
        status, problem, _ = await site.ask("POST", "/api/tasks", json=body, **bearer(key))
        assert (status, problem["code"]) == (403, "forbidden"), body
    status, problem, _ = await site.ask("POST", f"/api/tasks/{made['id']}/priority", json={"priority": 6}, **bearer(key))
    assert (status, problem["code"]) == (403, "forbidden")
    assert "ceiling" in problem["detail"]


async def test_a_tenants_queue_bound_answers_429(open_site: Any, chat: Chat) -> None:
    site = await open_site(work=False)
    boss, key = await site.queue.keys.create("boss", role="admin"), await site.queue.keys.create("team-a")
    status, body, _ = await site.ask("PUT", "/api/tenants/team-a", json={"max_queued": 1, "concurrency": 2}, **bearer(boss))
    assert (status, body) == (200, {"tenant": "team-a", "concurrency": 2, "max_queued": 1})
    await site.post("/api/tasks", chat(), **bearer(key))
    status, problem, headers = await site.ask("POST", "/api/tasks", json=chat(), **bearer(key))
    assert (status, problem["code"], problem["retryable"]) == (429, "rate_limited", True)
    assert int(headers["retry-after"]) >= 1
    assert (await site.get("/api/tenants", **bearer(boss)))["items"] == [body]


# ── the audit log ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_changed_what_is_written_down_and_no_payload(site: Any, chat: Chat) -> None:
    boss, key = await site.queue.keys.create("boss", role="admin"), await site.queue.keys.create("team-a")
    made = await site.post("/api/tasks", chat("a private prompt"), **bearer(key))
    await site.ask("POST", f"/api/tasks/{made['id']}/cancel", json={"reason": "private"}, **bearer(key))
    await site.ask("POST", "/api/pause", json={}, **bearer(key))
    await site.ask("POST", "/api/pause", json={}, **(bearer(boss) | {"headers": bearer(boss)["headers"] | {"x-request-id": "r-7"}}))  # type: ignore[operator]
    await site.ask("GET", "/api/tasks", **bearer(key))
    await site.ask("POST", "/api/pause", json={}, **bearer("iq_nobody_x"))

    async def entries() -> list[dict[str, Any]]:
        return (await site.get("/api/audit", **bearer(boss)))["items"]

    from inferq.testing import wait_until

    await wait_until(lambda: _long(entries, 4), what="four entries")
    found = sorted(await entries(), key=lambda entry: (entry["route"], entry["who"]))
    shown = [(entry["who"], entry["route"], entry["status"], entry.get("code"), entry.get("targets", [])) for entry in found]
    assert [line for line in shown if "cancel" not in line[1]] == [
        ("boss", "/api/pause", 204, None, []),
        ("team-a", "/api/pause", 403, "forbidden", []),
        ("team-a", "/api/tasks", 201, None, [made["id"]]),
    ]
    assert shown[-1][4] == [made["id"]]
    assert all(entry["key"] in (boss.key.id, key.key.id) and entry["method"] in MUTATING for entry in found)
    assert "private" not in str(found)
    assert [entry["request"] for entry in found if entry["who"] == "boss"] == ["r-7"]


async def _long(entries: Callable[[], Any], count: int) -> bool:
    return len(await entries()) >= count


async def test_the_audit_log_comes_in_pages_newest_first(site: Any) -> None:
    for _ in range(5):
        await site.ask("POST", "/api/resume", json={})
    first = await site.get("/api/audit?limit=3")
    rest = await site.get(f"/api/audit?limit=3&after={first['next']}")
    numbers = [entry["number"] for page in (first, rest) for entry in page["items"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 5
    assert "next" not in rest or rest["next"] is None
    assert (await site.ask("GET", "/api/audit?after=x"))[0] == 400
