"""The OpenAI executor against scripted doubles (kept honest by the official SDK) and against a real model."""

from __future__ import annotations

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai as sdk
import pytest
from doubles import openai as wire
from doubles.asking import ask
from doubles.server import Double, Seen, never, says, says_text, streams

from inferq.errors import ConfigError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Call, Chunk, Usage
from inferq.executors import produce
from inferq.executors.openai import OFFICIAL, OpenAIExecutor

HI = {"messages": [{"role": "user", "content": "hi"}]}
KEY = "sk-test-0123456789"
Make = Callable[..., OpenAIExecutor]


@pytest.fixture
async def make(double: Double) -> AsyncIterator[Make]:
    """Makes executors that speak to the double, and closes them."""
    made: list[OpenAIExecutor] = []

    def _make(**settings: Any) -> OpenAIExecutor:
        executor = OpenAIExecutor("box", {"base_url": f"{double.url}/v1", **settings})
        made.append(executor)
        return executor

    yield _make
    for executor in made:
        await executor.close()


# ── what it answers ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_chat_streams_its_words_and_ends_with_the_whole_answer(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["Hel", "lo", " you"]), content_type=wire.EVENTS))
    chunks, answer = await ask(make(), "chat", HI)
    assert chunks == [Chunk("text", "Hel"), Chunk("text", "lo"), Chunk("text", " you")]
    assert (answer.text, answer.finish_reason, answer.model) == ("Hello you", "stop", "m-1")
    assert answer.message == {"role": "assistant", "content": "Hello you"}
    assert answer.usage == Usage(input_tokens=11, output_tokens=4, cached_tokens=3, reasoning_tokens=2)
    assert answer.raw["object"] == "chat.completion"
    [seen] = double.seen
    assert (seen.path, seen.json["stream"], seen.json["model"]) == ("/v1/chat/completions", True, "m-1")


async def test_pieces_may_be_cut_anywhere_even_inside_a_character(double: Double, make: Make) -> None:
    whole = b"".join(wire.chat_stream(["Grüße ", "an ", "Zoë"]))
    double.says(streams([whole[i : i + 1] for i in range(len(whole))], content_type=wire.EVENTS))
    _, answer = await ask(make(), "chat", HI)
    assert answer.text == "Grüße an Zoë"


async def test_a_line_of_megabytes_is_no_trouble(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["x" * 4_000_000, "y"]), content_type=wire.EVENTS))
    _, answer = await ask(make(), "chat", HI)
    assert answer.text == "x" * 4_000_000 + "y"


async def test_tool_calls_are_assembled_from_their_pieces(double: Double, make: Make) -> None:
    double.says(streams(wire.tool_stream(), content_type=wire.EVENTS))
    chunks, answer = await ask(make(), "chat", {**HI, "tools": [{"type": "function", "function": {"name": "weather"}}]})
    assert answer.finish_reason == "tool_calls"
    assert answer.message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    }
    assert {chunk.kind for chunk in chunks} == {"tool_calls"}


async def test_thinking_is_told_apart_from_the_answer(double: Double, make: Make) -> None:
    pieces = [wire.piece({"reasoning_content": "hm"}), wire.piece({"content": "yes"}), wire.piece({}, finish="stop"), wire.DONE]
    double.says(streams(pieces, content_type=wire.EVENTS))
    chunks, answer = await ask(make(), "chat", HI)
    assert chunks == [Chunk("thinking", "hm"), Chunk("text", "yes")]
    assert answer.text == "yes"
    assert answer.message is not None
    assert answer.message["reasoning_content"] == "hm"


async def test_an_unstreamed_chat_gives_its_text_as_one_chunk(double: Double, make: Make) -> None:
    double.says(says(wire.chat("Hello there")))
    chunks, answer = await ask(make(), "chat", {**HI, "stream": False})
    assert chunks == [Chunk("text", "Hello there")]
    assert (answer.text, answer.finish_reason) == ("Hello there", "stop")
    assert answer.raw == wire.chat("Hello there")
    assert "stream" not in double.seen[0].json


async def test_a_server_that_takes_no_notice_of_stream_is_understood(double: Double, make: Make) -> None:
    double.says(says(wire.chat("Hello there")))
    chunks, answer = await ask(make(), "chat", HI)
    assert (chunks, answer.text) == ([Chunk("text", "Hello there")], "Hello there")


