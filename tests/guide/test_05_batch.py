"""Guide 5: many tasks at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, BatchInvalid, InvalidTask, TaskFailed, TaskResult


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A task as JSON would say it."""
    return {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": text}], **more}}


async def test_submit_all_wait_for_all_results_in_order(queue: AsyncQueue) -> None:
    results = await queue.batch([chat("one"), chat("two"), chat("three")])
    assert [result.text for result in results if isinstance(result, TaskResult)] == ["one", "two", "three"]


async def test_a_failure_stands_in_its_place_and_spoils_nothing(queue: AsyncQueue) -> None:
    good, bad = await queue.batch([chat("one"), chat("two", fail=["bad_request"])])
    assert isinstance(good, TaskResult)
    assert isinstance(bad, TaskFailed)
    assert bad.failure == "bad_request"


async def test_or_go_on_at_once_and_be_told(queue: AsyncQueue) -> None:
    finished: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    handles = await queue.batch_in_background([chat("one"), chat("two")], finished.set_result)
    assert len(handles) == 2
    assert [result.text for result in await finished] == ["one", "two"]


async def test_one_mistake_and_nothing_is_submitted(queue: AsyncQueue) -> None:
    with pytest.raises(InvalidTask, match=r"submissions\[1\]"):
        await queue.submit_many([chat("one"), chat("two") | {"priority": "urgent"}])
    assert (await queue.stats()).total == 0


async def test_the_same_key_is_the_same_task_so_asking_twice_costs_once(queue: AsyncQueue) -> None:
    first = await queue.chat("my-model", "hi", executor="echo", key="order-4711")
    second = await queue.chat("my-model", "hi", executor="echo", key="order-4711")
    assert first.id == second.id


async def test_a_file_of_any_length_is_a_batch_with_a_name(queue: AsyncQueue, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"id": n, "question": f"What is {n}?"}) + "\n" for n in range(100)))

    batch = await queue.batches.from_jsonl(questions, prompt="{question} Be brief.", key="id", executor="echo", model="m")
    answers = {item.key: item.result.text async for item in batch.results() if item.result}  # in input order, as they come

    assert answers["42"] == "What is 42? Be brief."
    assert (await batch.wait()).completed == 100


async def test_running_it_again_adds_what_is_new(queue: AsyncQueue, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    for count in (3, 5):
        questions.write_text("".join(json.dumps({"id": n, "question": f"What is {n}?"}) + "\n" for n in range(count)))
        batch = await queue.batches.from_jsonl(questions, prompt="{question}", key="id", executor="echo", model="m")
    assert (batch.loaded.added, batch.loaded.skipped) == (2, 3)


async def test_a_wrong_line_is_named_and_nothing_is_submitted(queue: AsyncQueue) -> None:
    with pytest.raises(BatchInvalid) as caught:
        await queue.batches.from_rows([chat("one"), chat("two") | {"priority": "urgent"}])
    assert [(error.number, error.field) for error in caught.value.errors] == [(2, "priority")]
    assert (await queue.stats()).total == 0
