"""Schedules over HTTP: every route of /api/cron on a real server, whom it answers, and the remote half of `schedules`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from inferq import InvalidTask
from inferq.client.schedules import RemoteSchedules
from inferq.client.transport import Transport
from inferq.door.schedules import SchedulesDoor
from inferq.errors import Conflict, RecordNotFound
from inferq.schedule import decoded, encoded, timed
from inferq.store import RecordPut
from inferq.testing import wait_until

TASK = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "of {scheduled_at:%Y}"}]}}
DAILY = {"name": "daily", "expression": "0 9 * * 1-5", "tz": "Europe/Berlin", "task": {**TASK, "priority": "high"}, "jitter": "30s"}


def bearer(made: Any) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {made.secret}"}}


async def test_a_schedules_life_over_http(site: Any) -> None:
    made = await site.post("/api/cron", DAILY)
    assert (made["description"], made["task"]["priority"], made["jitter"]) == ("at 09:00 on Monday to Friday", 10, 30.0)
    assert made["next_fire"] <= made["due"] < made["next_fire"] + 30_000
    assert await site.get("/api/cron/daily") == await site.get(f"/api/cron/{made['id']}") == made
    assert (await site.get("/api/cron"))["items"] == [made]
    off = await site.post("/api/cron/daily/disable")
    assert (off["enabled"], off["due"]) == (False, None)
    assert (await site.get("/api/cron?enabled=true"))["items"] == []
    status, on, _ = await site.ask("PUT", "/api/cron/daily/enable")
    assert (status, on["enabled"]) == (200, True)
    status, moved, _ = await site.ask("PUT", "/api/cron/daily", json={"expression": "@hourly", "overlap": "allow"})
    assert (status, moved["id"], moved["expression"], moved["tz"]) == (200, made["id"], "@hourly", "Europe/Berlin")
    run = await site.post("/api/cron/daily/run", headers={"Idempotency-Key": "k"})
    assert (await site.post("/api/cron/daily/run", headers={"Idempotency-Key": "k"}))["id"] == run["task_id"]
    done = await site.get(f"/api/tasks/{run['id']}?wait=20")
    assert (done["schedule"], done["metadata"]["cron_name"]) == ("daily", "daily")
    (kept,) = (await site.get("/api/cron/daily/history"))["items"]
    assert (kept["id"], kept["state"]) == (run["id"], "completed")
    status, _, _ = await site.ask("DELETE", "/api/cron/daily")
    assert status == 204
    status, problem, _ = await site.ask("GET", "/api/cron/daily")
    assert (status, problem["code"]) == (404, "record_not_found")


async def test_the_forerunners_names_of_a_schedules_fields_are_understood(site: Any) -> None:
    template = {"type": "chat", "model": "m", "priority": 10, "payload": {"messages": [{"role": "user", "content": "x"}]}, "options": {}}
    body = {"cron_expr": "*/5 * * * *", "enabled": False, "task_template": {**template, "executor": "echo"}, "metadata": {"a": 1}}
    made = await site.post("/api/cron", {"name": "old", **body})
    assert (made["expression"], made["task"]["action"], made["task"]["priority"], made["enabled"]) == ("*/5 * * * *", "chat", 10, False)
    status, moved, _ = await site.ask("PUT", f"/api/cron/{made['id']}", json={**body, "cron_expr": "@daily"})
    assert (status, moved["expression"]) == (200, "@daily")
    for wrong, pointer in (({"name": "x"}, "/expression"), ({"name": "x", **body, "expression": "@daily"}, "/cron_expr")):
        status, problem, _ = await site.ask("POST", "/api/cron", json=wrong)
        assert (status, problem["errors"][0]["pointer"]) == (400, pointer)


async def test_put_creates_and_changes_but_only_changes_with_if_match(site: Any) -> None:
    body = {key: value for key, value in DAILY.items() if key != "name"}
    status, problem, _ = await site.ask("PUT", "/api/cron/daily", json=body, headers={"If-Match": "*"})
    assert (status, problem["code"]) == (404, "record_not_found")
    assert (await site.ask("PUT", "/api/cron/daily", json={"tz": "UTC"}))[0] == 404
    assert (await site.ask("PUT", "/api/cron/daily", json=body))[0] == 201
    status, again, _ = await site.ask("PUT", "/api/cron/daily", json=body)
    assert (status, again) == (200, await site.get("/api/cron/daily"))
    status, problem, _ = await site.ask("POST", "/api/cron", json=DAILY)
    assert (status, problem["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"expression": "0 0 31 2 *"}, "/expression"),
        ({"tz": "Mars"}, "/tz"),
        ({"name": "a/b"}, "/name"),
        ({"misfire": "sometimes"}, "/misfire"),
        ({"window": "9d"}, "/window"),
        ({"task": {**TASK, "executor": "nowhere"}}, "/task/executor"),
        ({"task": {**TASK, "payload": {}}}, "/task/payload/messages"),
        ({"task": {**TASK, "delay": "5s"}}, "/task/delay"),
        ({"task": {**TASK, "scheduled_at": "2027-01-01T00:00:00Z"}}, "/task/scheduled_at"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_what_is_wrong_is_pointed_at(site: Any, changes: dict[str, Any], pointer: str) -> None:
    status, problem, _ = await site.ask("POST", "/api/cron", json={**DAILY, **changes})
    assert status == 400
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
    assert (await site.get("/api/cron"))["items"] == []


async def test_a_preview_answers_in_words_and_times(site: Any) -> None:
    found = await site.get("/api/cron/preview?expression=30+2+*+*+*&tz=Europe/Berlin&count=2&after=2026-10-24T12:00:00Z")
    assert found["description"] == "at 02:30 every day"
    assert found["local"] == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    assert found["fires"][0] == round(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp() * 1000)
    status, problem, _ = await site.ask("GET", "/api/cron/preview?expression=x")
    assert (status, problem["code"]) == (400, "bad_request")


async def test_a_tenants_operator_sees_its_own_schedules_only_and_a_ceiling_holds_for_templates(site: Any) -> None:
    boss = await site.queue.keys.create("boss", role="admin")
    team = await site.queue.keys.create("team", role="operator", tenant="a", max_priority=5)
    reader = await site.queue.keys.create("reader", role="read")
    assert (await site.ask("POST", "/api/cron", json=DAILY, **bearer(reader)))[0] == 403
    status, problem, _ = await site.ask("POST", "/api/cron", json=DAILY, **bearer(team))
    assert (status, problem["code"]) == (403, "forbidden")
    status, mine, _ = await site.ask("POST", "/api/cron", json={**DAILY, "name": "mine", "task": TASK}, **bearer(team))
    assert (status, mine["task"]["tenant"]) == (201, "a")
    assert (await site.ask("POST", "/api/cron", json=DAILY, **bearer(boss)))[0] == 201
    assert [one["name"] for one in (await site.get("/api/cron", **bearer(team)))["items"]] == ["mine"]
    assert len((await site.get("/api/cron", **bearer(boss)))["items"]) == 2
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/disable"), ("GET", "/history")):
        assert (await site.ask(method, f"/api/cron/daily{path}", **bearer(team)))[0] == 404, (method, path)
    assert (await site.ask("PUT", "/api/cron/daily", json={"tz": "UTC"}, **bearer(team)))[0] == 404


async def test_a_listing_goes_on_where_it_ended(site: Any) -> None:
    for name in ("a", "b", "c"):
        await site.post("/api/cron", {**DAILY, "name": name})
    page = await site.get("/api/cron?limit=2")
    assert ([one["name"] for one in page["items"]], page["next"]) == (["a", "b"], "b")
    page = await site.get("/api/cron?limit=2&after=b")
    assert ([one["name"] for one in page["items"]], page["next"]) == (["c"], None)


async def test_the_remote_half_does_what_the_local_one_does(site: Any) -> None:
    transport = Transport(site.url)
    remote: SchedulesDoor = RemoteSchedules(site.queue, transport)
    local: SchedulesDoor = site.queue.schedules
    try:
        quiet = {**TASK, "stream": False}
        made = await remote.put("daily", "0 9 * * *", task=quiet, tz="Europe/Berlin", window="2h", start_within=60, metadata={"a": 1})
        assert made == await local.get("daily") == await remote.get("daily")
        assert made == await remote.put(
            "daily", "0 9 * * *", task=quiet, tz="Europe/Berlin", window=7200, start_within="1m", metadata={"a": 1}
        )
        assert not made.task.stream
        plain = await remote.put("daily", "0 9 * * *", task={"type": "chat", **_without(quiet, "action")})
        assert (plain.tz, plain.start_within, plain.metadata, plain.task) == ("UTC", None, {}, made.task)
        with pytest.raises(Conflict):
            await remote.put("daily", "0 8 * * *", task=TASK, replace=False)
        with pytest.raises(InvalidTask) as caught:
            await remote.put("x", "0 8 * * *", task={**TASK, "payload": {}})
        assert caught.value.field == "task.payload.messages"
        for ask in (remote.get, remote.enable, remote.remove, remote.run, remote.history):
            with pytest.raises(RecordNotFound):
                await ask("nobody")
        with pytest.raises(RecordNotFound):
            await remote.update("nobody", expression="@daily", task=TASK)
        changed = await remote.update("daily", jitter="5s", task={**TASK, "priority": 1})
        assert (changed.jitter, changed.task.priority, changed.id) == (5.0, 1, made.id)
        assert not (await remote.disable("daily")).enabled
        assert [one.name for one in await remote.list(enabled=False)] == ["daily"]
        assert (await remote.enable("daily")).enabled
        handle = await remote.run("daily", key="k")
        assert handle.id == (await local.run("daily", key="k")).id
        await handle.result(timeout=20)
        assert [task.id for task in await remote.history("daily")] == [handle.id]
        assert len(await remote.preview("@hourly", count=3)) == 3
        await remote.remove("daily")
        assert await local.list() == []
    finally:
        await transport.close()


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


async def test_a_server_that_works_fires_by_itself(open_site: Any) -> None:
    site = await open_site()
    await site.post("/api/cron", {**DAILY, "name": "often", "expression": "* * * * *", "misfire": "all"})
    before = (await site.queue.schedules.get("often")).mark
    # Nobody waits a minute: the schedule is told that it has already counted less far.
    record = await site.queue.store.record("schedule", "often")
    earlier = msgspec.structs.replace(decoded(record.body), mark=0)
    body = encoded(timed(earlier, before - 90_000))
    await site.queue.store.put_record(RecordPut("schedule", "often", body), site.queue._clock.read())

    async def fired() -> bool:
        return bool((await site.get("/api/cron/often"))["fire_count"])

    await wait_until(fired)
    history = (await site.get("/api/cron/often/history"))["items"]
    assert history[0]["payload"]["messages"][0]["content"].startswith("of 20")


async def test_a_tenants_beginning_of_an_id_is_looked_for_among_its_own(site: Any) -> None:
    keys = site.queue.keys
    both = [await keys.create(tenant, role="operator", tenant=tenant) for tenant in ("a", "b")]
    made = [await site.post("/api/cron", {**DAILY, "name": f"of-{who.key.name}"}, **bearer(who)) for who in both]
    begin = made[0]["id"][:8]
    assert made[1]["id"].startswith(begin)
    for who, own in zip(both, made, strict=True):
        assert (await site.get(f"/api/cron/{begin}", **bearer(who)))["name"] == own["name"]
    boss = await keys.create("boss", role="admin")
    status, problem, _ = await site.ask("GET", f"/api/cron/{begin}", **bearer(boss))
    assert (status, problem["code"]) == (409, "ambiguous_id")