async def test_generate_is_a_completion_and_as_chat_makes_it_a_chat(double: Double, make: Make) -> None:
    double.says(
        streams(wire.completion_stream(["a", "b"]), content_type=wire.EVENTS),
        streams(wire.chat_stream(["c"]), content_type=wire.EVENTS),
    )
    _, completed = await ask(make(), "generate", {"prompt": "x"})
    _, chatted = await ask(make(as_chat=True), "generate", {"prompt": "x"})
    assert (completed.text, completed.finish_reason, completed.message) == ("ab", "length", None)
    assert completed.raw["object"] == "text_completion"
    assert chatted.text == "c"
    assert [seen.path for seen in double.seen] == ["/v1/completions", "/v1/chat/completions"]


async def test_embeddings_come_as_lists_whatever_their_encoding(double: Double, make: Make) -> None:
    packed = b64encode(struct.pack("<2f", 0.5, -1.0)).decode()
    double.says(says(wire.embeddings([0.5, -1.0], [1.0, 2.0])), says(wire.embeddings(packed)))
    chunks, answer = await ask(make(), "embed", {"input": ["a", "b"]})
    assert (chunks, answer.embeddings) == ([], [[0.5, -1.0], [1.0, 2.0]])
    assert answer.usage == Usage(input_tokens=5)
    _, decoded = await ask(make(), "embed", {"input": "a", "encoding_format": "base64"})
    assert decoded.embeddings == [[0.5, -1.0]]
    assert double.seen[1].json == {"input": "a", "encoding_format": "base64", "model": "m-1"}


async def test_a_content_filter_is_a_finish_reason_and_not_an_error(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["a"], finish="content_filter"), content_type=wire.EVENTS))
    _, answer = await ask(make(), "chat", HI)
    assert answer.finish_reason == "content_filter"


# ── ends that are none ──────────────────────────────────────────────────────────────────────────────────────────────

START = wire.chat_stream(["half an", " answer"])[:3]


@pytest.mark.parametrize("end", ["clean", "cut"])
async def test_a_stream_without_end_mark_is_a_failure(double: Double, make: Make, end: str) -> None:
    double.says(streams(START, content_type=wire.EVENTS, end=end))
    with pytest.raises(Unavailable) as caught:
        await ask(make(), "chat", HI)
    assert (caught.value.failure, caught.value.sent) == ("connect", True)


async def test_a_stream_that_says_done_without_having_said_anything_is_a_failure(double: Double, make: Make) -> None:
    double.says(streams([wire.DONE], content_type=wire.EVENTS))
    with pytest.raises(Unavailable, match="without its end mark"):
        await ask(make(), "chat", HI)


@pytest.mark.parametrize("end", ["clean", "cut"])
async def test_the_last_finish_reason_is_an_end_mark_too(double: Double, make: Make, end: str) -> None:
    # Some servers send no [DONE]; an answer that is whole is not paid for twice.
    double.says(streams(wire.chat_stream(["a", "b"])[:4], content_type=wire.EVENTS, end=end))
    _, answer = await ask(make(), "chat", HI)
    assert (answer.text, answer.finish_reason, answer.usage) == ("ab", "stop", None)


async def test_an_end_mark_ends_the_call_though_the_server_keeps_the_connection(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["a"]), content_type=wire.EVENTS, end="hang"))
    async with asyncio.timeout(5):
        _, answer = await ask(make(), "chat", HI)
    assert answer.text == "a"


async def test_an_error_within_a_stream_is_classified(double: Double, make: Make) -> None:
    double.says(streams([*START, wire.event(wire.error("overloaded", code=503, type_="x"))], content_type=wire.EVENTS))
    with pytest.raises(RetryLater, match="overloaded") as caught:
        await ask(make(), "chat", HI)
    assert caught.value.failure == "overloaded"


@pytest.mark.parametrize("pieces", [[b"data: {oops\n\n"], [b"data: 5\n\n"], [b'data: {"choices": [5]}\n\n'], [b"data: \xff\n\n"]])
async def test_garbage_within_a_stream_is_a_server_error(double: Double, make: Make, pieces: list[bytes]) -> None:
    double.says(streams([*START, *pieces, wire.DONE], content_type=wire.EVENTS))
    with pytest.raises(Unavailable) as caught:
        await ask(make(), "chat", HI)
    assert caught.value.failure == "server_error"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("action", ["chat", "embed"])
