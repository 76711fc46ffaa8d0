"""The echo executor does exactly what it was told: answers, speeds and every way to fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any

import pytest

from inferq.errors import FAILURE_CODES, ConfigError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Chunk
from inferq.executors import perform, produce
from inferq.executors.echo import EchoExecutor


def chat(words: str = "hello big world", /, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], **fields}


def call(payload: dict[str, Any], action: str = "chat", **more: Any) -> Call:
    return Call("t1", action, "", payload, **more)


async def played(executor: EchoExecutor, asked: Call) -> tuple[list[Chunk], Answer]:
    items = [item async for item in produce(executor, asked)]
    chunks = [item for item in items if isinstance(item, Chunk)]
    answer = items[-1]
    assert isinstance(answer, Answer)
    return chunks, answer


async def test_chat_streams_the_last_message_word_by_word() -> None:
    chunks, answer = await played(EchoExecutor("echo"), call(chat()))
    assert [chunk.text for chunk in chunks] == ["hello ", "big ", "world"]
    assert answer.text == "hello big world"
    assert answer.message == {"role": "assistant", "content": "hello big world"}
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)


async def test_streamed_chunks_join_to_the_text_that_an_unwatched_call_gets() -> None:
    payload = chat("  odd   spacing\n\tand tabs ")
    chunks, streamed = await played(EchoExecutor("echo"), call(payload))
    none, whole = await played(EchoExecutor("echo"), call(payload, stream=False))
    assert none == []
    assert "".join(chunk.text for chunk in chunks) == streamed.text == whole.text == payload["messages"][0]["content"]


def test_a_call_that_nobody_watches_takes_the_cheap_way_without_a_generator() -> None:
    made = EchoExecutor("echo").run(call(chat(), stream=False))
    assert isinstance(made, Awaitable)
    assert not isinstance(made, AsyncIterator)
    made.close()  # type: ignore[attr-defined]  # it is a coroutine: unawaited ones warn


async def test_the_payload_may_say_what_to_answer_and_in_how_many_chunks() -> None:
    chunks, answer = await played(EchoExecutor("echo"), call(chat(text="a b", tokens=5)))
    assert [chunk.text for chunk in chunks] == ["a ", "b ", "a ", "b ", "a "]
    assert answer.text == "a b a b a "


async def test_settings_are_the_defaults_and_the_payload_wins() -> None:
    executor = EchoExecutor("slow", {"text": "from settings", "tokens": 2})
    assert (await played(executor, call(chat())))[1].text == "from settings "
    assert (await played(executor, call(chat(text="mine", tokens=1))))[1].text == "mine "


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["max_tokens", "num_predict"])
async def test_a_token_limit_cuts_the_answer_and_says_so(*, name: str, stream: bool) -> None:
    _, answer = await played(EchoExecutor("echo"), call(chat(), options={name: 2}, stream=stream))
    assert (answer.text, answer.finish_reason) == ("hello big ", "length")


async def test_thinking_comes_before_the_text() -> None:
    chunks, _ = await played(EchoExecutor("echo"), call(chat(thinking="hm")))
    assert [chunk.kind for chunk in chunks] == ["thinking", "text", "text", "text"]


async def test_message_parts_count_with_their_text() -> None:
    payload = {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url"}]}]}
    assert (await played(EchoExecutor("echo"), call(payload)))[1].text == "see"


async def test_generate_answers_with_its_prompt() -> None:
    _, answer = await played(EchoExecutor("echo"), call({"prompt": "once upon"}, "generate"))
    assert (answer.text, answer.message) == ("once upon", None)


async def test_echo_gives_its_payload_back() -> None:
    _, answer = await played(EchoExecutor("echo"), call({"any": [1, {"x": None}]}, "echo"))
    assert answer.data == {"any": [1, {"x": None}]}


async def test_equal_texts_have_equal_unit_vectors_and_others_differ() -> None:
    executor = EchoExecutor("echo")
    _, answer = await played(executor, call({"input": ["a", "b", "a"], "dimensions": 32}, "embed"))
    assert answer.embeddings is not None
    first, second, third = answer.embeddings
    assert first == third != second
    assert len(first) == 32
    assert math.isclose(sum(value * value for value in first), 1.0)


async def test_latency_and_speed_take_their_time_before_and_between_chunks() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    items = produce(EchoExecutor("echo"), call(chat(latency=0.05, tokens_per_second=50, tokens=3)))
    times = [loop.time() - begun async for item in items if isinstance(item, Chunk)]
    assert times[0] >= 0.05
    assert times[2] >= 0.05 + 3 / 50


WAIT = {"rate_limited", "overloaded"}
AGAIN = {"connect", "server_error", "timeout", "lost"}


@pytest.mark.parametrize("code", sorted(FAILURE_CODES - {"internal"}))
async def test_every_failure_code_can_be_produced_in_its_retry_class(code: str) -> None:
    kind = RetryLater if code in WAIT else Unavailable if code in AGAIN else Reject
    with pytest.raises(kind) as caught:
        await played(EchoExecutor("echo"), call(chat(fail=[{"code": code}])))
    assert caught.value.failure == code


async def test_internal_is_an_exception_that_no_executor_would_raise_on_purpose() -> None:
    with pytest.raises(RuntimeError):
        [item async for item in perform(EchoExecutor("echo"), call(chat(fail=["internal"])))]


async def test_a_wait_carries_the_scripted_hint_and_a_lost_connection_whether_it_was_sent() -> None:
    with pytest.raises(RetryLater) as wait:
        await played(EchoExecutor("echo"), call(chat(fail=[{"code": "quota_exhausted", "after": 65}])))
    assert (wait.value.after, wait.value.failure) == (65, "quota_exhausted")
    with pytest.raises(Unavailable) as again:
        await played(EchoExecutor("echo"), call(chat(fail=[{"code": "connect", "sent": False}])))
    assert again.value.sent is False


async def test_the_fate_follows_the_attempts_number_and_nothing_else() -> None:
    payload = chat(fail=["connect", "ok", "bad_request"])
    with pytest.raises(Unavailable):
        await played(EchoExecutor("echo"), call(payload, attempt=1))
    with pytest.raises(Reject):
        await played(EchoExecutor("echo"), call(payload, attempt=3))
    for attempt in (2, 4):
        assert (await played(EchoExecutor("another"), call(payload, attempt=attempt)))[1].text == "hello big world"


@pytest.mark.parametrize(("fate", "failure"), [({"cut_after": 2}, "server_error"), ({"fail_after": 2, "code": "overloaded"}, "overloaded")])
async def test_a_stream_can_break_after_some_chunks(fate: dict[str, Any], failure: str) -> None:
    items = produce(EchoExecutor("echo"), call(chat(fail=[fate])))
    assert await anext(items) == Chunk("text", "hello ")
    assert await anext(items) == Chunk("text", "big ")
    with pytest.raises((Unavailable, RetryLater)) as caught:
        await anext(items)
    assert caught.value.failure == failure


@pytest.mark.parametrize(("fate", "chunks"), [("hang", 0), ({"hang_after": 2}, 2)])
async def test_a_hanging_call_ends_when_it_is_cancelled(fate: object, chunks: int) -> None:
    seen = []

    async def watch() -> None:
        async with aclosing(produce(EchoExecutor("echo"), call(chat(fail=[fate])))) as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 - what came before the silence matters

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch(), 0.05)
    assert len(seen) == chunks


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"messages": []}, "payload.messages"),
        ({"messages": "hi"}, "payload.messages"),
        ({"messages": ["hi"]}, "payload.messages[0]"),
        (chat(latency="slow"), "payload.latency"),
        (chat(latency=-1), "payload.latency"),
        (chat(tokens=-1), "payload.tokens"),
        (chat(fail=["never"]), "payload.fail[0]"),
        (chat(fail=[{"kode": "connect"}]), "payload.fail[0].kode"),
        (chat(fail=[None, {"code": "nope"}]), "payload.fail[1].code"),
    ],
)
def test_a_wrong_script_is_refused_with_the_fields_name(payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        EchoExecutor("echo").validate("chat", "", payload)
    assert caught.value.field == field


def test_wrong_settings_are_refused_when_the_backend_is_made() -> None:
    with pytest.raises(ConfigError, match=r"slow.*latency"):
        EchoExecutor("slow", {"latency": "much"})
    with pytest.raises(ConfigError, match="latncy"):
        EchoExecutor("slow", {"latncy": 1})
