"""`server.access_log`: a line for each request with who, what and how it ended, and with nothing private."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from inferq import Settings
from inferq.config import ServerSettings

PROMPT = "words-of-a-person"


def task(text: str) -> dict[str, Any]:
    return {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": text}]}}


async def lines(open_site: Any, caplog: pytest.LogCaptureFixture, *, on: bool) -> list[Any]:
    caplog.set_level(logging.DEBUG, "inferq.access")
    site = await open_site(settings=msgspec.structs.replace(Settings(), server=ServerSettings(port=0, access_log=on)))
    made = await site.post("/api/tasks", task(PROMPT), headers={"X-Request-Id": "mine-1"})
    await site.get(f"/api/tasks/{made['id']}", params={"wait": "5"})
    await site.get("/api/tasks", params={"q": f'"{PROMPT}"'})
    await site.get("/livez")
    status, _, _ = await site.ask("GET", f"/nothing?secret={PROMPT}")
    assert status == 404
    found = [record for record in caplog.records if record.name == "inferq.access"]
    assert PROMPT not in "".join(str(vars(record)) for record in found)
    if found:
        assert found[1].task_id == made["id"]  # type: ignore[attr-defined] # given by the line
    return found


async def test_each_request_but_probes_is_a_line_without_anything_private(open_site: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = await lines(open_site, caplog, on=True)
    assert [(line.method, line.route, line.status) for line in found] == [
        ("POST", "/api/tasks", 201),
        ("GET", "/api/tasks/{id}", 200),
        ("GET", "/api/tasks", 200),
        ("GET", "", 404),
    ]
    assert (found[0].request_id, found[0].key_id, found[0].event) == ("mine-1", "local", "http.request")
    assert all(0 <= line.duration_s < 30 for line in found)


async def test_without_the_setting_nothing_is_logged(open_site: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await lines(open_site, caplog, on=False) == []