async def test_a_page_of_html_under_200_is_a_server_error(double: Double, make: Make, action: str, stream: bool) -> None:
    double.says(says_text("<html><h1>Welcome</h1></html>"))
    with pytest.raises(Unavailable, match="did not answer as its API says") as caught:
        await ask(make(), action, {**HI, "input": "x", "stream": stream})
    assert caught.value.failure == "server_error"


async def test_an_answer_past_its_bound_is_refused(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["x" * 100] * 100), content_type=wire.EVENTS))
    with pytest.raises(Reject, match="more than 5000 bytes"):
        await ask(make(max_answer_bytes=5_000), "chat", HI)


@pytest.mark.parametrize("how", ["before the answer", "in the answer"])
async def test_a_cancelled_call_hangs_up_at_once(double: Double, make: Make, how: str) -> None:
    double.says(never if how == "before the answer" else streams(START, content_type=wire.EVENTS, end="hang"))
    task = asyncio.create_task(ask(make(), "chat", HI))
    await double.reached.wait()
    task.cancel()
    async with asyncio.timeout(2):
        await double.hung_up.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_reader_that_leaves_hangs_up(double: Double, make: Make) -> None:
    double.says(streams(START, content_type=wire.EVENTS, end="hang"))
    items = produce(make(), Call("t", "chat", "m-1", HI))
    assert await anext(items) == Chunk("text", "half an")
    await items.aclose()
    async with asyncio.timeout(2):
        await double.hung_up.wait()


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [True, False])
async def test_a_429_says_when_to_come_back(double: Double, make: Make, stream: bool) -> None:
    double.says(says(wire.error("slow down", code="rate_limit_exceeded"), status=429, headers={"Retry-After": "7"}))
    with pytest.raises(RetryLater, match=r"box \(http://127.0.0.1:\d+\) answered 429: slow down") as caught:
        await ask(make(), "chat", {**HI, "stream": stream})
    assert (caught.value.failure, caught.value.after) == ("rate_limited", 7.0)


