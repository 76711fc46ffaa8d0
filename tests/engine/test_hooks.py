"""Every hook of an executor is really called, at its place."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from places import HOUR, Does, Gated, failed, place

from inferq import (
    Answer,
    Call,
    Executor,
    Health,
    InvalidTask,
    Reject,
    Unavailable,
    Usage,
)


class Hooked(Executor):
    """Every hook leaves a trace; `classify` answers in the stead of one error and names another."""

    actions = ("work",)
    required: ClassVar[dict[str, tuple[str, ...]]] = {"work": ("text",)}
    needs_model = True

    def __init__(self) -> None:
        super().__init__("hooked")
        self.trace: list[str] = []

    async def open(self) -> None:
        self.trace.append("open")

    async def close(self) -> None:
        self.trace.append("close")

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        self.trace.append("validate")
        if payload["text"] == "forbidden":
            raise InvalidTask("expected another word", field="payload.text")

    def estimate(self, action: str, payload: dict[str, Any]) -> int | None:
        self.trace.append("estimate")
        return 20_000

    async def preprocess(self, call: Call) -> Call:
        self.trace.append("preprocess")
        return Call(call.task_id, call.action, call.model, {"text": call.payload["text"].upper()}, attempt=call.attempt)

    async def run(self, call: Call) -> Answer:
        self.trace.append("run")
        if call.payload["text"] == "ODD":
            raise ValueError("odd")
        if call.payload["text"] == "EMPTY":
            raise LookupError("empty")
        return Answer(text=call.payload["text"], usage=Usage(input_tokens=1, output_tokens=2))

    async def postprocess(self, call: Call, answer: Answer) -> Answer:
        self.trace.append("postprocess")
        return Answer(text=f"<{answer.text}>", usage=answer.usage)

    def classify(self, error: Exception) -> Any:
        self.trace.append("classify")
        return Answer(text="nothing") if isinstance(error, LookupError) else Reject("as classified", failure="content_filter")

    async def health(self) -> Health:
        self.trace.append("health")
        return Health(ok=True, detail="well")

    async def models(self) -> list[str]:
        return ["one", "two"]


async def test_the_hooks_are_called_in_their_order_around_a_run(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    handle = await queue.submit("hooked", "work", model="m", payload={"text": "hi"})
    result = await handle.result(timeout=10)
    assert result.text == "<HI>"
    assert result.usage == Usage(input_tokens=1, output_tokens=2)
    assert hooked.trace == ["validate", "estimate", "open", "preprocess", "run", "postprocess"]


async def test_an_executor_is_opened_once_and_closed_once(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    fields = {"executor": "hooked", "action": "work", "model": "m", "payload": {"text": "hi"}}
    await asyncio.gather(*[handle.result(timeout=10) for handle in await queue.submit_many([fields] * 20)])
    await queue.stop()
    await queue.close()
    assert (hooked.trace.count("open"), hooked.trace.count("close")) == (1, 1)


async def test_the_estimate_of_the_executor_decides_the_size_class(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    task = await (await queue.submit("hooked", "work", model="m", payload={"text": "hi"})).refresh()
    assert (task.estimate, task.flow.size) == (20_000, "medium")


async def test_validate_refuses_at_submit_and_nothing_is_kept(opened: Any) -> None:
    queue = await opened(Hooked())
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("hooked", "work", model="m", payload={"text": "forbidden"})
    assert caught.value.field == "payload.text"
    assert (await queue.stats()).total == 0


async def test_required_fields_and_the_model_are_asked_for_before_validate(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    with pytest.raises(InvalidTask) as missing:
        await queue.submit("hooked", "work", model="m", payload={})
    with pytest.raises(InvalidTask) as nameless:
        await queue.submit("hooked", "work", payload={"text": "hi"})
    assert (missing.value.field, nameless.value.field) == ("payload.text", "model")
    assert hooked.trace == []


async def test_classify_names_a_foreign_error_or_answers_in_its_stead(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    error = await failed(queue, hooked, model="m", payload={"text": "odd"})
    assert (error.failure, error.attempts) == ("content_filter", 1)
    instead = await queue.submit("hooked", "work", model="m", payload={"text": "empty"})
    assert (await instead.result(timeout=10)).text == "<nothing>"


async def test_health_and_models_are_asked_of_the_backend(opened: Any) -> None:
    hooked = Hooked()
    queue = await opened(hooked)
    (backend,) = queue.places()
    assert await backend.executor.health() == Health(ok=True, detail="well")
    assert await backend.executor.models() == ["one", "two"]


async def test_an_executor_that_cannot_be_opened_is_opened_again_by_the_next_attempt(opened: Any) -> None:
    class Sleepy(Gated):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            if self.opened < 3:
                raise Unavailable("still starting", sent=False)

    sleepy = Sleepy("sleepy")
    sleepy.let_all_go()
    queue = await opened(sleepy)
    assert (await (await queue.submit("sleepy", "work")).result(timeout=10)).attempts == 3


async def test_the_call_tells_what_was_asked(opened: Any) -> None:
    async def fine(call: Call) -> str:
        return "done"

    does = Does(fine)
    queue = await opened(place(does, kind="does"), timeout=HOUR)
    handle = await queue.submit(
        "does", "work", model="m", payload={"a": [1]}, options={"temperature": 0.5}, metadata={"who": "me"}, timeout=7, stream=False
    )
    await handle.result()
    (call,) = does.calls
    assert (call.task_id, call.action, call.model, call.attempt) == (handle.id, "work", "m", 1)
    assert (call.payload, call.options, call.metadata) == ({"a": [1]}, {"temperature": 0.5}, {"who": "me"})
    assert (call.timeout, call.stream) == (7, False)
