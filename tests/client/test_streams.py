"""Streams and events over lost connections: every chunk and event once, in order, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from misbehaving import Scripted, cuts, hangs, refuses, says, streams
from served import Site

import inferq
from inferq import AsyncClient, Position, errors
from inferq.testing import wait_until


def word(text: str) -> str:
    return json.dumps({"kind": "text", "text": text})


START = Position()
END = json.dumps({"kind": "end", "text": "completed"})


async def read(client: AsyncClient, after: Position = START) -> list[tuple[int, str]]:
    async with aclosing(client.stream("t1", after)) as chunks:
        return [(logged.position.index, logged.chunk.text) async for logged in chunks]


async def test_a_cut_stream_goes_on_after_the_last_chunk_that_came(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [
        streams(("1-1", word("one ")), ("1-2", word("two "))),
        cuts,
        streams(),
        streams(("1-3", word("three")), ("1-4", END)),
    ]
    assert await read(client) == [(1, "one "), (2, "two "), (3, "three"), (4, "completed")]
    assert [asked.headers.get("last-event-id") for asked in scripted.asked] == [None, "1-2", "1-2", "1-2"]


@pytest.mark.parametrize("after", [Position(1, 10**12), Position(10**9, 1), Position(-1, 0), Position(1, 1.5), "1-1", None])  # type: ignore[arg-type]
async def test_a_place_that_is_none_is_the_same_error_on_both_sides(site: Site, after: Any) -> None:
    handle = await site.client.chat("m", "hello", executor="echo")
    for door in (site.queue, site.client):
        with pytest.raises(inferq.InvalidTask, match="expected a place in a stream") as caught:
            [logged async for logged in door.stream(handle.id, after)]
        assert caught.value.field == "after"


@pytest.mark.parametrize("after", [2**53, 10**30, -1, 1.5, "1"])
async def test_a_position_that_is_none_is_the_same_error_on_both_sides(site: Site, after: Any) -> None:
    for door in (site.queue, site.client):
        with pytest.raises(inferq.InvalidTask, match="expected the position of an event"):
            [event async for event in door.events(after=after)]


async def test_a_reader_that_knows_its_place_asks_from_there(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [streams(("2-8", END), end=True)]
    assert await read(client, Position(2, 7)) == [(8, "completed")]
    assert scripted.asked[0].headers["last-event-id"] == "2-7"


async def test_an_event_that_was_cut_in_two_is_not_half_delivered(scripted: Scripted, client: AsyncClient) -> None:
    async def half(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(f"id: 1-1\ndata: {word('one ')}\n\nid: 1-2\nda".encode())
        writer.close()

    scripted.script = [half, streams(("1-2", word("two")), ("1-3", END))]
    assert await read(client) == [(1, "one "), (2, "two"), (3, "completed")]
    assert scripted.asked[1].headers["last-event-id"] == "1-1"


async def test_a_server_that_stays_away_is_waited_for_only_so_long(scripted: Scripted) -> None:
    scripted.script = [streams(("1-1", word("one "))), cuts]
    async with AsyncClient(scripted.url, patience=0.3) as client:
        with pytest.raises(errors.ConnectionLost):
            await read(client)
    assert len(scripted.asked) >= 2


async def test_a_refusal_ends_the_stream(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [streams(("1-1", word("one "))), refuses(404, "not_found", "pruned")]
    with pytest.raises(inferq.TaskNotFound, match="pruned"):
        await read(client)


async def test_what_is_no_event_stream_is_not_read_as_one(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [says({"items": []})]
    with pytest.raises(errors.ProtocolError, match="application/json where an event stream"):
        await read(client)
    scripted.script = [streams(("1-1", "{]"), end=True)]
    with pytest.raises(errors.ProtocolError):
        await read(client)
    scripted.script = [streams(("one", word("x")), end=True)]
    with pytest.raises(errors.ProtocolError, match="wrong place"):
        await read(client)


async def test_a_reader_that_leaves_closes_the_connection(site: Site) -> None:
    await site.client.pause()
    handle = await site.client.chat("m", "one two", executor="echo")
    reading = asyncio.create_task(anext(site.client.stream(handle.id)))
    await wait_until(lambda: len(site.server.server_state.connections) >= 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await site.client.resume()
    assert (await handle.result(timeout=10)).text == "one two"


async def test_a_real_stream_is_the_one_that_the_queue_itself_gives(site: Site) -> None:
    handle = await site.client.chat("m", "one two three", executor="echo", payload={"fail": [{"cut_after": 1}]})
    there = [logged async for logged in handle.stream()]
    assert there == [logged async for logged in site.queue.stream(handle.id)]
    assert [logged.chunk.kind for logged in there] == ["text", "reset", "text", "text", "text", "end"]
    last = there[-1].position
    assert [logged async for logged in handle.stream(after=last)] == []
    assert [logged async for logged in handle.stream(after=there[3].position)] == there[4:]
    with pytest.raises(inferq.TaskNotFound):
        await anext(site.client.stream("nobody"))


async def test_events_come_from_the_log_and_then_as_they_happen(site: Site) -> None:
    first = await site.client.chat("m", "one", executor="echo")
    await first.wait(timeout=10)
    ended: list[str] = []
    async with aclosing(site.client.events("task.completed", after=0)) as events:
        async for event in events:
            ended.append(event.task_id)  # type: ignore[union-attr]  # of a task
            if len(ended) == 2:
                break
            second = await site.client.chat("m", "two", executor="echo")
    assert ended == [first.id, second.id]
    with pytest.raises(ValueError, match="expected an event type"):
        await anext(site.client.events("task.nonsense"))


async def test_events_over_a_cut_connection_come_once(scripted: Scripted, client: AsyncClient) -> None:
    def ended(position: int) -> tuple[str, str]:
        return str(position), json.dumps({"type": "task.completed", "position": position, "at": 1, "task_id": f"t{position}"})

    newer = ("8", json.dumps({"type": "moon.landed", "position": 8}))
    scripted.script = [streams(("5", "")), streams(ended(7), newer), streams(ended(9)), hangs]
    async with aclosing(client.events("task.*")) as events:
        found = [(await anext(events)).position for _ in range(2)]
    assert found == [7, 9]
    assert [asked.path for asked in scripted.asked[:3]] == [
        "/api/events?types=task.%2A",
        "/api/events?types=task.%2A&after=5",
        "/api/events?types=task.%2A&after=8",
    ]


async def test_a_subscriber_hears_of_all_that_is_asked_for_afterwards(site: Site) -> None:
    heard: list[str] = []
    stop = site.client.subscribe(lambda event: heard.append(event.type), "task.submitted", "task.completed")
    await (await site.client.chat("m", "hello", executor="echo")).result(timeout=10)
    await wait_until(lambda: heard == ["task.submitted", "task.completed"])
    stop()
    await wait_until(lambda: not site.client._tasks)
    await (await site.client.chat("m", "more", executor="echo")).result(timeout=10)
    assert len(heard) == 2
    with pytest.raises(ValueError, match="expected an event type"):
        site.client.subscribe(print, "nonsense")


async def test_a_wait_outlives_lost_connections_without_asking_all_the_time(scripted: Scripted, client: AsyncClient) -> None:
    final = {"id": "t1", "seq": 1, "state": "completed", "executor": "echo", "action": "chat", "model": "m", "priority": 5}
    final |= {"lane": "echo/m", "size": "low", "tenant": "", "created": 1, "attempt": 1, "failures": 0, "lost": 0, "estimate": 1}
    scripted.script = [says(final | {"state": "running"}), cuts, refuses(503, "store_locked"), says(final)]
    task = await client.wait("t1")
    assert task.state is inferq.State.COMPLETED
    assert [asked.path for asked in scripted.asked] == ["/api/tasks/t1?wait=25.0"] * 4


async def test_a_subscriber_bears_an_absence_that_a_stream_does_not(scripted: Scripted) -> None:
    ended = json.dumps({"type": "task.completed", "position": 6, "at": 1, "task_id": "t"})
    scripted.script = [streams(("5", "")), *[cuts] * 3, streams(("6", ended)), hangs]
    heard: list[int] = []
    async with AsyncClient(scripted.url, patience=0) as client:
        stop = client.subscribe(lambda event: heard.append(event.position), "task.completed")
        await wait_until(lambda: heard == [6], timeout=60)
        stop()
