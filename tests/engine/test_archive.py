"""A store is carried to another: whole, without secrets, in bounded memory, and again where it was interrupted."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from places import Gated, tuned

from inferq import AsyncQueue, Queue, State
from inferq.errors import Conflict, InvalidTask, StoreError
from inferq.testing import EchoExecutor


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


SAID = said("hello")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def filled(url: str) -> AsyncQueue:
    queue = AsyncQueue(url, backends=[EchoExecutor("echo")], settings=tuned())
    await queue.start()
    done = await queue.chat("m", "the question", executor="echo", key="k", tags=["a"], metadata={"n": 1})
    await done.result(timeout=10)
    await queue.pause("echo/later")
    for priority in ("low", "high"):
        await queue.chat("later", f"{priority} work", executor="echo", priority=priority)
    await queue.schedules.put("daily", "0 9 * * *", task={"executor": "echo", "action": "chat", "model": "m", "payload": SAID})
    await queue.keys.set_limits("team-a", concurrency=3)
    await queue.keys.create("alice", role="submit")
    await queue.webhooks.put("ops", url="https://example.com/hook", headers={"Authorization": "Bearer t0ps3cret", "X-Team": "a"})
    return queue


async def test_export_import_export_is_the_same_file_and_a_second_import_adds_nothing(tmp_path: Path) -> None:
    queue = await filled(f"sqlite:///{tmp_path / 'one.db'}")
    try:
        size = await queue.archive.export(tmp_path / "one.jsonl", keys=True)
    finally:
        await queue.close()
    assert size == (tmp_path / "one.jsonl").stat().st_size
    told: list[int] = []
    async with AsyncQueue(f"sqlite:///{tmp_path / 'two.db'}", work=False) as other:
        dry = await other.archive.load(tmp_path / "one.jsonl", dry_run=True)
        assert (await other.stats()).total == 0
        made = await other.archive.load(tmp_path / "one.jsonl", told=told.append)
        again = await other.archive.load(tmp_path / "one.jsonl")
        await other.archive.export(tmp_path / "two.jsonl", keys=True)
        assert [task.spec.payload for task in (await other.list("state:pending")).tasks] != []
        assert [key.name for key in await other.keys.list()] == ["alice"]
        assert (await other.schedules.get("daily")).expression == "0 9 * * *"
        assert await other.check() == []
    assert dry.added == made.added == {"pause": 1, "record": 4, "task": 3}
    assert (again.added, again.present, again.wrong) == ({}, 8, 0)
    assert told[-1] == size
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


async def test_an_archive_holds_no_secrets_and_its_webhooks_wait_for_new_ones(tmp_path: Path) -> None:
    queue = await filled("sqlite://:memory:")
    try:
        secret = (await queue.webhooks.put("second", url="https://example.com/b")).secret
        key = (await queue.keys.create("bob")).secret
        await queue.archive.export(tmp_path / "a.jsonl")
    finally:
        await queue.close()
    text = (tmp_path / "a.jsonl").read_text()
    assert secret
    for hidden in (secret, secret.removeprefix("whsec_"), key, "t0ps3cret", "bob", "alice"):
        assert hidden not in text
    async with AsyncQueue("sqlite://:memory:", work=False) as other:
        await other.archive.load(tmp_path / "a.jsonl")
        hook = await other.webhooks.get("ops")
        assert (hook.enabled, hook.headers) == (False, {"X-Team": "a"})
        assert hook.reason == "an archive holds no secrets, it had secret, Authorization: give them with `inferq webhooks add`"
        with pytest.raises(Conflict, match="without its secret"):
            await other.webhooks.enable("ops")
        made = await other.webhooks.put("ops", url=hook.url)
        assert made.webhook.enabled
        assert made.secret is not None
        assert await other.keys.list() == []


async def test_wrong_lines_are_told_with_number_and_reason_and_the_others_are_kept() -> None:
    first = b'{"kind":"inferq","format":1}\n'
    task = {"kind": "task", "id": "a", "state": "pending", "lane": "echo/m", "priority": 5, "size": "low", "estimate": 1, "created": 1}
    spec = {"spec": {"executor": "echo", "action": "chat", "model": "m"}}
    given: list[Any] = [
        {**task, **spec},
        {**task, "id": "b", "spec": {"executor": "echo"}},
        {**task, "id": "c", **spec, "state": "running"},
        {**task, "id": "d", **spec, "batch": "none"},
        {**task, "id": "e", **spec, "finished": 3},
        {**task, "id": "f", **spec, "colour": "red"},
        {"kind": "record", "type": "worker", "id": "w", "version": 1, "created": 1, "updated": 1, "body": {}},
    ]
    async with AsyncQueue("sqlite://:memory:", work=False) as queue:
        found = await queue.archive.take(pieces(first, *(json.dumps(line).encode() + b"\n" for line in given), b"{torn"))
        assert (found.added, found.wrong, found.whole) == ({"task": 1}, 8, False)
        assert [(one.line, one.reason) for one in found.errors] == [
            (3, "spec: Object missing required field `action`"),
            (4, "state: expected no running task: an archive has them waiting"),
            (5, "its batch none is not here"),
            (6, "finished: expected no time of its end for a task that is pending"),
            (7, "Object contains unknown field `colour`"),
            (8, "Invalid enum value 'worker' - at `$.type`"),
            (9, "JSON is malformed: object keys must be strings (byte 1)"),
            (9, "the archive is cut short: expected its last line, got its end; what came is kept"),
        ]
        assert (await queue.get("a")).state is State.PENDING


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "this is no archive of inferq: it is empty"),
        (b"hello\n", "line 1: this is no archive of inferq: JSON is malformed"),
        (b'{"kind":"end","tasks":0}\n', "line 1: this is no archive"),
        (b'{"kind":"inferq","format":2}\n', "expected format 1, got 2; a newer inferq wrote it"),
    ],
)
async def test_what_is_no_archive_is_refused_as_a_whole(text: bytes, reason: str) -> None:
    async with AsyncQueue("sqlite://:memory:", work=False) as queue:
        with pytest.raises(InvalidTask, match=reason):
            await queue.archive.take(pieces(text))


async def test_an_export_sees_one_moment_although_work_goes_on(tmp_path: Path) -> None:
    async with AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", work=False) as queue:
        await queue.submit_many([{"executor": "echo", "action": "chat", "payload": said("x" * 5000)}] * 600)
        out = queue.archive.pieces()
        text = await anext(aiter(out))
        assert text.count(b"\n") < 400
        page = await queue.list(limit=600)
        await queue.cancel(*(task.id for task in page.tasks))
        await queue.submit("echo", "chat", payload=SAID)
        text += b"".join([piece async for piece in out])
    found = [json.loads(line) for line in text.splitlines()]
    assert [line["state"] for line in found if line["kind"] == "task"] == ["pending"] * 600
    assert found[-1] == {"kind": "end", "tasks": 600}


async def test_a_long_archive_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    async with AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", work=False) as queue:
        for _ in range(10):
            await queue.submit_many([{"executor": "echo", "action": "chat", "payload": said("x" * 10_000)}] * 400)
        async with AsyncQueue(f"sqlite:///{tmp_path / 'other.db'}", work=False) as other:
            tracemalloc.start()
            try:
                await queue.archive.export(tmp_path / "a.jsonl")
                found = await other.archive.load(tmp_path / "a.jsonl")
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert (tmp_path / "a.jsonl").stat().st_size > 40_000_000
    assert found.added == {"task": 4000}
    assert peak < 25_000_000


async def test_imported_work_is_done_by_a_worker_that_was_there_before(tmp_path: Path) -> None:
    gated = Gated()
    async with AsyncQueue(f"sqlite:///{tmp_path / 'a.db'}", work=False, backends=[gated]) as queue:
        handle = await queue.submit("gated", "work", payload={"name": "a"})
        await queue.archive.export(tmp_path / "a.jsonl")
    async with AsyncQueue(f"sqlite:///{tmp_path / 'b.db'}", backends=[gated], settings=tuned()) as queue:
        await queue.archive.load(tmp_path / "a.jsonl")
        gated.let_go("a")
        assert (await queue.wait(handle.id, timeout=10)).state is State.COMPLETED


def test_a_program_without_an_event_loop_does_the_same(tmp_path: Path) -> None:
    with Queue("sqlite://:memory:", work=False) as queue:
        queue.submit("echo", "chat", payload=SAID)
        queue.archive.export(tmp_path / "a.jsonl")
        with pytest.raises(StoreError, match="which exists"):
            queue.archive.export(tmp_path / "a.jsonl")
    assert [line["kind"] for line in lines(tmp_path / "a.jsonl")] == ["inferq", "task", "end"]
    with Queue("sqlite://:memory:", work=False) as queue:
        assert queue.archive.load(tmp_path / "a.jsonl").added == {"task": 1}
