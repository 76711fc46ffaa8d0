"""Who may hear what on the WebSocket: keys as a browser gives them, and tenants that are kept apart there too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

Chat = Callable[..., dict[str, Any]]


def bearer(made: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {made.secret}"}


async def answers(ws: Any, wish: dict[str, Any]) -> dict[str, Any]:
    """The answer to a wish."""
    await ws.send_json({"op": "subscribe", **wish})
    while (message := await ws.receive_json(timeout=20))["op"] not in ("subscribed", "error"):
        pass
    return dict(message)


async def test_a_page_gives_its_key_as_a_subprotocol(site: Any) -> None:
    made = await site.queue.keys.create("page", role="read")
    protocols = ("inferq", f"inferq.key.{made.secret}")
    async with site.session.ws_connect(site.url + "/ws", protocols=protocols) as ws:
        assert ws.protocol == "inferq", "the key is never sent back"
        assert (await ws.receive_json())["op"] == "hello"
    for wrong in ((), ("inferq",), ("inferq", f"inferq.key.{made.secret[:-1]}"), ("inferq", "inferq.key.")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.session.ws_connect(site.url + "/ws", protocols=wrong)
        assert caught.value.status == 401


@pytest.mark.parametrize("role", ["read", "submit", "operator"])
async def test_nothing_of_another_tenant_is_heard(site: Any, chat: Chat, role: str) -> None:
    theirs = await site.queue.submit(**chat("a private prompt"), tenant="a")
    await theirs.result()
    own = await site.queue.submit(**chat("my own"), tenant="b")
    await own.result()
    key = await site.queue.keys.create("b", role=role, tenant="b")
    async with site.session.ws_connect(site.url + "/ws", headers=bearer(key)) as ws:
        seen = await answers(ws, {"topics": ["stream"], "task": theirs.id})
        unknown = await answers(ws, {"topics": ["stream"], "task": theirs.id[:-4] + "0000"})
        assert (seen["op"], seen["code"]) == (unknown["op"], unknown["code"]) == ("error", "not_found")
        assert seen["detail"].replace(theirs.id, "") == unknown["detail"].replace(theirs.id[:-4] + "0000", "")
        for topic in ("events", "stats"):
            refused = await answers(ws, {"topics": [topic]})
            assert (refused["op"], refused["code"]) == ("error", "forbidden")
        both = await answers(ws, {"topics": ["stream", "events"], "task": own.id})
        assert both["code"] == "forbidden", "what may not be heard is not heard together with what may"
        assert (await answers(ws, {"topics": ["stream"], "task": own.id}))["op"] == "subscribed"
        text = ""
        while (message := await ws.receive_json(timeout=20))["op"] != "end":
            text += "".join(item.get("text", "") for item in message["items"] if item["kind"] == "text")
    assert text == "my own"


async def test_who_sees_all_tenants_hears_all(site: Any, chat: Chat) -> None:
    key = await site.queue.keys.create("watcher", role="read")
    async with site.session.ws_connect(site.url + "/ws", headers=bearer(key)) as ws:
        assert (await answers(ws, {"topics": ["events", "stats"], "types": ["task.completed"]}))["op"] == "subscribed"
        handles = [await site.queue.submit(**chat("x"), tenant=tenant) for tenant in ("a", "b")]
        heard: set[str] = set()
        while len(heard) < 2:
            heard |= {item["task_id"] for item in (await ws.receive_json(timeout=20)).get("items", [])}
    assert heard == {handle.id for handle in handles}
