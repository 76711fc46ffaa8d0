"""The examples run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inferq.testing import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_web_handlers_submit_show_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_STORE__URL", f"sqlite:///{tmp_path}/web.db")
    spec = importlib.util.spec_from_file_location("web_handlers", EXAMPLES / "web_handlers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with TestClient(TestServer(module.make_app())) as client:
        answer = await client.post("/submit", json={"prompt": "hello there", "executor": "echo", "model": "m", "priority": "high"})
        assert answer.status == 202
        task_id = (await answer.json())["task_id"]

        async def done() -> bool:
            return bool((await (await client.get(f"/status/{task_id}")).json())["state"] == "completed")

        await wait_until(done)
        shown = await (await client.get(f"/status/{task_id}")).json()
        assert (shown["result"]["text"], shown["priority"]) == ("hello there", 10)
        assert (await (await client.get("/statistics")).json())["states"]["completed"] == 1
        wrong = await client.post("/submit", json={"prompt": 7, "executor": "echo", "model": "m"})
        assert (wrong.status, "payload.prompt" in (await wrong.json())["error"]) == (400, True)
        assert (await client.post("/submit", data=b"{")).status == 400
        assert (await client.get("/status/nothing")).status == 404
