"""Batches of a queue behind a server: the same methods, the same answers, the same errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from inferq import Client, State, WrongState
from inferq.batch import BatchState
from inferq.errors import BatchExists, BatchInvalid, BatchNotFound


def row(n: int, **payload: Any) -> dict[str, Any]:
    return {"executor": "echo", "action": "echo", "payload": {"n": n, **payload}}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


async def test_a_file_is_loaded_watched_and_collected(site: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(n, **({"fail": ["timeout"] * 9} if n == 3 else {})) for n in range(700)])
    batch = await site.client.batches.from_jsonl(path, name="numbers", metadata={"a": 1}, priority="low", fields={"max_retries": 0})
    assert (batch.loaded.added, batch.batch.metadata) == (700, {"a": 1})
    found = [item async for item in batch.results()]
    assert [item.line for item in found] == list(range(1, 701))
    assert (found[0].result.data["n"], found[3].state, found[3].code) == (0, State.FAILED, "timeout")
    done = await batch.wait(timeout=30)
    assert (done.state, done.completed, done.failed) == (BatchState.FINISHED, 699, 1)
    assert (await batch.errors()).by_code() == {"timeout": 1}
    assert [step async for step in batch.progress(every=0.1)][-1].done == 700
    assert [item.line async for item in batch.results(follow=False, after=698)] == [699, 700]
    assert [item.line for item in await site.client.batches.items("numbers", states=[State.FAILED])] == [4]
    assert await batch.retry_failed(only="timeout") == 1
    await batch.wait(timeout=30)
    assert [one.id for one in await site.client.batches.list()] == [batch.id]
    await batch.delete()
    with pytest.raises(BatchNotFound):
        await batch.refresh()


async def test_wrong_lines_come_back_as_they_are_raised_here(site: Any) -> None:
    data = json.dumps([row(1), {"executor": "echo", "action": "chat", "payload": {}}, 7]).encode()
    raised = []
    for door in (site.queue, site.client):
        with pytest.raises(BatchInvalid) as caught:
            await door.batches.from_jsonl(data)
        raised.append((str(caught.value), caught.value.errors, caught.value.count))
    assert raised[0] == raised[1]
    assert await site.client.batches.list() == []


async def test_names_keys_and_resume_work_over_http(site: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{"id": n, "q": f"q{n}"} for n in range(3)])

    async def load() -> Any:
        return await site.client.batches.from_jsonl(path, prompt="Say {q}", key="id", model="m", executor="echo")

    first = await load()
    write(path, [{"id": n, "q": f"q{n}"} for n in range(5)])
    again = await load()
    assert (again.id, again.loaded.added, again.loaded.skipped) == (first.id, 2, 3)
    assert (await again.wait(timeout=30)).completed == 5
    await site.client.batches.create("mine")
    with pytest.raises(BatchExists):
        await site.client.batches.create("mine")


async def test_rows_are_added_to_an_open_batch_and_it_is_changed(site: Any) -> None:
    batch = await site.client.batches.create()
    assert await batch.pause()
    assert await batch.add([row(n) for n in range(450)]) == 450
    assert await batch.set_priority("high") == 450
    sealed = await batch.seal()
    assert (sealed.state, sealed.waiting) == (BatchState.PAUSED, 450)
    with pytest.raises(WrongState):
        await batch.add([row(1)])
    assert (await batch.cancel("enough")).cancelled == 450
    assert await batch.retry_failed(cancelled=True) == 450
    assert (await batch.wait(timeout=30)).completed == 450


async def test_a_program_without_an_event_loop_does_the_same(site: Any, tmp_path: Path) -> None:
    def work() -> tuple[list[int], int]:
        with Client(site.url) as client:
            batch = client.batches.from_jsonl(write(tmp_path / "f.jsonl", [row(1), row(2)]))
            return [item.line for item in batch.results()], batch.wait(timeout=10).completed

    assert await asyncio.to_thread(work) == ([1, 2], 2)