async def test_a_wrong_key_fails_now_and_is_not_shown(double: Double, make: Make) -> None:
    double.says(says(wire.error(f"Incorrect API key provided: {KEY}.", code="invalid_api_key"), status=401))
    with pytest.raises(Reject) as caught:
        await ask(make(api_key=KEY), "chat", HI)
    assert caught.value.failure == "auth"
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    assert double.seen[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_a_missing_key_is_named_as_the_remedy(double: Double, make: Make) -> None:
    double.says(says(wire.error("You didn't provide an API key.", code="invalid_api_key"), status=401))
    with pytest.raises(Reject, match="set api_key or api_key_env"):
        await ask(make(), "chat", HI)


async def test_a_wrong_path_is_named_as_the_likely_cause(double: Double, make: Make) -> None:
    double.says(says_text("404 page not found", status=404, content_type="text/plain"))
    with pytest.raises(Reject, match="is the path in base_url right") as caught:
        await ask(make(), "embed", {"input": "x"})
    assert caught.value.failure == "not_found"


async def test_a_redirect_is_not_followed_with_the_key(double: Double, make: Make) -> None:
    double.says(says_text("", status=308, headers={"Location": "https://models.example/v1/x"}))
    with pytest.raises(Reject, match="set base_url to the final address"):
        await ask(make(api_key=KEY), "chat", HI)
    assert len(double.seen) == 1


async def test_nobody_listening_is_unavailable_and_surely_not_sent(make: Make, free_port: int) -> None:
    executor = make(base_url=f"http://127.0.0.1:{free_port}/v1")
    with pytest.raises(Unavailable, match="cannot connect") as caught:
        await ask(executor, "chat", HI)
    assert (caught.value.failure, caught.value.sent) == ("connect", False)
    health = await executor.health()
    assert not health.ok
    assert "cannot connect" in health.detail


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_key_is_needed_and_then_none_is_sent(double: Double, make: Make) -> None:
    double.says(says(wire.chat()))
    await ask(make(), "chat", HI)
    assert "Authorization" not in double.seen[0].headers


async def test_the_environments_key_goes_only_where_it_was_meant_to(double: Double, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    double.says(says(wire.chat()))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    await ask(make(), "chat", HI)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{double.url}/v1/")
    await ask(make(base_url=None), "chat", HI)
    await ask(make(api_key="from-settings"), "chat", HI)
    sent = [seen.headers.get("Authorization") for seen in double.seen]
    assert sent == [None, f"Bearer {KEY}", "Bearer from-settings"]


async def test_a_key_can_be_named_by_its_variable(double: Double, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    double.says(says(wire.chat()))
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    await ask(make(api_key_env="MY_KEY", organization="org-1", project="p-1", headers={"X-More": "1"}), "chat", HI)
    headers = double.seen[0].headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"], headers["X-More"]) == ("org-1", "p-1", "1")
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(Reject, match="no key in environment variable MY_KEY") as caught:
        await ask(make(api_key_env="MY_KEY"), "chat", HI)
    assert caught.value.failure == "auth"
    assert len(double.seen) == 1


def test_without_settings_it_is_openai_itself() -> None:
    assert OpenAIExecutor("openai").client.base_url == OFFICIAL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "127.0.0.1:8000/v1"}, "setting 'base_url': expected an address such as"),
        ({"bse_url": "http://x"}, "unknown setting 'bse_url'"),
        ({"connect_timeout": "soon"}, "connect_timeout"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenAIExecutor("box", settings)


@pytest.mark.parametrize(
    ("action", "payload", "field"),
    [
        ("chat", {"messages": []}, "payload.messages"),
        ("chat", {"messages": [{"role": "bot", "content": "x"}]}, "payload.messages[0].role"),
        ("chat", {**HI, "system": 5}, "payload.system"),
        ("chat", {**HI, "tools": {}}, "payload.tools"),
        ("chat", {**HI, "stream": "yes"}, "payload.stream"),
        ("generate", {"prompt": 5}, "payload.prompt"),
        ("generate", {"prompt": ["a", "b"], "as_chat": True}, "payload.prompt"),
        ("generate", {"prompt": "a", "as_chat": False, "system": "b"}, "payload.system"),
        ("embed", {"input": []}, "payload.input"),
        ("embed", {"input": "x", "dimensions": True}, "payload.dimensions"),
    ],
)
def test_a_wrong_payload_is_refused_by_its_field(action: str, payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        OpenAIExecutor("box").validate(action, "m-1", payload)
    assert caught.value.field == field


def test_every_form_that_the_api_knows_is_accepted() -> None:
    executor = OpenAIExecutor("box")
    accepted = [
        ("chat", {"messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": [{"type": "text"}]}]}),
        ("generate", {"prompt": "x"}),
        ("generate", {"prompt": ["x", "y"]}),
        ("generate", {"prompt": [1, 2]}),
        ("embed", {"input": [[1, 2], [3]], "never_heard_of": 1}),
    ]
    refused = []
    for action, payload in accepted:
        try:
            executor.validate(action, "m-1", payload)
        except InvalidTask as error:
            refused.append((payload, str(error)))
    assert refused == []


# ── the official SDK as judge ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_reads_the_doubles_as_we_do(double: Double, make: Make) -> None:
    stream = streams(wire.tool_stream(), content_type=wire.EVENTS)
    words = streams(wire.chat_stream(["Hel", "lo"]), content_type=wire.EVENTS)
    double.says(stream, words, says(wire.chat()), says(wire.embeddings([0.5, 1.0])))
    async with sdk.AsyncOpenAI(base_url=f"{double.url}/v1", api_key=KEY, max_retries=0) as client:
        async with client.chat.completions.stream(model="m-1", messages=HI["messages"]) as events:
            tools = await events.get_final_completion()
        async with client.chat.completions.stream(model="m-1", messages=HI["messages"]) as events:
            said = await events.get_final_completion()
        whole = await client.chat.completions.create(model="m-1", messages=HI["messages"])
        vectors = await client.embeddings.create(model="m-1", input="x", encoding_format="float")
    double.says(stream, words)
    _, our_tools = await ask(make(), "chat", HI)
    _, our_words = await ask(make(), "chat", HI)
    judged = tools.choices[0].message.tool_calls or []
    assert our_tools.message is not None
    assert [(c.id, c.function.name, c.function.arguments) for c in judged] == [
        (c["id"], c["function"]["name"], c["function"]["arguments"]) for c in our_tools.message["tool_calls"]
    ]
    assert (said.choices[0].message.content, said.usage and said.usage.total_tokens) == (our_words.text, 15)
    assert sdk.types.chat.ChatCompletion.model_validate(our_words.raw, strict=True).choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == "Hello there"
    assert vectors.data[0].embedding == [0.5, 1.0]


async def test_we_ask_what_the_official_sdk_asks(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["a"]), content_type=wire.EVENTS))
    fields: dict[str, Any] = {**HI, "temperature": 0.5, "max_tokens": 3, "stop": ["x"]}
    async with sdk.AsyncOpenAI(base_url=f"{double.url}/v1", api_key=KEY, max_retries=0) as client:
        usage: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model="m-1", stream=True, stream_options=usage, **fields)
        assert [event async for event in stream]
    await ask(make(api_key=KEY), "chat", fields)
    theirs, ours = double.seen

    def essence(seen: Seen) -> Any:
        return seen.method, seen.path, seen.json, seen.headers["Authorization"], seen.headers["Content-Type"]

    assert essence(theirs) == essence(ours)


