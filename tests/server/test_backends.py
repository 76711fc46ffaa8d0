"""Backends over HTTP: who may see them, and that only those who answer for all tenants may turn their switches."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("verb", ["drain", "disable", "enable", "test"])
async def test_a_tenants_key_turns_no_switch_that_concerns_all(open_site: Any, verb: str) -> None:
    site = await open_site()
    one = await site.queue.keys.create("one", role="operator", tenant="a")
    everybody = await site.queue.keys.create("all", role="operator")
    for key, expected in ((one, 403), (everybody, 200)):
        status, _, _ = await site.ask("POST", f"/api/backends/echo/{verb}", headers={"Authorization": f"Bearer {key.secret}"})
        assert status == expected


async def test_a_reader_sees_backends_and_turns_none(open_site: Any) -> None:
    site = await open_site()
    key = await site.queue.keys.create("r", role="read")
    headers = {"Authorization": f"Bearer {key.secret}"}
    assert (await site.get("/api/backends", headers=headers))["items"][0]["name"] == "echo"
    assert (await site.ask("POST", "/api/backends/echo/drain", headers=headers))[0] == 403


async def test_an_unknown_backend_is_a_problem_with_the_names_there_are(open_site: Any) -> None:
    site = await open_site()
    status, problem, _ = await site.ask("GET", "/api/backends/nobody")
    assert (status, problem["code"]) == (404, "record_not_found")
    assert "(echo)" in problem["detail"]


async def test_a_drain_without_a_body_and_with_a_reason(open_site: Any) -> None:
    site = await open_site()
    assert (await site.post("/api/backends/echo/drain"))["state"] == "draining"
    assert (await site.post("/api/backends/echo/disable", json={"reason": "budget"}))["reason"] == "budget"
    assert (await site.post("/api/backends/echo/enable"))["state"] == "up"
