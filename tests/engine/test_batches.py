"""Batches through the door: files are checked whole, kept once, resumed by key or line, watched, held, cancelled and collected in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from places import Does, Gated, tuned

from inferq import AsyncQueue, Call, InvalidTask, Queue, QueueFull, State, WaitTimeout, WrongState
from inferq.batch import BatchState, Form
from inferq.config import WebhookSettings
from inferq.door.batch_sources import pieces
from inferq.door.batches import LoadOptions
from inferq.errors import BatchExists, BatchInvalid, BatchNotFound, Reject
from inferq.store import Filter
from inferq.testing import wait_until


async def fate(call: Call) -> Any:
    if call.payload.get("fail"):
        raise Reject("as asked", failure=call.payload["fail"])
    return call.payload.get("n")


def row(n: int, **payload: Any) -> dict[str, Any]:
    return {"executor": "does", "action": "work", "payload": {"n": n, **payload}}


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
async def queue() -> AsyncIterator[AsyncQueue]:
    async with AsyncQueue("sqlite://:memory:", backends=[Does(fate)], settings=tuned()) as opened:
        yield opened


@pytest.fixture
async def idle() -> AsyncIterator[AsyncQueue]:
    """A door behind which nobody works."""
    async with AsyncQueue("sqlite://:memory:", backends=[Does(fate)], settings=tuned(), work=False) as opened:
        yield opened


async def total(queue: AsyncQueue) -> int:
    return (await queue.stats()).total


# ── coming in ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_file_becomes_a_batch_whose_results_come_in_input_order(queue: AsyncQueue, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(row(n, fail="timeout" if n == 3 else None) for n in range(1200)))
    batch = await queue.batches.from_jsonl(path, name="numbers", metadata={"a": 1})
    assert (batch.loaded.added, batch.batch.total, batch.batch.metadata) == (1200, 1200, {"a": 1})
    found = [item async for item in batch.results()]
    assert [item.line for item in found] == list(range(1, 1201))
    assert [item.result.data for item in found if item.result] == [n for n in range(1200) if n != 3]
    assert (found[3].state, found[3].code, found[3].error) == (State.FAILED, "timeout", "as asked")
    assert json.loads(found[0].to_json())["result"]["data"] == 0
    done = await batch.wait(timeout=10)
    assert (done.state, done.completed, done.failed) == (BatchState.FINISHED, 1199, 1)
    assert (await batch.errors()).by_code() == {"timeout": 1}
    assert [item.line async for item in batch.results(follow=False, after=1190)] == list(range(1191, 1201))
    assert (await queue.batches.get("numbers")).id == (await queue.batches.get(batch.id[:-2])).id == batch.id


async def test_of_a_file_with_wrong_lines_nothing_is_kept(idle: AsyncQueue) -> None:
    rows = [row(1), {"executor": "does", "action": "sing"}, row(3), {"executor": "nobody", "action": "work"}, row(5, fail=7)]
    data = lines(rows) + b'{"executor": "does", "action": "work", "payload": {"n": 1, "n": 2}}\n{"exec'
    with pytest.raises(BatchInvalid, match="4 of 7 lines are wrong, and nothing was submitted; the first: line 2: action: ") as caught:
        await idle.batches.from_jsonl(data)
    assert caught.value.count == 4
    assert [(error.number, error.field) for error in caught.value.errors] == [(2, "action"), (4, "executor"), (6, "n"), (7, "")]
    assert await total(idle) == 0
    assert await idle.batches.list() == []
    batch = await idle.batches.from_jsonl(data, skip_errors=True)
    assert (batch.loaded.added, batch.loaded.wrong, len(batch.loaded.errors)) == (3, 4, 4)
    assert [item.line for item in await idle.batches.items(batch.id)] == [1, 3, 5]


async def test_the_check_stops_after_too_many_wrong_lines(idle: AsyncQueue) -> None:
    data = lines([row(1)] + [{}] * 10_000)
    for skip in (False, True):
        with pytest.raises(BatchInvalid, match=r"more than 3 of .* lines are wrong") as caught:
            await idle.batches.from_jsonl(data, max_errors=3, skip_errors=skip)
        assert len(caught.value.errors) == 3
    assert await total(idle) == 0


@pytest.mark.parametrize("data", [b"", b"\n\n", b"[]"])
async def test_an_empty_file_is_said_to_be_empty(idle: AsyncQueue, data: bytes) -> None:
    with pytest.raises(BatchInvalid, match="got none: the input is empty"):
        await idle.batches.from_jsonl(data)
    assert await idle.batches.list() == []


async def test_a_template_makes_tasks_of_any_objects_with_priority_and_time(idle: AsyncQueue) -> None:
    data = lines({"id": n, "n": n} for n in range(3))
    async with AsyncQueue("sqlite://:memory:", settings=tuned(), work=False) as door:
        batch = await door.batches.from_jsonl(data, prompt="Say {n}", executor="echo", model="m", key="id", priority="high")
        (task, *_) = (await door.list(Filter())).tasks
        assert (task.model, task.priority, task.spec.batch) == ("m", 10, batch.id)
        assert task.spec.payload["messages"] == [{"role": "user", "content": "Say 2"}]
        assert [item.key for item in await door.batches.items(batch.id)] == ["0", "1", "2"]
    with pytest.raises(InvalidTask, match="expected a template"):
        await idle.batches.from_jsonl(data, prompt="{")


async def test_two_lines_with_one_key_are_an_error_of_the_second(idle: AsyncQueue) -> None:
    with pytest.raises(BatchInvalid) as caught:
        await idle.batches.from_jsonl(lines([{**row(1), "key": "a"}, {**row(2), "key": "a"}]))
    assert [(error.number, error.field) for error in caught.value.errors] == [(2, "key")]


async def test_a_batch_that_does_not_fit_into_the_queue_is_refused_whole(tmp_path: Path) -> None:
    settings = tuned(max_queue_size=10)
    async with AsyncQueue("sqlite://:memory:", backends=[Does(fate)], settings=settings, work=False) as queue:
        with pytest.raises(QueueFull, match="room for 11 more"):
            await queue.batches.from_jsonl(lines(map(row, range(11))))
        assert await queue.batches.list() == []
        assert (await queue.batches.from_jsonl(lines(map(row, range(10))))).loaded.added == 10


async def test_messages_of_webhooks_take_no_room_from_a_batch() -> None:
    settings = replace(tuned(max_queue_size=10), webhooks=WebhookSettings(allow_private=True))
    async with AsyncQueue("sqlite://:memory:", backends=[Does(fate)], settings=settings, work=False) as queue:
        await queue.webhooks.put("ops", url="http://127.0.0.1:9/", events=["batch.finished"])
        for _ in range(5):
            await queue.webhooks.test("ops")
        assert (await queue.batches.from_jsonl(lines(map(row, range(10))))).loaded.added == 10
        with pytest.raises(QueueFull, match="but 10 of at most 10 tasks wait"):
            await queue.batches.from_jsonl(lines(map(row, range(1))))


async def test_rows_of_a_program_come_in_while_the_batch_is_open(queue: AsyncQueue) -> None:
    batch = await queue.batches.create("open")
    assert await batch.add(map(row, range(1300))) == 1300
    assert await batch.add([{**row(7), "key": "k"}, {**row(8), "key": "k"}][:1]) == 1
    assert await batch.add([{**row(7), "key": "k"}]) == 0
    with pytest.raises(WaitTimeout):
        await batch.wait(timeout=0.2)
    with pytest.raises(BatchInvalid, match="1 of 2 lines is wrong"):
        await batch.add([row(1), {"executor": "does"}])
    await batch.seal()
    with pytest.raises(WrongState, match="sealed"):
        await batch.add([row(1)])
    assert (await batch.wait(timeout=20)).completed == 1301
    again = await queue.batches.from_rows([row(1), row(2)])
    assert [item.result.data async for item in again.results() if item.result] == [1, 2]


# ── again ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_name_is_taken_unless_it_is_resumed(idle: AsyncQueue) -> None:
    await idle.batches.from_jsonl(lines([row(1)]), name="a")
    with pytest.raises(BatchExists, match="resume it, or choose another"):
        await idle.batches.from_jsonl(lines([row(1)]), name="a")
    with pytest.raises(BatchExists):
        await idle.batches.create("a")
    again = await idle.batches.from_jsonl(lines([row(1)]), name="a", resume=True)
    assert (again.loaded.added, again.loaded.skipped, again.batch.total) == (0, 1, 1)


async def test_a_second_load_by_key_keeps_only_what_is_new(queue: AsyncQueue, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"

    async def load(ids: list[int]) -> Any:
        path.write_bytes(lines({**row(n), "key": f"k{n}"} for n in ids))
        return await queue.batches.from_jsonl(path, resume=True)

    first = await load([1, 2, 3])
    assert (await first.wait(timeout=10)).completed == 3
    grown = await load([9, 3, 2, 8, 1])
    assert grown.id == first.id
    assert (grown.loaded.added, grown.loaded.skipped) == (2, 3)
    assert (await grown.wait(timeout=10)).completed == 5
    assert [(item.line, item.key) for item in await queue.batches.items(first.id)] == [
        (1, "k1"), (2, "k2"), (3, "k3"), (4, "k9"), (7, "k8"),
    ]  # fmt: skip


async def test_without_keys_a_load_goes_on_by_line_in_the_same_file_only(idle: AsyncQueue, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(map(row, range(5))))
    first = await idle.batches.from_jsonl(path)
    other = await idle.batches.from_jsonl(path)
    assert other.id != first.id, "without resume every load is a batch of its own"
    again = await idle.batches.from_jsonl(path, resume=True)
    assert (again.id, again.loaded.added, again.loaded.skipped) == (other.id, 0, 5)
    path.write_bytes(lines(map(row, range(6))))
    with pytest.raises(InvalidTask, match="has changed since, and its lines have no keys"):
        await idle.batches.from_jsonl(path, resume=True)
    assert await total(idle) == 10


async def test_a_load_goes_on_although_the_one_before_it_was_still_under_way_without_its_caller(idle: AsyncQueue) -> None:
    begun = await idle.batches.load(pieces(lines([{**row(1), "key": "a"}])), Form(), LoadOptions(name="nightly", seal=False))

    async def meanwhile() -> AsyncIterator[bytes]:
        yield lines([{**row(1), "key": "a"}])
        await idle.batches.seal(begun.batch.id)  # the one before it has come to its end
        yield lines([{**row(2), "key": "b"}])

    again = await idle.batches.from_jsonl(meanwhile(), name="nightly", resume=True)
    assert (again.id, again.loaded.added, again.loaded.skipped, again.batch.total) == (begun.batch.id, 1, 1, 2)
    assert again.batch.sealed is not None
    await again.cancel()
    with pytest.raises(WrongState, match="it was; retry its tasks"):
        await idle.batches.from_jsonl(lines([row(3)]), name="nightly", resume=True)


async def test_another_prompt_over_the_same_file_is_another_batch(idle: AsyncQueue, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"id": 1, "n": 1}]))
    async with AsyncQueue("sqlite://:memory:", settings=tuned(), work=False) as door:
        made = [await door.batches.from_jsonl(path, prompt=text, executor="echo", key="id") for text in ("{n}?", "{n}!", "{n}?")]
    assert made[0].id == made[2].id != made[1].id
    assert [batch.loaded.added for batch in made] == [1, 1, 0]


# ── watching and changing ───────────────────────────────────────────────────────────────────────────────────────────


async def test_progress_ends_with_the_batch(queue: AsyncQueue) -> None:
    batch = await queue.batches.from_jsonl(lines(map(row, range(50))))
    seen = [step async for step in batch.progress(every=0.05)]
    assert seen[-1].batch.ended
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (50, 50, 0)
    assert [step.done for step in seen] == sorted(step.done for step in seen)


async def test_results_are_given_as_they_come(tmp_path: Path) -> None:
    place = Gated()
    async with AsyncQueue("sqlite://:memory:", backends=[place], settings=tuned()) as queue:
        batch = await queue.batches.from_rows({"executor": "gated", "action": "work", "payload": {"name": name}} for name in "abc")
        results = batch.results()
        first = asyncio.ensure_future(anext(results))
        await wait_until(lambda: place.started == ["a", "b", "c"])
        place.let_go("b")
        await wait_until(lambda: place.ended == ["b"])
        assert not first.done()
        place.let_go("a")
        assert (await asyncio.wait_for(first, 10)).line == 1
        assert (await asyncio.wait_for(anext(results), 10)).line == 2
        place.let_all_go()
        assert [item.line async for item in results] == [3]


async def test_a_paused_batch_waits_and_goes_on(idle: AsyncQueue) -> None:
    batch = await idle.batches.from_jsonl(lines(map(row, range(1100))))
    assert (await batch.pause()).state is BatchState.PAUSED
    counts = (await idle.stats()).states
    assert (counts["scheduled"], counts["pending"]) == (1100, 0)
    (item,) = await idle.batches.items(batch.id, limit=1)
    assert (await idle.get(item.task_id)).due is None
    assert "its batch is paused" in await idle.why(item.task_id)
    assert (await batch.resume()).state is BatchState.RUNNING
    assert (await idle.stats()).states["pending"] == 1100


async def test_a_cancelled_batch_is_over_and_can_be_deleted(idle: AsyncQueue) -> None:
    batch = await idle.batches.from_jsonl(lines(map(row, range(1100))), name="x")
    with pytest.raises(WrongState, match="cancel it first"):
        await batch.delete()
    cancelled = await batch.cancel("enough")
    assert (cancelled.state, cancelled.cancelled, cancelled.reason) == (BatchState.CANCELLED, 1100, "enough")
    with pytest.raises(WrongState, match="cancelled"):
        await idle.batches.from_jsonl(lines([row(1)]), name="x", resume=True)
    assert await batch.retry_failed(cancelled=True) == 1100
    await batch.cancel()
    await batch.delete()
    with pytest.raises(BatchNotFound):
        await batch.refresh()
    assert await total(idle) == 0


async def test_failed_tasks_are_made_again_by_code(queue: AsyncQueue) -> None:
    rows = [row(n, fail=("timeout", "auth", None)[n % 3]) for n in range(30)]
    batch = await queue.batches.from_jsonl(lines(rows))
    await batch.wait(timeout=10)
    assert (await batch.errors()).by_code() == {"auth": 10, "timeout": 10}
    assert await batch.retry_failed(only="timeout") == 10
    done = await batch.wait(timeout=10)
    assert (done.completed, done.failed) == (10, 20)
    assert {len(await queue.attempts(item.task_id)) for item in await queue.batches.items(batch.id) if item.code == "timeout"} == {2}


async def test_the_priority_of_what_waits_is_changed(idle: AsyncQueue) -> None:
    batch = await idle.batches.from_jsonl(lines(map(row, range(1100))))
    assert await batch.set_priority("high") == 1100
    assert (await idle.stats()).pending_by_priority == {10: 1100}


async def test_what_names_no_batch_is_said(idle: AsyncQueue) -> None:
    for wrong in ("", "nothing", "\ud800"):
        with pytest.raises(BatchNotFound):
            await idle.batches.get(wrong)
    with pytest.raises(InvalidTask, match="name"):
        await idle.batches.create("")


def test_a_program_without_an_event_loop_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row(1), row(2, fail="timeout")]))
    with Queue("sqlite://:memory:", backends=[Does(fate)], settings=tuned()) as queue:
        batch = queue.batches.from_jsonl(path)
        assert [step.total for step in batch.progress(every=0.05)][-1] == 2
        assert [item.line for item in batch.results()] == [1, 2]
        assert batch.errors().by_code() == {"timeout": 1}
        assert batch.retry_failed() == 1
        assert batch.wait(timeout=10).failed == 1
        assert [found.id for found in queue.batches.list()] == [batch.id]
        batch.delete()
        assert queue.batches.list() == []


async def test_tasks_of_a_batch_are_listed_by_the_filter_language(idle: AsyncQueue) -> None:
    first = await idle.batches.from_jsonl(lines(map(row, range(3))))
    second = await idle.batches.from_jsonl(lines(map(row, range(2))))
    await idle.cancel((await idle.batches.items(first.id, limit=1))[0].task_id)
    for query, count in (
        (f"batch:{first.id}", 3),
        (f"batch:{first.id} state:cancelled", 1),
        (f"batch:{first.id},{second.id}", 5),
        (f"-batch:{first.id}", 2),
        (f"batch:{first.id[:-4]}*", 3),
        ("batch:none", 0),
        ("batch:none*", 0),
        ("batch:*", 5),
    ):
        page = await idle.list(query)
        assert len(page.tasks) == count, query
        assert [task.seq for task in page.tasks] == sorted((task.seq for task in page.tasks), reverse=True)
