"""Guide 5: many tasks at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inferq import AsyncQueue, InvalidTask, TaskFailed, TaskResult


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
