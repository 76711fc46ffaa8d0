"""Event streams and task streams as a browser's EventSource would read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from inferq.testing import EchoExecutor, wait_until

Chat = Callable[..., dict[str, Any]]


class Sse(NamedTuple):
    id: str
    data: Any


async def sse(answer: Any) -> AsyncIterator[Sse]:
    """Server-sent events with data; comments and bare ids are left out."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Sse(fields.get("id", ""), msgspec.json.decode(fields["data"]))
            fields = {}


async def collect(site: Any, path: str, **how: Any) -> list[Sse]:
    async with site.session.get(site.url + path, **how) as answer:
        assert answer.status == 200
        assert answer.headers["x-accel-buffering"] == "no"
        return [event async for event in sse(answer)]


async def test_a_stream_ends_with_its_end_record_and_says_the_whole_answer(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat("one two three"))

    found = await collect(site, f"/api/tasks/{made['id']}/stream")

    assert found[-1].data == {"kind": "end", "text": "completed"}
    text = "".join(event.data.get("text", "") for event in found[:-1])
    assert text == (await site.get(f"/api/tasks/{made['id']}/result"))["text"]


async def test_a_cut_stream_goes_on_after_the_last_id(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat("a b c d e f"))
    whole = await collect(site, f"/api/tasks/{made['id']}/stream")

    rest = await collect(site, f"/api/tasks/{made['id']}/stream", headers={"Last-Event-ID": whole[2].id})
    status, _, _ = await site.ask("GET", f"/api/tasks/{made['id']}/stream", headers={"Last-Event-ID": whole[-1].id})

    assert rest == whole[3:]
    assert status == 204  # an EventSource that comes back after the end is told to stop


async def test_events_are_replayed_then_followed(site: Any, chat: Chat) -> None:
    first = await site.post("/api/tasks", chat())
    await site.queue.wait(first["id"])
    async with site.session.get(site.url + "/api/events?after=0&types=task.submitted,task.completed") as answer:
        events = sse(answer)
        replayed = [await anext(events), await anext(events)]
        second = await site.post("/api/tasks", chat())
        followed = [await anext(events), await anext(events)]

    assert [event.data["type"] for event in replayed + followed] == ["task.submitted", "task.completed"] * 2
    assert {event.data["task_id"] for event in followed} == {second["id"]}
    assert [int(event.id) for event in replayed + followed] == sorted(event.data["position"] for event in replayed + followed)


async def test_many_followers_see_every_event_once_in_order(site: Any, chat: Chat) -> None:
    async def follow() -> list[int]:
        async with site.session.get(site.url + "/api/events?after=0&types=task.submitted") as answer:
            events = sse(answer)
            return [(await anext(events)).data["position"] for _ in range(50)]

    followers = [asyncio.create_task(follow()) for _ in range(20)]
    for _ in range(50):
        await site.post("/api/tasks", chat())
    seen = await asyncio.gather(*followers)

    assert seen[0] == sorted(set(seen[0]))
    assert all(positions == seen[0] for positions in seen)


async def test_a_page_of_the_log_is_given_to_who_asks_for_json(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat())
    await site.queue.wait(made["id"])

    page = await site.get("/api/events?limit=2", headers={"Accept": "application/json"})
    rest = await site.get(f"/api/events?after={page['next']}", headers={"Accept": "application/json"})

    assert [event["type"] for event in page["items"]] == ["task.submitted", "task.started"]
    assert [event["type"] for event in rest["items"]] == ["task.completed"]
    assert rest["next"] is None


async def test_an_unknown_event_type_is_refused_instead_of_an_endless_silence(site: Any) -> None:
    status, body, _ = await site.ask("GET", "/api/events?types=task.complete")

    assert status == 400
    assert body["errors"][0]["parameter"] == "types"


async def test_a_silent_stream_gets_a_comment_between_events(open_site: Any, chat: Chat) -> None:
    site = await open_site(heartbeat=0.05)
    async with site.session.get(site.url + "/api/events") as answer:
        beginning = await answer.content.readuntil(b"\n\n")
        comment = await answer.content.readuntil(b"\n\n")

    assert b"id: " in beginning
    assert comment == b":\n\n"


async def test_whoever_goes_away_in_mid_stream_leaves_nothing_behind(open_site: Any, chat: Chat) -> None:
    site = await open_site(executor=EchoExecutor("echo", {"latency": 60}))
    made = await site.post("/api/tasks", chat())
    before = len(asyncio.all_tasks())
    for path in (f"/api/tasks/{made['id']}/stream", "/api/events", f"/api/tasks/{made['id']}?wait=300"):
        asking = asyncio.create_task(site.ask("GET", path))
        await wait_until(lambda: len(asyncio.all_tasks()) > before + 2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await wait_until(lambda: len(asyncio.all_tasks()) <= before)
    await wait_until(lambda: not site.server.server_state.connections)


async def test_streams_end_cleanly_when_the_server_stops(open_site: Any, chat: Chat) -> None:
    site = await open_site()
    async with site.session.get(site.url + "/api/events") as answer:
        await answer.content.readuntil(b"\n\n")
        site.server.stop()
        rest = await answer.content.read()

    assert rest == b""
