"""Streams without end, asked for in every wrong way: what Schemathesis cannot read. Each answer is a documented status; what a stream
says is whole, in order and without gap from wherever one goes on; nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from hostilekit import SseEvent, SseReader, asked, nothing_left
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inferq import Settings
from inferq.config import RetrySettings
from inferq.events import EVENT_TYPES

Open = Callable[..., Any]
Chat = Callable[..., dict[str, Any]]
EXAMPLES = 10 * int(os.environ.get("INFERQ_FUZZ", "4"))
fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)

QUICK = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))

ODD_NUMBERS = ["", "00", "+1", "-0", "-1", "1.0", "1e3", " 1", "1 ", "0x10", "1_0", "\u0661", "null", "NULL", "1,2", "NaN", "1-1-1"]
LIMITS = [str(number) for number in (2**31, 2**53 - 1, 2**53, 10**18 - 1, 10**18, 2**63 - 1, 2**63, 2**64, 10**30)]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]
FLAGS = ["true", "false", "1", "0", "yes", "", "TRUE", "2"]
numbers = st.integers(-3, 60).map(str) | st.sampled_from(ODD_NUMBERS + LIMITS) | st.text(max_size=6)
PATTERNS = ["task.*", "batch.*", "*", "task.complete", "Task.Completed", "task.", "task.*.x", "**", ",", "\0", "task_completed"]
types = st.lists(st.sampled_from([*EVENT_TYPES, *PATTERNS]) | st.text(max_size=6), max_size=3)
# A header's value may be any bytes but those that would end it.
header_bytes = st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0").strip())


def scripted(text: str, **script: Any) -> dict[str, Any]:
    """A chat whose answer is that text, with a script for the pretended model."""
    payload = {"messages": [{"role": "user", "content": "hi"}], "text": text, **script}
    return {"executor": "echo", "action": "chat", "model": "m", "payload": payload}


def encoded(query: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in query).encode()


async def documented(site: Any) -> dict[str, dict[str, set[int]]]:
    """The statuses that the API's document has for each path and method."""
    document = await site.get("/openapi.json")
    return {
        path: {method.upper(): {int(status) for status in operation.get("responses", {})} for method, operation in item.items()}
        for path, item in document["paths"].items()
    }


async def refused(answer: Any, *parameters: str) -> None:
    """It is a problem that names the parameter."""
    assert answer.status == 400, answer.status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(await answer.rest())
    if not problem["detail"].startswith("expected HTTP/1.1"):  # a header with control characters is none at all
        assert {error.get("parameter") for error in problem["errors"]} <= set(parameters), problem


# ── the event log ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def quiet(open_site: Open, chat: Chat) -> Any:
    """A server where much has happened and nothing happens any more; silence is told quickly."""
    site = await open_site(settings=QUICK, heartbeat=0.03)
    tasks = (chat("a b c"), scripted("one two three", fail=[{"cut_after": 2}, {"cut_after": 1}]), chat(delay=3600))
    site.ids = [(await site.post("/api/tasks", body))["id"] for body in tasks]
    await site.post(f"/api/tasks/{site.ids[2]}/cancel")
    lines = [scripted(f"line {number}", fail=["auth"] if number == 3 else []) for number in range(7)]
    batch = await site.queue.batches.from_rows(lines, name="seven")
    site.batch = batch.id
    await batch.wait()
    for id in site.ids:
        await site.queue.wait(id)
    site.log = await site.queue.store.events(after=0, limit=1000)
    return site


def number_of(text: str | None, otherwise: int) -> int:
    """A parameter as JSON Schema's integers are: 1.0 and 1e3 are some too."""
    return otherwise if text is None else int(Decimal(text))


def fits(kind: str, patterns: list[str]) -> bool:
    patterns = ["task.completed" if one == "task_completed" else one for one in patterns]  # as the forerunners wrote it
    return not patterns or any(kind == one or (one.endswith("*") and kind.startswith(one[:-1])) for one in patterns)


