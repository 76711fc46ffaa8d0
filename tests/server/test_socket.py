"""The WebSocket, spoken to by two libraries that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

Chat = Callable[..., dict[str, Any]]


async def until(ws: Any, op: str) -> dict[str, Any]:
    while True:
        message = await ws.receive_json()
        if message["op"] == op:
            return message


async def test_a_subscriber_is_told_what_happens_in_sequence(site: Any, chat: Chat) -> None:
    async with site.session.ws_connect(site.url + "/ws") as ws:
        hello = await ws.receive_json()
        await ws.send_json({"op": "subscribe", "id": "a", "topics": ["events"], "types": ["task.*"]})
        subscribed = await ws.receive_json()
        made = await site.post("/api/tasks", chat())
        seen, sequence = [], [hello["seq"], subscribed["seq"]]
        while "task.completed" not in seen:
            message = await ws.receive_json()
            sequence.append(message["seq"])
            seen += [event["type"] for event in message["items"] if event["task_id"] == made["id"]]

    assert seen == ["task.submitted", "task.started", "task.completed"]
    assert sequence == list(range(1, len(sequence) + 1))


async def test_hello_comes_first_however_quick_the_client_is(site: Any) -> None:
    for _ in range(20):
        async with site.session.ws_connect(site.url + "/ws") as ws:
            await ws.send_json({"op": "ping"})
            assert [(await ws.receive_json())["op"] for _ in range(2)] == ["hello", "pong"]


async def test_a_stranger_is_refused_without_a_word_in_the_log(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    await site.queue.keys.create("boss", role="admin")
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await site.session.ws_connect(site.url + "/ws")
    await site.session.get(site.url + "/livez")

    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_subscription_that_breaks_says_so(open_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await open_site()

    async def broken(*_: Any, **__: Any) -> Any:
        raise OverflowError("of the server's own making")

    async with site.session.ws_connect(site.url + "/ws") as ws:
        monkeypatch.setattr(site.app.queue.store, "events", broken)
        await ws.send_json({"op": "subscribe", "id": "a", "topics": ["events"], "after": 0})
        error = await until(ws, "error")

    assert (error["id"], error["code"]) == ("a", "internal")
    assert "making" not in error["detail"]


async def test_a_subscription_resumes_after_a_position(site: Any, chat: Chat) -> None:
    for _ in range(3):
        await site.post("/api/tasks", chat())
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_json({"op": "subscribe", "topics": ["events"], "types": ["task.submitted"], "after": 0})
        items = (await until(ws, "events"))["items"]
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_json({"op": "subscribe", "topics": ["events"], "types": ["task.submitted"], "after": items[0]["position"]})
        rest = (await until(ws, "events"))["items"]

    assert len(items) == 3
    assert rest == items[1:]


async def test_a_task_can_be_streamed_to_its_end(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat("stream me"))
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_json({"op": "subscribe", "id": "s", "topics": ["stream"], "task": made["id"]})
        text = ""
        while (message := await ws.receive_json())["op"] != "end":
            text += "".join(item.get("text", "") for item in message.get("items", []) if item["kind"] == "text")

    assert message["id"] == "s"
    assert text == (await site.get(f"/api/tasks/{made['id']}/result"))["text"]


async def test_numbers_are_sent_when_something_happened(site: Any, chat: Chat) -> None:
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_json({"op": "subscribe", "topics": ["stats"]})
        first = await until(ws, "stats")
        await site.post("/api/tasks", chat())
        second = await until(ws, "stats")

    assert first["stats"]["total_tasks"] == 0
    assert second["stats"]["total_tasks"] == 1


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("nonsense", "expected JSON"),
        ('{"op": "shout"}', "op"),
        ('{"op": "subscribe", "topics": ["events"], "types": ["no.such"]}', "no.such"),
        ('{"op": "subscribe", "topics": ["stream"]}', "task"),
        ('{"op": "subscribe", "topics": ["events"], "after": -1}', "after"),
        ('{"op": "subscribe", "topics": ["events"], "after": 1180591620717411303424}', "after"),
        ('{"op": "subscribe", "topics": ["stream"], "task": "nobody"}', "nobody"),
        ('{"op": "subscribe", "topics": ["events"], "colour": 1}', "colour"),
    ],
)
async def test_a_wrong_message_is_answered_and_the_socket_stays(site: Any, message: str, detail: str) -> None:
    async with site.session.ws_connect(site.url + "/ws") as ws:
        await ws.send_str(message)
        error = await until(ws, "error")
        await ws.send_json({"op": "ping", "data": 7})
        pong = await until(ws, "pong")

    assert detail in error["detail"]
    assert pong["data"] == 7


async def test_whoever_only_makes_mistakes_is_dropped(site: Any) -> None:
    async with site.session.ws_connect(site.url + "/ws") as ws:
        for _ in range(20):
            await ws.send_str("{")
        while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            pass

    assert message.type is aiohttp.WSMsgType.CLOSE
    assert message.data == 1008


async def test_a_page_of_another_site_cannot_open_a_socket(site: Any) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.session.ws_connect(site.url + "/ws", headers=headers)
        assert caught.value.status == 403
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await site.session.ws_connect(site.url + "/ws", headers={"Host": "rebound.example"})
    assert caught.value.status == 403


async def test_a_page_of_its_own_can(site: Any) -> None:
    async with site.session.ws_connect(site.url + "/ws", headers={"Origin": site.url}) as ws:
        assert (await ws.receive_json())["op"] == "hello"
