"""Whatever is asked wrongly: a queue here and the same queue behind a server raise the same error, with the same words and attributes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from io import StringIO
from typing import Any

import pytest

from inferq import InferqError
from inferq.door import AsyncDoor

BAD_LINES = b'{"executor": "echo", "action": "echo"}\n{bad\n{"executor": "echo"}\n'
Ask = Callable[[AsyncDoor], Awaitable[Any]]

ASKED: dict[str, Ask] = {
    "attempts of nobody": lambda door: door.attempts("nobody"),
    "events before the beginning": lambda door: anext(door.events(after=-1)),
    "events after a text": lambda door: anext(door.events(after="x")),  # type: ignore[arg-type]  # the mistake
    "an operation without a filter": lambda door: door.operations.start("cancel", ""),
    "an operation with a wrong filter": lambda door: door.operations.start("cancel", "stat:done"),
    "an unknown operation": lambda door: door.operations.start("zap", "tag:x"),  # type: ignore[arg-type]  # the mistake
    "an operation without its priority": lambda door: door.operations.start("priority", "tag:x"),
    "a webhook with a wrong filter": lambda door: door.webhooks.put("ops", url="https://ops.example", query="a:b"),
    "a key with an unknown role": lambda door: door.keys.create("x", role="boss"),  # type: ignore[arg-type]  # the mistake
    "a page of no lines": lambda door: door.batches.items("b", limit=0),
    "a page of no batches": lambda door: door.batches.list(limit=0),
    "wrong lines": lambda door: door.batches.from_jsonl(BAD_LINES),
    "more wrong lines than are borne": lambda door: door.batches.from_jsonl(BAD_LINES, max_errors=1),
    "a file opened as text": lambda door: door.batches.from_jsonl(StringIO("{}")),  # type: ignore[arg-type]  # the mistake
    "a schedule of no time": lambda door: door.schedules.preview("@daily", after=datetime(2026, 1, 1)),  # noqa: DTZ001 - the mistake
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_a_mistake_is_the_same_error_here_and_there(site: Any, ask: Ask) -> None:
    await site.queue.batches.create("b")
    with pytest.raises(InferqError) as here:
        await ask(site.queue)
    with pytest.raises(InferqError) as there:
        await ask(site.client)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert attributes(there.value) == attributes(here.value)


def attributes(error: InferqError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name not in ("request_id", "code", "status")}
