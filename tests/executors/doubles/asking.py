"""Asking an executor as an attempt would, without a queue."""

from __future__ import annotations

from typing import Any

from inferq.executor import Answer, Call, Chunk, Executor
from inferq.executors import produce


async def ask(executor: Executor, action: str, payload: dict[str, Any], **rest: Any) -> tuple[list[Chunk], Answer]:
    """Its chunks and its answer; `rest` is what else a call has."""
    items = [item async for item in produce(executor, Call("t", action, rest.pop("model", "m-1"), payload, **rest))]
    answer = items.pop()
    assert isinstance(answer, Answer)
    return [item for item in items if isinstance(item, Chunk)], answer