# ── a real model ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def real(llm_url: str) -> AsyncIterator[OpenAIExecutor]:
    executor = OpenAIExecutor("smol", {"base_url": llm_url})
    yield executor
    await executor.close()


@pytest.mark.e2e
async def test_a_real_model_chats_in_a_stream(real: OpenAIExecutor) -> None:
    chunks, answer = await ask(real, "chat", HI, options={"max_tokens": 8, "temperature": 0})
    assert chunks
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert answer.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.input_tokens
    assert answer.usage.output_tokens


@pytest.mark.e2e
async def test_a_real_model_answers_the_same_streamed_or_not(real: OpenAIExecutor) -> None:
    options = {"max_tokens": 8, "temperature": 0, "seed": 1}
    _, plain = await ask(real, "chat", {**HI, "stream": False}, options=options)
    _, streamed = await ask(real, "chat", HI, options=options)
    assert plain.text
    assert streamed.text
    assert (streamed.finish_reason, streamed.usage and streamed.usage.total_tokens is not None) == (plain.finish_reason, True)
    assert plain.message is not None
    assert set(plain.message) == set(streamed.message or {})


@pytest.mark.e2e
async def test_a_real_model_completes_and_embeds(real: OpenAIExecutor) -> None:
    _, completed = await ask(real, "generate", {"prompt": "Once upon a time", "max_tokens": 6})
    _, embedded = await ask(real, "embed", {"input": ["one", "two"], "encoding_format": "base64"})
    _, plain = await ask(real, "embed", {"input": ["one", "two"]})
    assert completed.text
    assert embedded.embeddings is not None
    assert plain.embeddings is not None
    assert [len(vector) for vector in embedded.embeddings] == [576, 576]
    for packed, listed in zip(embedded.embeddings, plain.embeddings, strict=True):
        assert packed == pytest.approx(listed, abs=1e-4)


@pytest.mark.e2e
async def test_a_real_server_keeps_to_a_schema(real: OpenAIExecutor) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}, "required": ["name"]}
    shape = {"type": "json_schema", "json_schema": {"name": "who", "schema": schema}}
    _, answer = await ask(real, "chat", {**HI, "response_format": shape}, options={"max_tokens": 60})
    assert answer.text is not None
    assert answer.finish_reason != "stop" or set(json.loads(answer.text)) == {"name"}


@pytest.mark.e2e
async def test_a_real_server_says_that_a_prompt_is_too_long(real: OpenAIExecutor) -> None:
    with pytest.raises(Reject, match="context size") as caught:
        await ask(real, "chat", {"messages": [{"role": "user", "content": "word " * 4_000}]})
    assert caught.value.failure == "context_length"


@pytest.mark.e2e
async def test_a_real_server_is_healthy_and_lists_its_model(real: OpenAIExecutor) -> None:
    assert (await real.health()).ok
    assert await real.models() == ["smollm2-135m-instruct"]


@pytest.mark.e2e
async def test_a_real_server_frees_its_slot_when_a_call_is_cancelled(real: OpenAIExecutor) -> None:
    items = produce(real, Call("t", "generate", "m", {"prompt": "Count:", "max_tokens": 1_500, "ignore_eos": True}))
    assert isinstance(await anext(items), Chunk)
    await items.aclose()
    root = real.client.base_url.removesuffix("/v1")
    busy = True
    async with asyncio.timeout(30):
        while busy:
            slots = json.loads((await real.client.request("GET", f"{root}/slots")).body)
            busy = any(slot["is_processing"] for slot in slots)
    assert len(slots) == 2


@pytest.mark.e2e
async def test_many_calls_in_turn_meet_no_closed_connection(real: OpenAIExecutor) -> None:
    answers = []
    for _ in range(8):
        answers.append(await ask(real, "generate", {"prompt": "a", "max_tokens": 1}))
        answers.append(await ask(real, "chat", {**HI, "stream": False, "max_tokens": 1}))
        answers.append(await ask(real, "embed", {"input": "a"}))
    assert len(answers) == 24