@fuzzed
@given(after=st.none() | numbers, last=st.none() | numbers.map(str.encode) | header_bytes, wanted=types)
@example(after=None, last=None, wanted=[])
@example(after="0", last=None, wanted=["task.*"])
@example(after="3", last=b"5", wanted=[])
@example(after=None, last=b"999999999999999999", wanted=[])
async def test_the_log_goes_on_after_any_place_that_is_one_and_refuses_all_else(
    quiet: Any, caplog: pytest.LogCaptureFixture, after: str | None, last: bytes | None, wanted: list[str]
) -> None:
    query = [("types", one) for one in wanted] + ([("after", after)] if after is not None else [])
    headers = [(b"Last-Event-ID", last.strip())] if last is not None else []
    async with asked(quiet, b"/api/events?" + encoded(query), *headers) as answer:
        if answer.status != 200:
            await refused(answer, "types", "after", "Last-Event-ID", "query")
            right = (after is None or after in map(str, range(60))) and not headers and all(one in EVENT_TYPES for one in wanted)
            assert not right
            return
        patterns = [part for one in wanted for part in one.split(",") if part]
        asked_place = int(last) if headers[:1] and headers[0][1] else number_of(after, len(quiet.log))
        place = min(asked_place, len(quiet.log))  # a position of another log: from now on
        expected = [event.position for event in quiet.log if event.position > place and fits(event.type, patterns)]
        reader = SseReader(answer)
        found = await reader.events(len(expected))
        assert isinstance(await reader.next(), str), "silence, and a comment that says that the line is not dead"
    assert reader.begins == str(place)
    assert [(event.id, event.data["position"]) for event in found] == [(str(position), position) for position in expected]
    if not patterns:
        assert expected == list(range(place + 1, len(quiet.log) + 1))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@fuzzed
@given(method=st.sampled_from(METHODS), accept=st.none() | header_bytes, body=st.booleans())
async def test_methods_and_media_that_a_stream_does_not_have_are_refused(quiet: Any, method: str, accept: bytes | None, body: bool) -> None:
    routes = {"/api/events": "", "/api/tasks/{id}/stream": quiet.ids[0], "/api/batches/{id}/results": quiet.batch}
    said = await documented(quiet)
    headers = [(b"Accept", accept)] if accept is not None else []
    headers += [(b"Content-Length", b"0")] if body else []
    for route, id in routes.items():
        async with asked(quiet, route.replace("{id}", id).encode(), *headers, method=method.encode()) as answer:
            right = said[route].get("GET" if method == "HEAD" else method, {204} if method == "OPTIONS" else {405})
            assert answer.status in right | {400}, (method, route, answer.status)
            assert "allow" in answer.headers or answer.status not in (204, 405)


# ── a task's stream ─────────────────────────────────────────────────────────────────────────────────────────────────

places = (
    st.tuples(st.integers(0, 5), st.integers(0, 9)).map(lambda pair: f"{pair[0]}-{pair[1]}")
    | st.tuples(st.sampled_from(LIMITS), st.sampled_from(["0", "1", *LIMITS])).map("-".join)
    | st.tuples(st.sampled_from(["0", "1"]), st.sampled_from(LIMITS)).map("-".join)
    | numbers
    | st.sampled_from(["-", "1-", "-1", "1-1-1", "a-b", "1–1", "\u0661-1", "1-999999999999", "999999999-1", " 1-1"])  # noqa: RUF001
)


async def whole_stream(site: Any, id: str) -> list[SseEvent]:
    async with asked(site, f"/api/tasks/{id}/stream".encode()) as answer:
        return await SseReader(answer).to_the_end()


def place_of(event: SseEvent) -> tuple[int, int]:
    attempt, _, index = event.id.partition("-")
    return int(attempt), int(index)


@fuzzed
@given(which=st.integers(0, 2), after=st.none() | places, last=st.none() | places.map(str.encode) | header_bytes)
@example(which=1, after=None, last=b"1-9999999999999999999999")
@example(which=0, after=None, last=b"9999999999999999999999-1")
@example(which=1, after="1-2", last=None)
async def test_a_tasks_stream_goes_on_after_any_place_that_is_one_and_refuses_all_else(
    quiet: Any, caplog: pytest.LogCaptureFixture, which: int, after: str | None, last: bytes | None
) -> None:
    whole = await whole_stream(quiet, quiet.ids[which])
    assert [place_of(event) for event in whole] == sorted({place_of(event) for event in whole})
    assert [event.data["kind"] for event in whole].count("end") == 1
    query = [("after", after)] if after is not None else []
    headers = [(b"Last-Event-ID", last.strip())] if last is not None and last.strip() else []
    async with asked(quiet, f"/api/tasks/{quiet.ids[which]}/stream?".encode() + encoded(query), *headers) as answer:
        if answer.status == 400:
            await refused(answer, "after", "Last-Event-ID", "query")
            assert headers or (after is not None and not re.fullmatch(r"[0-9]{1,9}-[0-9]{1,12}", after))
        else:
            place = headers[0][1].decode() if headers else after or "0-0"
            rest = [event for event in whole if place_of(event) > place_of(SseEvent(place, None))]
            assert answer.status == (200 if rest or place == "0-0" else 204)
            if answer.status == 200:
                assert await SseReader(answer).to_the_end() == rest
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_every_place_of_a_stream_is_one_to_go_on_from(quiet: Any) -> None:
    for id in quiet.ids:
        whole = await whole_stream(quiet, id)
        for number, event in enumerate(whole):
            async with asked(quiet, f"/api/tasks/{id}/stream".encode(), (b"Last-Event-ID", event.id.encode())) as answer:
                assert answer.status == (204 if event is whole[-1] else 200)
                if answer.status == 200:
                    assert await SseReader(answer).to_the_end() == whole[number + 1 :]


