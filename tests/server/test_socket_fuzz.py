"""The WebSocket, spoken to in every wrong way: messages that are nearly right, frames that keep to no rule, more than anybody needs. Each
message has one answer, the numbering has no gap, nothing of the server's breaks, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hostilekit import Message, asked, frame, handshake, nothing_left, said
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

Chat = Callable[..., dict[str, Any]]
EXAMPLES = 10 * int(os.environ.get("INFERQ_FUZZ", "4"))
fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
REPLIES = {"subscribed", "unsubscribed", "pong", "error"}
CLOSINGS = {1000, 1001, 1002, 1003, 1007, 1008, 1009}
"""Codes of RFC 6455 with which a server may close because of its client; 1011 would be the server's own fault."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["", "a", "b", "ä", "x" * 64, "x" * 65, "\0"]) | st.text(max_size=5)
places = ["0-0", "1-1", "1-99999999999999999999", "x", ""]
positions = st.integers(-2, 30) | st.sampled_from([2**53 - 1, 2**53, 2**63, 10**30, None, 1.5, *places])
members = {
    "topics": st.lists(st.sampled_from(["events", "stream", "stats", "Events", ""]), max_size=4) | json_values,
    "types": st.lists(st.sampled_from(["task.*", "*", "task.completed", "no.such", ""]), max_size=3) | json_values,
    "task": st.sampled_from(["TASK", "nobody", "", None, "\0", "x" * 500]) | json_values,
    "after": positions,
    "id": names | json_values,
    "data": json_values,
    "colour": json_values,
}


