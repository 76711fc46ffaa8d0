"""The forerunners' batches: what their file, their commands and their shapes promised."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from inferq import AsyncQueue
from inferq.errors import BatchInvalid
from inferq.task import PRIORITIES

Opener = Callable[..., Awaitable[AsyncQueue]]

ENTRIES: dict[str, dict[str, Any]] = {
    "chat": {"type": "chat", "model": "m", "system": "Be brief", "messages": [{"role": "user", "content": "hi"}]},
    "generate": {"type": "generate", "model": "m", "prompt": "Once", "stream": True},
    "embed": {"type": "embed", "model": "m", "input": ["a", "b"]},
}


def file(*entries: Any) -> bytes:
    return json.dumps(entries).encode()


async def test_an_array_of_the_three_types_is_answered_in_order(opened: Opener) -> None:
    queue = await opened()
    batch = await queue.batches.from_jsonl(file(*ENTRIES.values()), executor="echo")
    items = [item async for item in batch.results()]
    assert [(item.action, item.model, item.state) for item in items] == [(kind, "m", "completed") for kind in ENTRIES]
    assert items[0].result is not None
    assert items[0].result.text == "hi"
    assert items[2].result is not None
    assert len(items[2].result.embeddings or ()) == 2


@pytest.mark.parametrize("priority", [None, *PRIORITIES, 7])
async def test_priority_is_a_name_a_number_or_left_out(opened: Opener, priority: str | int | None) -> None:
    queue = await opened(work=False)
    entry = ENTRIES["chat"] | ({} if priority is None else {"priority": priority})
    await queue.batches.from_jsonl(file(entry), executor="echo")
    (task,) = [task async for task in queue.iterate()]
    assert task.priority == (5 if priority is None else PRIORITIES.get(str(priority), 7))


@pytest.mark.parametrize(("kind", "field"), [("chat", "messages"), ("generate", "prompt"), ("embed", "input")])
async def test_each_type_needs_its_field_and_nothing_of_the_file_is_submitted_without_it(opened: Opener, kind: str, field: str) -> None:
    queue = await opened(work=False)
    broken = {name: value for name, value in ENTRIES[kind].items() if name != field}
    with pytest.raises(BatchInvalid) as caught:
        await queue.batches.from_jsonl(file(*ENTRIES.values(), broken, {"type": "sing"}), executor="echo")
    assert [(error.number, error.field) for error in caught.value.errors] == [(4, field), (5, "type")]
    assert (await queue.stats()).total == 0


async def test_a_cancelled_task_counts_as_ended_so_that_waiting_ends(opened: Opener) -> None:
    queue = await opened(work=False)
    batch = await queue.batches.from_jsonl(file(*ENTRIES.values()), executor="echo")
    for item in await queue.batches.items(batch.id):
        await queue.cancel(item.task_id)
    done = await batch.wait(timeout=10)
    assert (done.state, done.cancelled) == ("finished", 3)
    assert [item.state async for item in batch.results()] == ["cancelled"] * 3


async def test_a_batch_takes_what_the_openai_api_takes(opened: Opener) -> None:
    queue = await opened()
    rows = [
        {
            "custom_id": f"r-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": ENTRIES["chat"]["messages"]},
        }
        for n in range(3)
    ]
    batch = await queue.batches.from_jsonl(b"\n".join(json.dumps(row).encode() for row in rows), executor="echo")
    assert [(item.key, item.state) async for item in batch.results()] == [(f"r-{n}", "completed") for n in range(3)]
