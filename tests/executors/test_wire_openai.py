"""OpenAI's dialect: what goes out, and what an answer's pieces come to."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Any

import pytest
from doubles.drawn import json_values, places, split
from hypothesis import given
from hypothesis import strategies as st

from inferq.executor import Call, Chunk, Usage
from inferq.wire import openai
from inferq.wire.framing import (
    MalformedError,
)


def call(action: str, payload: dict[str, Any], **rest: Any) -> Call:
    return Call("t", action, rest.pop("model", "m-1"), payload, **rest)


def test_payload_fields_win_over_options_and_unknown_fields_go_along() -> None:
    payload = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.1, "brand_new": {"x": 1}, "stream": True}
    options = {"temperature": 0.9, "top_p": 0.5, "num_predict": 7}
    asked = call("chat", payload, options=options)
    path, body = openai.request_of(asked, chat=True)
    assert path == "/chat/completions"
    assert body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.1,
        "top_p": 0.5,
        "max_tokens": 7,
        "brand_new": {"x": 1},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert payload["stream"] is True, "the call's own payload must stay as it was"
    assert options == {"temperature": 0.9, "top_p": 0.5, "num_predict": 7}


EVERY_CHAT_FIELD = {
    "messages": [{"role": "user", "content": "hi"}],
    "max_completion_tokens": 5,
    "n": 1,
    "stop": ["x"],
    "seed": 1,
    "temperature": 0.0,
    "top_p": 1.0,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "flex",
    "store": False,
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prediction": {},
    "modalities": ["text"],
    "audio": {},
    "web_search_options": {},
    "functions": [],
    "function_call": "none",
}


def test_every_documented_chat_field_reaches_the_server() -> None:
    _, body = openai.request_of(call("chat", EVERY_CHAT_FIELD), chat=True)
    assert {key: body[key] for key in EVERY_CHAT_FIELD} == EVERY_CHAT_FIELD


def test_a_chats_system_becomes_its_first_message() -> None:
    asked = call("chat", {"messages": [{"role": "user", "content": "hi"}], "system": "Be short."})
    _, body = openai.request_of(asked, chat=True)
    assert body["messages"] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}]
    assert "system" not in body


@pytest.mark.parametrize(
    ("payload", "default", "path"),
    [
        ({"prompt": "x"}, False, "/completions"),
        ({"prompt": "x"}, True, "/chat/completions"),
        ({"prompt": "x", "as_chat": True}, False, "/chat/completions"),
        ({"prompt": "x", "as_chat": False}, True, "/completions"),
        ({"prompt": "x", "system": "Be short."}, False, "/chat/completions"),
    ],
)
def test_generate_is_a_completion_unless_a_chat_is_asked_for(payload: dict[str, Any], default: bool, path: str) -> None:
    asked = call("generate", payload)
    made, body = openai.request_of(asked, chat=openai.as_chat(asked, default=default))
    assert made == path
    assert "as_chat" not in body
    assert ("prompt" in body) is (path == "/completions")
    if "messages" in body:
        assert body["messages"][-1] == {"role": "user", "content": "x"}


def test_text_is_streamed_unless_the_payload_says_no_and_embeddings_never_are() -> None:
    plain = openai.request_of(call("generate", {"prompt": "x", "stream": False, "stream_options": {}}), chat=False)[1]
    assert "stream" not in plain
    assert "stream_options" not in plain
    quiet = openai.request_of(call("generate", {"prompt": "x"}, stream=False), chat=False)[1]
    assert quiet["stream"] is True
    silent = openai.request_of(call("generate", {"prompt": "x"}), chat=False, usage=False)[1]
    assert "stream_options" not in silent
    embed = openai.request_of(call("embed", {"input": "x", "stream": True, "dimensions": 3}), chat=False)
    assert embed == ("/embeddings", {"input": "x", "dimensions": 3, "model": "m-1"})


tool_calls = st.lists(
    st.fixed_dictionaries({"id": st.uuids().map(str), "name": st.text(min_size=1, max_size=9), "arguments": st.text()}),
    max_size=3,
)


@given(st.text(), st.text(), tool_calls, places, st.sampled_from(["reasoning_content", "reasoning"]))
def test_a_stream_assembles_to_what_the_unstreamed_answer_says(
    text: str, thought: str, tools: list[dict[str, str]], at: list[int], field: str
) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": text, field: thought}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {field: ""}]
    deltas += [{field: bit} for bit in split(thought, at)] + [{"content": bit} for bit in split(text, at)]
    for index, tool in enumerate(tools):
        function = {"name": tool["name"], "arguments": tool["arguments"]}
        message.setdefault("tool_calls", []).append({"id": tool["id"], "type": "function", "function": function})
        begin = {"name": tool["name"], "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": tool["id"], "type": "function", "function": begin}]})
        for bit in split(tool["arguments"], at):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": bit}}]})
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    top = {"id": "c", "model": "m"}
    whole = openai.Assembly()
    chunks: list[Chunk] = []
    for delta in deltas:
        chunks += whole.feed({**top, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None})
    assert not whole.finished
    whole.feed({**top, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    whole.feed({**top, "choices": [], "usage": usage})
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    unstreamed = openai.answer_of({**top, "object": "chat.completion", "choices": [choice], "usage": usage})
    assert whole.finished
    assert whole.answer() == unstreamed
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "text") == text
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "thinking") == thought


def test_tool_calls_without_an_index_are_kept_apart_by_their_ids() -> None:
    whole = openai.Assembly()
    for delta in (
        {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"function": {"arguments": "}"}}]},
        {"tool_calls": [{"id": "b", "type": "function", "function": {"name": "g", "arguments": "[]"}}]},
    ):
        whole.feed({"choices": [{"delta": delta}]})
    message = whole.answer().message
    assert message is not None
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]] == [
        ("a", "f", "{}"),
        ("b", "g", "[]"),
    ]


def test_a_refusal_is_kept_apart_from_the_answer() -> None:
    whole = openai.Assembly()
    chunks = whole.feed({"choices": [{"index": 0, "delta": {"role": "assistant", "refusal": "I will"}}]})
    chunks += whole.feed({"choices": [{"index": 0, "delta": {"refusal": " not."}, "finish_reason": "stop"}]})
    answer = whole.answer()
    assert chunks == [Chunk("data", data={"refusal": "I will"}), Chunk("data", data={"refusal": " not."})]
    assert answer.text == ""
    assert answer.message == {"role": "assistant", "content": None, "refusal": "I will not."}


def test_further_choices_are_told_as_data_and_kept_in_the_raw_answer() -> None:
    whole = openai.Assembly()
    chunks: list[Chunk] = []
    for index, word in ((0, "a"), (1, "x"), (0, "b"), (1, "y")):
        chunks += whole.feed({"choices": [{"index": index, "delta": {"content": word}}]})
    whole.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    assert not whole.finished, "the second choice still goes on"
    whole.feed({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]})
    answer = whole.answer()
    assert whole.finished
    assert answer.text == "ab"
    assert [choice["message"]["content"] for choice in answer.raw["choices"]] == ["ab", "xy"]
    assert chunks[1] == Chunk("data", data={"index": 1, "delta": {"content": "x"}})


def test_log_probabilities_of_a_stream_are_joined() -> None:
    whole = openai.Assembly()
    for token in ("a", "b"):
        logprobs = {"content": [{"token": token, "logprob": -0.5}], "refusal": None}
        whole.feed({"choices": [{"index": 0, "delta": {"content": token}, "logprobs": logprobs}]})
    [choice] = whole.answer().raw["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b"]


def test_parts_of_content_are_told_as_text_and_thinking() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    assert openai.chunks_of({"content": parts}) == [Chunk("thinking", "hm"), Chunk("text", "yes")]


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5), min_size=1, max_size=4))
def test_base64_vectors_are_decoded_and_put_in_the_order_of_the_inputs(vectors: list[list[float]]) -> None:
    data = [
        {"index": index, "embedding": b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()} for index, vector in enumerate(vectors)
    ]
    answer = openai.embeddings_of({"data": data[::-1], "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    assert answer.embeddings == vectors
    assert answer.usage == Usage(input_tokens=2)
    assert answer.raw == {"model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}


@pytest.mark.parametrize("reply", [None, [], {}, {"choices": []}, {"choices": ["x"]}, {"choices": [{"message": "x"}]}, {"choices": "x"}])
def test_a_reply_that_is_no_completion_is_malformed(reply: Any) -> None:
    with pytest.raises(MalformedError):
        openai.answer_of(reply)


@pytest.mark.parametrize("data", [None, "x", ["x"], [{"embedding": "%%"}], [{"embedding": "YWI="}], [{"embedding": ["x"]}]])
def test_a_reply_that_holds_no_vectors_is_malformed(data: Any) -> None:
    with pytest.raises(MalformedError):
        openai.embeddings_of({"data": data})


@given(json_values)
def test_no_stream_object_breaks_the_assembly_with_anything_but_malformed(value: Any) -> None:
    for shape in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"index": 0, "delta": value}]}):
        whole = openai.Assembly()
        try:
            chunks = whole.feed(shape)
        except MalformedError:
            continue
        assert all(isinstance(chunk, Chunk) for chunk in chunks)