@fuzzed
@given(name=st.text(min_size=1, max_size=12).filter(lambda name: name not in (".", "..", "seven") and not name.isalnum()))
async def test_a_stream_of_nothing_is_not_found(quiet: Any, name: str) -> None:
    for path in (f"/api/tasks/{quote(name, safe='')}/stream", f"/api/batches/{quote(name, safe='')}/results"):
        async with asked(quiet, path.encode()) as answer:
            assert answer.status in (400, 404), answer.status
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.fixture
async def hasty(open_site: Open) -> Any:
    return await open_site(settings=QUICK)


@settings(fuzzed, max_examples=max(4, EXAMPLES // 10))
@given(cuts=st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=4))
async def test_readers_that_are_cut_anywhere_while_it_is_written_have_the_whole(hasty: Any, cuts: list[list[int]]) -> None:
    site = hasty
    text = " ".join(f"w{number}" for number in range(30))
    made = await site.post("/api/tasks", scripted(text, tokens_per_second=300, fail=[{"cut_after": 12}]))
    path = f"/api/tasks/{made['id']}/stream".encode()

    async def read(own: list[int]) -> list[SseEvent]:
        found: list[SseEvent] = []
        for count in own:
            after = [(b"Last-Event-ID", found[-1].id.encode())] if found else []
            async with asked(site, path, *after) as answer:
                found += await SseReader(answer).events(min(count, 5))
        after = [(b"Last-Event-ID", found[-1].id.encode())] if found else []
        async with asked(site, path, *after) as answer:
            return found + await SseReader(answer).to_the_end()

    async with nothing_left(site):
        readings = await asyncio.gather(*(read(own) for own in cuts))
    whole = await whole_stream(site, made["id"])
    assert all(found == whole for found in readings)
    kinds = [event.data["kind"] for event in whole]
    assert (kinds.count("reset"), kinds.count("end")) == (1, 1)
    again = kinds.index("reset") + 1
    assert "".join(event.data["text"] for event in whole[again:-1]) == text


async def test_a_place_that_is_still_to_come_waits_for_the_end_and_says_nothing(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat(delay=3600))
    async with nothing_left(site), asked(site, f"/api/tasks/{made['id']}/stream?after=99-1".encode()) as answer:
        reading = asyncio.create_task(SseReader(answer).to_the_end())
        await site.post(f"/api/tasks/{made['id']}/cancel")
        assert [event.data["kind"] for event in await reading] in ([], ["end"])


# ── a batch's results ───────────────────────────────────────────────────────────────────────────────────────────────


@fuzzed
@given(after=st.none() | numbers, follow=st.none() | st.sampled_from(FLAGS) | st.text(max_size=5))
@example(after="0", follow="true")
@example(after=str(2**53 - 1), follow="true")
async def test_results_go_on_after_any_line_and_refuse_all_else(quiet: Any, after: str | None, follow: str | None) -> None:
    query = ([("after", after)] if after is not None else []) + ([("follow", follow)] if follow is not None else [])
    async with asked(quiet, f"/api/batches/{quiet.batch}/results?".encode() + encoded(query)) as answer:
        if answer.status != 200:
            await refused(answer, "after", "follow", "query")
            assert (after, follow) != (None, None)
            assert not (after in map(str, range(60)) and follow in (None, "true", "false"))
            return
        assert answer.headers["content-type"] == "application/x-ndjson"
        body = await answer.rest()
    items = [json.loads(line) for line in body.splitlines()]
    assert body == b"" or body.endswith(b"\n")
    assert [item["line"] for item in items] == [line for line in range(1, 8) if line > number_of(after, 0)]
    assert all(item["state"] == ("failed" if item["line"] == 4 else "completed") for item in items)
    assert {item["result"]["executed_on"] for item in items if "result" in item} <= {"local"}


async def test_results_are_followed_to_the_end_of_a_batch_that_is_still_open(site: Any, chat: Chat) -> None:
    made = await site.queue.batches.create("open")
    async with nothing_left(site), AsyncExitStack() as stack:
        answers = [
            await stack.enter_async_context(asked(site, f"/api/batches/{made.id}/results?follow=true&after={after}".encode()))
            for after in (0, 2, 99)
        ]
        reading = [asyncio.create_task(answer.rest()) for answer in answers]
        for number in range(5):
            await site.queue.batches.add(made.id, [chat(f"{number}")])
        assert not any(one.done() for one in reading)
        await site.queue.batches.seal(made.id)
        found = [[json.loads(line)["line"] for line in (await one).splitlines()] for one in reading]
    assert found == [[1, 2, 3, 4, 5], [3, 4, 5], []]