@st.composite
def wishes(draw: st.DrawFn) -> str | bytes:
    """A message that is right, nearly right, or nothing of the kind."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.text(max_size=20) | st.binary(max_size=20) | json_values.map(json.dumps) | st.just("[" * 5000))
    wish = {"op": draw(st.sampled_from(["subscribe", "subscribe", "subscribe", "unsubscribe", "ping", "shout"]))}
    chosen = draw(st.sets(st.sampled_from(list(members)), max_size=4))
    if wish["op"] == "subscribe" and draw(st.booleans()):
        chosen = {"topics", *(chosen - {"colour", "data"})}
    return json.dumps(wish | {name: draw(members[name]) for name in sorted(chosen)})


class Client:
    """A client by hand that checks whatever comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._seq = 0

    def send(self, content: bytes, opcode: int = 0x1) -> None:
        self._writer.write(frame(content, opcode))

    async def next(self) -> Message | None:
        """The next message, or None at the end."""
        async with asyncio.timeout(20):
            message = await said(self._reader)
        if message is not None and message.op not in ("close", "control"):
            self._seq += 1
            assert message.data["seq"] == self._seq, "a number is missing or comes twice"
            assert message.data.get("code") != "internal"
        return message

    async def until_pong(self, number: int) -> list[Message]:
        """What is said up to the answer to one's ping."""
        self.send(b'{"op":"ping","data":%d}' % number)
        found: list[Message] = []
        while True:
            message = await self.next()
            assert message is not None, "the server is gone"
            assert message.op != "close", message
            if message.op == "pong" and message.data["data"] == number:
                return found
            found.append(message)

    async def to_the_end(self) -> list[Message]:
        """What is said until the connection ends."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found

    def leave(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
async def busy(site: Any, chat: Chat) -> Any:
    """A server with a log of some length and a task that has a stream."""
    made = [await site.post("/api/tasks", chat("a b c")) for _ in range(5)]
    for task in made:
        await site.queue.wait(task["id"])
    site.task = made[0]["id"]
    return site


def is_direct(message: Message) -> bool:
    """It answers a message itself, and is not what a subscription says later."""
    return message.op in REPLIES and not (message.op == "error" and "id" in message.data)


@fuzzed
@given(sent=st.lists(wishes(), min_size=1, max_size=12))
@example(sent=['{"op":"subscribe","topics":["stream"],"task":"TASK","after":"1-99999999999999999999"}'])
@example(sent=['{"op":"subscribe","topics":["events","stats","stream"],"task":"TASK","after":0}', '{"op":"subscribe","topics":["events"]}'])
async def test_every_message_has_one_answer_and_the_numbering_has_no_gap(
    busy: Any, caplog: pytest.LogCaptureFixture, sent: list[str | bytes]
) -> None:
    async with nothing_left(busy):
        client = Client(*await handshake(busy.url))
        hello = await client.next()
        assert hello is not None
        assert (hello.op, set(hello.data)) == ("hello", {"op", "seq", "version", "last_event"})
        for number, wish in enumerate(sent):
            if isinstance(wish, bytes):
                client.send(wish, 0x2)
            else:
                client.send(wish.replace("TASK", busy.task).encode("utf-8", "replace"))
            heard = await client.until_pong(1_000_000 + number)
            assert len([message for message in heard if is_direct(message)]) == 1, (wish, heard)
            for message in heard:
                if message.op == "events":
                    found = [item["position"] for item in message.data["items"]]
                    assert found == sorted(set(found))
                    assert found[-1] <= message.data["after"]
        client.send(b'{"op":"subscribe","id":"whole","topics":["events"],"after":0}')
        whole: list[int] = []
        while len(whole) < 15:
            message = await client.next()
            assert message is not None
            if message.op == "events" and message.data["id"] == "whole":
                whole += [item["position"] for item in message.data["items"]]
        assert whole == list(range(1, 16))
        client.leave()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


frames = st.builds(
    frame,
    st.binary(max_size=130) | st.sampled_from([b'{"op":"ping"}', b"\xff\xfe", b"x" * 126, b"x" * 70_000, b"\x03\xe8bye", b"\x03\xee"]),
    st.sampled_from([0, 1, 1, 1, 1, 2, 2, 3, 8, 9, 10, 15]),
    # Most keep to most of the rules, or nobody would get past the first.
    fin=st.sampled_from([True, True, True, False]),
    reserved=st.sampled_from([0] * 12 + [1, 2, 4, 7]),
    masked=st.sampled_from([True] * 12 + [False]),
)


@fuzzed
@given(sent=st.lists(frames | st.binary(max_size=40), min_size=1, max_size=6), politely=st.booleans())
@example(sent=[frame(b"x" * 70_000)], politely=True)
@example(sent=[frame(b'{"op":', fin=False), frame(b'"ping"}', 0)], politely=True)
@example(sent=[b"\x81\xff" + b"\xff" * 8], politely=True)
@example(sent=[frame(b"\xff\xfe") * 3], politely=False)
@example(sent=[frame(b"\xff\xfe", fin=False) + frame(b"", 0) + frame(b"{}")], politely=True)
async def test_frames_that_keep_to_no_rule_end_the_connection_as_the_standard_says(
    busy: Any, caplog: pytest.LogCaptureFixture, sent: list[bytes], politely: bool
) -> None:
    async with nothing_left(busy):
        client = Client(*await handshake(busy.url))
        for each in sent:
            client._writer.write(each)
        if politely:
            client._writer.write(frame(b"\x03\xe8", 0x8))
        client._writer.write_eof()
        heard = await client.to_the_end()
        client.leave()
    assert {message.data["code"] for message in heard if message.op == "close"} <= CLOSINGS | {0, 3000}
    assert [message.op for message in heard if message.op != "control"][1:2] != ["hello"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


HEADERS = {
    b"Upgrade": [b"websocket", b"WebSocket", b"h2c", b""],
    b"Connection": [b"Upgrade", b"keep-alive, Upgrade", b"close", b""],
    b"Sec-WebSocket-Key": [b"dGhlIHNhbXBsZSBub25jZQ==", b"short", b"", b"\xff"],
    b"Sec-WebSocket-Version": [b"13", b"8", b"0", b"x"],
    b"Sec-WebSocket-Protocol": [b"inferq", b"inferq, inferq.key.iq_no_such", b",", b"\xff"],
    b"Sec-WebSocket-Extensions": [b"permessage-deflate", b";;;", b"x; y=1"],
}


@fuzzed
@given(
    method=st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"HEAD"]),
    path=st.sampled_from([b"/ws", b"/ws", b"/ws/", b"/ws?x=1", b"/api/events", b"/"]),
    sent=st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in HEADERS.items()}),
)
async def test_a_handshake_is_agreed_to_or_refused_and_never_breaks(
    busy: Any, caplog: pytest.LogCaptureFixture, method: bytes, path: bytes, sent: dict[bytes, bytes]
) -> None:
    async with nothing_left(busy), asked(busy, path, *sent.items(), method=method) as answer:
        assert answer.status in (101, 200, 204, 400, 401, 403, 404, 405, 406, 426), answer.status
        if answer.status == 101:
            assert path.startswith(b"/ws")
            assert (method, sent[b"Sec-WebSocket-Version"]) == (b"GET", b"13")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_flood_of_subscriptions_is_bounded_and_serves_who_keeps_within(busy: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with nothing_left(busy):
        client = Client(*await handshake(busy.url))
        for number in range(1000):
            client.send(b'{"op":"subscribe","id":"%d","topics":["events","stats"]}' % (number % 64))
        await client.until_pong(1)
        for number in range(19):
            client.send(b'{"op":"subscribe","id":"more-%d","topics":["events"]}' % number)
        heard = await client.until_pong(2)
        assert [message.data["code"] for message in heard if message.op == "error"] == ["too_many"] * 19
        made = await busy.post("/api/tasks", {"executor": "echo", "action": "echo", "payload": {}})
        told: dict[str, list[str]] = {}
        while len(told) < 64 or not all(events[-1] == "task.completed" for events in told.values()):
            message = await client.next()
            assert message is not None
            if message.op == "events":
                of_it = [item["type"] for item in message.data["items"] if item["task_id"] == made["id"]]
                told.setdefault(message.data["id"], []).extend(of_it)
        assert {tuple(events) for events in told.values()} == {("task.submitted", "task.started", "task.completed")}
        client.leave()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_socket_goes_on_after_any_position_with_the_tail_of_the_whole(busy: Any) -> None:
    async with nothing_left(busy):
        client = Client(*await handshake(busy.url))
        await client.next()
        for after in range(16):
            client.send(b'{"op":"subscribe","id":"%d","topics":["events"],"after":%d}' % (after, after))
        found: dict[str, list[int]] = {}
        while sum(map(len, found.values())) < sum(range(16)):
            message = await client.next()
            assert message is not None
            if message.op == "events":
                found.setdefault(message.data["id"], []).extend(item["position"] for item in message.data["items"])
        client.leave()
    assert found == {str(after): list(range(after + 1, 16)) for after in range(15)}
