"""Guide 8: an executor of one's own. One method makes it work; the rest are hooks that are called when they are there.

A program hands its executors to its queue. A server finds them as entry points of installed packages (docs/executors.md), and a line
`over_http = true` in the backend's configuration opens them to whoever may submit (docs/security.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from inferq import Answer, AsyncQueue, Call, Chunk, Executor, InvalidTask, RetryLater, Unavailable


@pytest.fixture
def backends() -> list[Executor]:
    """As in `AsyncQueue(url, backends=[Shout("shout"), Spell("spell")])`; the name is the one that tasks use."""
    return [Shout("shout"), Spell("spell"), Moody("moody")]


class Shout(Executor):
    """The least: say which actions there are, and run them."""

    actions = ("shout",)
    required: ClassVar[dict[str, tuple[str, ...]]] = {"shout": ("text",)}

    async def run(self, call: Call) -> Any:
        return {"text": call.payload["text"].upper()}


async def test_a_coroutine_that_returns_json_is_an_executor(queue: AsyncQueue) -> None:
    task = await queue.submit("shout", "shout", payload={"text": "hello"})
    assert (await task.result()).data == {"text": "HELLO"}
    with pytest.raises(InvalidTask, match=r"payload\.text"):
        await queue.submit("shout", "shout", payload={})


class Spell(Executor):
    """A generator streams: chunks, and last the answer."""

    actions = ("spell",)

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        word = call.payload["word"]
        for letter in word:
            yield Chunk("text", letter)
        yield Answer(text=word)


async def test_a_generator_streams(queue: AsyncQueue) -> None:
    task = await queue.submit("spell", "spell", payload={"word": "queue"}, stream=True)
    assert [letter async for letter in task.text_stream()] == ["q", "u", "e", "u", "e"]


class Moody(Executor):
    """Errors say what should happen next."""

    actions = ("ask",)

    async def run(self, call: Call) -> str:
        if call.attempt == 1:
            raise RetryLater("come back later", after=0.01)  # burns nothing
        if call.attempt == 2:
            raise Unavailable("the line broke")  # burns a retry
        return "well then"


async def test_an_executors_errors_decide_what_follows(queue: AsyncQueue) -> None:
    task = await queue.submit("moody", "ask")
    assert (await task.result()).data == "well then"
    assert [record.outcome for record in await queue.attempts(task.id)] == ["released", "retry", "completed"]
