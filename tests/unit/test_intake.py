"""Bad input is refused with a typed error that names the field, and nothing of it is kept."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from inferq import AsyncQueue, InvalidTask, Settings, Submission
from inferq.config import StoreSettings
from inferq.errors import PayloadTooLarge, UnknownAction, UnknownExecutor
from inferq.executor import Call, Executor
from inferq.intake import MAX_DEPTH
from inferq.testing import EchoExecutor

LIMIT = 100_000


class Modelled(Executor):
    """Needs a model and one field."""

    actions = ("work",)
    required: ClassVar[dict[str, tuple[str, ...]]] = {"work": ("text",)}
    needs_model = True

    async def run(self, call: Call) -> Any:
        return call.payload


def _settings() -> Settings:
    return Settings(store=StoreSettings(max_payload_bytes=LIMIT))


@pytest.fixture
async def queue() -> AsyncIterator[AsyncQueue]:
    """A queue that only keeps."""
    backends = [EchoExecutor("echo"), Modelled("modelled")]
    async with AsyncQueue("sqlite://:memory:", backends=backends, settings=_settings(), work=False) as opened:
        yield opened


async def assert_empty(queue: AsyncQueue) -> None:
    assert (await queue.stats()).total == 0
    assert await queue.store.last_event() == 0
    assert (await queue.store.heads())[0] == []


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def hello(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **more}


# ── what submit refuses ─────────────────────────────────────────────────────────────────────────────────────────────

WRONG_PAYLOADS = [
    pytest.param({"a": math.nan}, "payload.a", id="NaN"),
    pytest.param({"a": [1, -math.inf]}, "payload.a[1]", id="infinity in a list"),
    pytest.param({"a": {"b": "x\x00y"}}, "payload.a.b", id="NUL"),
    pytest.param({"a\x00": 1}, "payload (key)", id="NUL in a key"),
    pytest.param({"a": "\ud800"}, "payload.a", id="lone surrogate"),
    pytest.param({"\udfff": 1}, "payload (key)", id="lone surrogate in a key"),
    pytest.param({"a": nested(MAX_DEPTH)}, "payload.a" + "[0]" * (MAX_DEPTH - 1), id="too deep"),
    pytest.param({"a": nested(100_000)}, "payload.a" + "[0]" * (MAX_DEPTH - 1), id="far too deep"),
    pytest.param({"a": 2**64}, "payload.a", id="an integer past 64 bits"),
    pytest.param({"a": -(2**63) - 1}, "payload.a", id="an integer below 64 bits"),
    pytest.param({1: "a"}, "payload", id="a key that is no text"),
    pytest.param({"a": object()}, "payload.a", id="an object"),
    pytest.param({"a": b"bytes"}, "payload.a", id="bytes"),
    pytest.param({"a": {1, 2}}, "payload.a", id="a set"),
    pytest.param({"a": datetime.now(UTC)}, "payload.a", id="a datetime"),
    pytest.param([1, 2], "payload", id="a list"),
    pytest.param("text", "payload", id="a text"),
    pytest.param(7, "payload", id="a number"),
]


@pytest.mark.parametrize(("payload", "field"), WRONG_PAYLOADS)
async def test_a_payload_that_json_would_lose_or_garble_is_refused(queue: AsyncQueue, payload: Any, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("echo", "echo", payload=payload)
    assert caught.value.field == field
    assert str(caught.value).startswith(field), "the message begins with the place"
    assert caught.value.status == 400
    await assert_empty(queue)


@pytest.mark.parametrize("where", ["options", "metadata"])
@pytest.mark.parametrize(
    "wrong", [math.nan, "\x00", "\ud800", object(), nested(MAX_DEPTH)], ids=["NaN", "NUL", "surrogate", "object", "deep"]
)
async def test_options_and_metadata_are_judged_like_the_payload(queue: AsyncQueue, where: str, wrong: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("echo", "echo", **{where: {"a": wrong}})
    assert caught.value.field.startswith(f"{where}.a")
    await assert_empty(queue)


WRONG_FIELDS = [
    pytest.param({"priority": True}, "priority", id="priority true"),
    pytest.param({"priority": "urgent"}, "priority", id="priority of an unknown name"),
    pytest.param({"priority": 1.5}, "priority", id="priority that is no integer"),
    pytest.param({"priority": None}, "priority", id="priority none"),
    pytest.param({"priority": 2**63}, "priority", id="priority past 64 bits"),
    pytest.param({"at": datetime(2030, 1, 1)}, "at", id="a time without its zone"),  # noqa: DTZ001 - the fault
    pytest.param({"deadline": datetime(2030, 1, 1)}, "deadline", id="a deadline without its zone"),  # noqa: DTZ001 - the fault
    pytest.param({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 5}, "at", id="at and delay"),
    pytest.param({"delay": "soon"}, "delay", id="a delay that is no duration"),
    pytest.param({"delay": -1}, "delay", id="a negative delay"),
    pytest.param({"delay": math.inf}, "delay", id="an endless delay"),
    pytest.param({"delay": 1e300}, "delay", id="a delay beyond any calendar"),
    pytest.param({"delay": [5]}, "delay", id="a delay of another type"),
    pytest.param({"timeout": 0}, "timeout", id="no time at all"),
    pytest.param({"timeout": math.nan}, "timeout", id="timeout NaN"),
    pytest.param({"timeout": True}, "timeout", id="timeout true"),
    pytest.param({"idle_timeout": "never"}, "idle_timeout", id="idle_timeout of an unknown word"),
    pytest.param({"max_retries": -1}, "max_retries", id="fewer than no retries"),
    pytest.param({"max_retries": True}, "max_retries", id="max_retries true"),
    pytest.param({"max_retries": 1.5}, "max_retries", id="half a retry"),
    pytest.param({"key": ""}, "key", id="an empty key"),
    pytest.param({"key": 5}, "key", id="a key that is no text"),
    pytest.param({"key": "k" * 513}, "key", id="a key of more than 512 characters"),
    pytest.param({"key": "a\x00b"}, "key", id="NUL in the key"),
    pytest.param({"key": "\ud800"}, "key", id="lone surrogate in the key"),
    pytest.param({"model": 5}, "model", id="a model that is no text"),
    pytest.param({"model": "m\x00"}, "model", id="NUL in the model"),
    pytest.param({"model": "\ud800"}, "model", id="lone surrogate in the model"),
    pytest.param({"tenant": 5}, "tenant", id="a tenant that is no text"),
    pytest.param({"tenant": "\x00"}, "tenant", id="NUL in the tenant"),
    pytest.param({"backend": "nowhere"}, "backend", id="a backend that is not there"),
    pytest.param({"backend": 5}, "backend", id="a backend that is no text"),
    pytest.param({"tags": [5]}, "tags[0]", id="a tag that is no text"),
    pytest.param({"tags": ["a", "b\x00"]}, "tags[1]", id="NUL in a tag"),
    pytest.param({"tags": "urgent"}, "tags", id="tags that are one text"),
    pytest.param({"tags": 5}, "tags", id="tags that are a number"),
    pytest.param({"at_most_once": 1}, "at_most_once", id="at_most_once that is no truth value"),
    pytest.param({"stream": "yes"}, "stream", id="stream that is no truth value"),
    pytest.param({"options": [1]}, "options", id="options that are a list"),
    pytest.param({"metadata": 5}, "metadata", id="metadata that is a number"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG_FIELDS)
async def test_a_wrong_field_is_named(queue: AsyncQueue, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("echo", "chat", payload=hello(), **fields)
    assert caught.value.field == field
    await assert_empty(queue)


WRONG_TARGETS = [
    pytest.param(("nobody", "chat"), UnknownExecutor, "executor", id="unknown executor"),
    pytest.param(("", "chat"), UnknownExecutor, "executor", id="no executor"),
    pytest.param(("echo", "sing"), UnknownAction, "action", id="unknown action"),
    pytest.param(("echo", ""), UnknownAction, "action", id="no action"),
    pytest.param(("echo", 5), InvalidTask, "action", id="an action that is no text"),
    pytest.param(("modelled", "work"), InvalidTask, "model", id="no model where one is needed"),
]


@pytest.mark.parametrize(("target", "kind", "field"), WRONG_TARGETS)
async def test_what_nobody_here_can_run_is_refused(queue: AsyncQueue, target: Any, kind: type, field: str) -> None:
    with pytest.raises(kind) as caught:
        await queue.submit(*target, payload=hello(text="x"))
    assert caught.value.field == field
    await assert_empty(queue)


async def test_an_unknown_name_says_what_is_known(queue: AsyncQueue) -> None:
    with pytest.raises(UnknownExecutor, match="echo, modelled"):
        await queue.submit("ekho", "chat", payload=hello())
    with pytest.raises(UnknownAction, match="chat, generate, embed, echo"):
        await queue.submit("echo", "chatt", payload=hello())


async def test_a_required_field_that_is_missing_is_named(queue: AsyncQueue) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.submit("modelled", "work", model="m", payload={})
    assert caught.value.field == "payload.text"
    await assert_empty(queue)


WRONG_CHATS = [
    pytest.param([], "payload.messages", id="no messages"),
    pytest.param([5], "payload.messages[0]", id="a message that is a number"),
    pytest.param(["hello"], "payload.messages[0]", id="a message that is a text"),
    pytest.param(5, "payload.messages", id="messages that are a number"),
    pytest.param(None, "payload.messages", id="messages that are none"),
    pytest.param({"role": "user", "content": "hi"}, "payload.messages", id="one message without its list"),
]


@pytest.mark.parametrize(("messages", "field"), WRONG_CHATS)
async def test_a_chat_without_usable_messages_is_refused(queue: AsyncQueue, messages: Any, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.chat("m", messages, executor="echo")
    assert caught.value.field == field
    await assert_empty(queue)


@pytest.mark.parametrize("wrong", [5, None, {"a": 1}], ids=["a number", "none", "an object"])
async def test_an_embedding_of_no_text_is_refused(queue: AsyncQueue, wrong: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.embed("m", wrong, executor="echo")
    assert caught.value.field.startswith("payload.input")
    await assert_empty(queue)


async def test_a_payload_past_the_bound_is_refused_and_one_within_it_kept(queue: AsyncQueue) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        await queue.submit("echo", "echo", payload={"a": "x" * LIMIT})
    assert (caught.value.field, caught.value.status, caught.value.code) == ("payload", 413, "payload_too_large")
    assert "100,000 bytes" in str(caught.value)
    await assert_empty(queue)
    handle = await queue.submit("echo", "echo", payload={"a": "x" * (LIMIT - 1_000)})
    assert len((await handle.refresh()).spec.payload["a"]) == LIMIT - 1_000


async def test_the_bound_counts_bytes_not_characters(queue: AsyncQueue) -> None:
    with pytest.raises(PayloadTooLarge):
        await queue.submit("echo", "echo", payload={"a": "🦆" * (LIMIT // 3)})


async def test_fifty_megabytes_are_refused_by_default() -> None:
    async with AsyncQueue("sqlite://:memory:", backends=[EchoExecutor("echo")], settings=Settings(), work=False) as queue:
        with pytest.raises(PayloadTooLarge):
            await queue.submit("echo", "echo", payload={"a": "x" * 50_000_000})
        await assert_empty(queue)


# ── mappings, as from a file or a request ───────────────────────────────────────────────────────────────────────────

WRONG_MAPPINGS = [
    pytest.param({"executor": "echo"}, "action", id="no action"),
    pytest.param({"action": "echo"}, "executor", id="no executor"),
    pytest.param({"executor": "echo", "action": "echo", "prioritty": 5}, "prioritty", id="a field that does not exist"),
    pytest.param({"executor": "echo", "action": "echo", "priority": True}, "priority", id="priority true"),
    pytest.param({"executor": "echo", "action": "echo", "payload": "x"}, "payload", id="a payload that is a text"),
    pytest.param({"executor": "echo", "action": "echo", "payload": {"a": math.nan}}, "payload.a", id="NaN"),
    pytest.param({"executor": "echo", "action": "echo", "timeout": "soon"}, "timeout", id="a timeout that is no duration"),
    pytest.param({"executor": "echo", "action": "echo", "size": "huge"}, "size", id="an unknown size"),
    pytest.param({"executor": "echo", "action": "echo", "estimate": -1}, "estimate", id="a negative estimate"),
    pytest.param({"executor": "echo", "action": "echo", "scheduled_at": 2**63}, "scheduled_at", id="a time past 64 bits"),
    pytest.param({"executor": "echo", "action": "echo", "id": "mine"}, "id", id="an id of one's own"),
    pytest.param({"executor": "echo", "action": "echo", "state": "completed"}, "state", id="a state of one's own"),
    pytest.param({"executor": "echo", "action": "echo", "created": 1}, "created", id="a date of one's own"),
    pytest.param(5, "", id="a number"),
    pytest.param([1], "", id="a list"),
    pytest.param(None, "", id="none"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG_MAPPINGS)
async def test_one_wrong_mapping_refuses_all_and_is_named_by_its_place(queue: AsyncQueue, wrong: Any, field: str) -> None:
    good = {"executor": "echo", "action": "echo"}
    with pytest.raises(InvalidTask) as caught:
        await queue.submit_many([good, wrong, good])
    place = f"submissions[1].{field}" if field else "submissions[1]"
    assert caught.value.field == place
    assert str(caught.value).startswith(place)
    await assert_empty(queue)


@pytest.mark.parametrize("index", [0, 1])
async def test_a_wrong_submission_is_named_by_its_place_wherever_it_stands(queue: AsyncQueue, index: int) -> None:
    given = [Submission("echo", "echo"), Submission("echo", "echo")]
    given[index] = Submission("echo", "echo", payload={"a": math.nan})
    with pytest.raises(InvalidTask) as caught:
        await queue.submit_many(given)
    assert caught.value.field == f"submissions[{index}].payload.a"


async def test_a_priority_may_be_a_name_in_a_mapping_too(queue: AsyncQueue) -> None:
    (handle,) = await queue.submit_many([{"executor": "echo", "action": "echo", "priority": "critical"}])
    assert (await handle.refresh()).priority == 15


async def test_text_is_streamed_unless_the_mapping_says_otherwise(queue: AsyncQueue) -> None:
    base = {"executor": "echo", "payload": hello(input="x")}
    made = await queue.submit_many([base | {"action": "chat"}, base | {"action": "embed"}, base | {"action": "chat", "stream": False}])
    assert [(await handle.refresh()).spec.stream for handle in made] == [True, False, False]


async def test_nothing_but_a_mapping_or_submission_is_changed_by_submitting(queue: AsyncQueue) -> None:
    mine = {"executor": "echo", "action": "echo", "priority": "high", "payload": {"a": [1]}}
    before = json.dumps(mine)
    await queue.submit_many([mine, mine])
    assert json.dumps(mine) == before
