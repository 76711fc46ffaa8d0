"""Tasks over HTTP, asked by a client that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Chat = Callable[..., dict[str, Any]]


async def test_a_submit_answers_with_its_id_under_both_names_and_is_durable(site: Any, chat: Chat) -> None:
    status, body, headers = await site.ask("POST", "/api/tasks", json=chat())

    assert status == 201
    assert body["id"] == body["task_id"]
    assert headers["location"] == f"/api/tasks/{body['id']}"
    assert (await site.queue.get(body["id"])).model == "m"


async def test_a_result_can_be_waited_for(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat("say this"))

    result = await site.get(f"/api/tasks/{made['id']}/result?wait=30")

    assert "say this" in result["text"]
    assert (await site.get(f"/api/tasks/{made['id']}"))["state"] == "completed"
