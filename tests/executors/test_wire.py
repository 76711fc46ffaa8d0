"""Framing, dialects, checks and failures: pure functions, so mostly properties and tables."""

from __future__ import annotations

import itertools
import json
import struct
from base64 import b64encode
from email.utils import formatdate
from typing import Any

import ollama as ollama_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import FAILURE_CODES, ExecutorError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Call, Chunk, Usage
from inferq.wire import checks, ollama, openai
from inferq.wire.failures import failure_in_stream, failure_of, hidden, retry_after
from inferq.wire.framing import (
    DONE,
    EventReader,
    JsonLines,
    LineReader,
    LineTooLongError,
    MalformedError,
    ServerEvent,
    write_comment,
    write_data,
    write_event,
    write_json_line,
)

NOW = 1_800_000_000.0
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces, cut at these places (taken modulo the length)."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def call(action: str, payload: dict[str, Any], **rest: Any) -> Call:
    return Call("t", action, rest.pop("model", "m-1"), payload, **rest)


# ── framing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

places = st.lists(st.integers(0, 10_000), max_size=20)
# Every line end that the standard knows; an event's name and id must stay on their line.
event_texts = st.lists(st.tuples(st.text(), st.text().filter(lambda t: not set("\r\n\0") & set(t))), min_size=1, max_size=5)


@given(event_texts, places, st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_survive_writing_any_line_end_and_any_cut(texts: list[tuple[str, str]], at: list[int], end: str) -> None:
    written = b"".join(write_event(data, event=name) for data, name in texts)
    written = written.replace(b"\n", end.encode())
    reader = EventReader()
    read = [event for piece in cut(written, at) for event in reader.feed(piece)]
    lines = [(data.replace("\r\n", "\n").replace("\r", "\n"), name) for data, name in texts]
    assert read == [ServerEvent(data, name) for data, name in lines]


@given(st.binary(), places)
def test_where_bytes_are_cut_never_changes_the_events(data: bytes, at: list[int]) -> None:
    whole, pieces = EventReader(), EventReader()
    assert whole.feed(data) == [event for piece in cut(data, at) for event in pieces.feed(piece)]


@given(st.lists(json_values, max_size=8), places, st.booleans())
def test_json_lines_survive_writing_and_any_cut(values: list[Any], at: list[int], terminated: bool) -> None:
    written = b"".join(map(write_json_line, values))
    if not terminated:
        written = written.removesuffix(b"\n")
    reader = JsonLines()
    read = [value for piece in cut(written, at) for value in reader.feed(piece)]
    assert read + reader.end() == values


@given(st.binary(), places)
def test_where_bytes_are_cut_never_changes_the_lines(data: bytes, at: list[int]) -> None:
    reader = LineReader()
    read = [line for piece in cut(data, at) for line in reader.feed(piece)]
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    assert read + reader.end() == (expected if expected[-1] else expected[:-1])


def test_an_event_stream_is_read_as_the_standard_says() -> None:
    text = "\ufeff: a comment\ndata: one\ndata:two\nid: 7\nretry: 250\nevent: note\n\ndata\n\nnodata: x\n\ndata: cut off"
    events = EventReader().feed(text.encode())
    assert events == [ServerEvent("one\ntwo", "note", "7", 250), ServerEvent("")]


def test_comments_and_values_are_written_so_that_readers_skip_or_read_them() -> None:
    reader = EventReader()
    events = reader.feed(write_comment("queued 3\nsecond line") + write_data({"a": "é\n"}) + DONE)
    assert [event.data for event in events] == ['{"a":"é\\n"}', "[DONE]"]


def test_an_event_name_with_a_line_break_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="on one line"):
        write_event("x", event="a\nb")


def test_a_line_of_several_megabytes_is_read_and_one_past_the_bound_refused() -> None:
    long = {"text": "x" * 5_000_000}
    reader = JsonLines()
    pieces = cut(write_json_line(long), list(range(0, 5_000_000, 65_536)))
    assert [value for piece in pieces for value in reader.feed(piece)] == [long]
    bounded = EventReader(max_line=1_000)
    bounded.feed(b"data: " + b"x" * 600)
    with pytest.raises(LineTooLongError, match="more than 1000 bytes"):
        bounded.feed(b"x" * 600)
    with pytest.raises(LineTooLongError):
        EventReader(max_line=1_000).feed(b"data: " + b"x" * 900 + b"\ndata: " + b"y" * 900 + b"\n\n")


@pytest.mark.parametrize("line", [b"{\n", b'{"a": \xff\xfe}\n', b"[" * 20_000 + b"\n", b"<html>\n"])
def test_a_line_that_is_not_json_is_named_as_such(line: bytes) -> None:
    with pytest.raises(MalformedError):
        JsonLines().feed(line)


# ── OpenAI ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def split(text: str, at: list[int]) -> list[str]:
    marks = sorted({place % (len(text) + 1) for place in at} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(marks)]


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


# ── Ollama ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost:8080", "http://localhost", "https://models.example", "https://models.example:8443/ollama"),
        *("models.example/prefix", "[::1]", "[::1]:9000", "http://[::1]:9000/", "models.example:56789/"),
    ],
)
def test_ollama_host_is_read_as_the_official_client_reads_it(host: str) -> None:
    from ollama._client import _parse_host

    assert ollama.base_url_of(host) == _parse_host(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("[::]:8000", "http://[::1]:8000"),
        (":8000", "http://127.0.0.1:8000"),
        (" http://0.0.0.0:1/ ", "http://127.0.0.1:1"),
    ],
)
def test_an_address_to_listen_on_is_turned_into_one_to_call(host: str, url: str) -> None:
    assert ollama.base_url_of(host) == url


@pytest.mark.parametrize("host", ["ftp://x", "localhost:port", "http://[::1", "localhost:99999"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        ollama.base_url_of(host)


def test_ollama_options_are_merged_and_fields_that_do_not_belong_there_are_moved() -> None:
    payload = {"messages": [{"role": "user", "content": "hi"}], "system": "Short.", "options": {"seed": 1}, "new": 1}
    options = {"seed": 2, "num_ctx": 512, "max_tokens": 9, "keep_alive": "5m", "think": False}
    path, body = ollama.request_of(call("chat", payload, options=options))
    assert path == "/api/chat"
    assert body == {
        "model": "m-1",
        "messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "hi"}],
        "options": {"seed": 1, "num_ctx": 512, "num_predict": 9},
        "keep_alive": "5m",
        "think": False,
        "new": 1,
        "stream": True,
    }
    assert payload["options"] == {"seed": 1}, "the call's own payload must stay as it was"


EVERY_GENERATE_FIELD = {
    "prompt": "x",
    "suffix": "y",
    "system": "s",
    "template": "{{ .Prompt }}",
    "context": [1, 2],
    "raw": False,
    "images": ["aGk="],
    "format": "json",
    "keep_alive": -1,
    "think": "low",
    "logprobs": True,
    "top_logprobs": 2,
    "width": 64,
    "height": 64,
    "steps": 2,
    "options": {"temperature": 0.5},
}
EVERY_EMBED_FIELD = {"input": ["a"], "truncate": False, "dimensions": 8, "keep_alive": "1m", "options": {"num_ctx": 9}}


@pytest.mark.parametrize(("action", "fields"), [("generate", EVERY_GENERATE_FIELD), ("embed", EVERY_EMBED_FIELD)])
def test_every_documented_ollama_field_reaches_the_server(action: str, fields: dict[str, Any]) -> None:
    _, body = ollama.request_of(call(action, fields))
    assert {key: body[key] for key in fields} == fields
    sdk = ollama_sdk.GenerateResponse if action == "generate" else ollama_sdk.EmbedResponse
    assert sdk is not None
    known = {"generate": ollama_sdk._types.GenerateRequest, "embed": ollama_sdk._types.EmbedRequest}[action]
    assert set(known.model_fields) - {"model", "stream"} <= set(fields), "the official client knows a field that we do not"


@given(st.text(), st.text(), places)
def test_ollama_lines_assemble_to_what_the_unstreamed_answer_says(text: str, thought: str, at: list[int]) -> None:
    top = {"model": "m", "created_at": "2026-01-02T03:04:05Z"}
    end = {"done": True, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 4}
    tool = {"function": {"name": "f", "arguments": {"a": 1}}}
    streamed, plain = ollama.Assembly(), ollama.Assembly()
    chunks: list[Chunk] = []
    for bit in split(thought, at):
        chunks += streamed.feed({**top, "message": {"role": "assistant", "content": "", "thinking": bit}, "done": False})
    for bit in split(text, at):
        chunks += streamed.feed({**top, "message": {"role": "assistant", "content": bit}, "done": False})
    chunks += streamed.feed({**top, "message": {"role": "assistant", "content": "", "tool_calls": [tool]}, "done": False})
    assert not streamed.finished
    streamed.feed({**top, "message": {"role": "assistant", "content": ""}, **end})
    message = {"role": "assistant", "content": text, "thinking": thought, "tool_calls": [tool]}
    plain.feed({**top, "message": message, **end})
    assert streamed.finished
    assert streamed.answer() == plain.answer()
    assert streamed.answer().usage == Usage(input_tokens=3, output_tokens=4)
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "text") == text
    assert [chunk.data for chunk in chunks if chunk.kind == "tool_calls"] == [[tool]]


@pytest.mark.parametrize(
    ("reason", "tools", "ours"),
    [("stop", False, "stop"), ("length", False, "length"), ("stop", True, "tool_calls"), ("load", False, "load"), ("", False, None)],
)
def test_ollamas_done_reason_is_told_in_openais_words(reason: str, tools: bool, ours: str | None) -> None:
    assert ollama.finish_reason(reason, tool_calls=tools) == ours


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def error(message: str, **rest: Any) -> bytes:
    return json.dumps({"error": {"message": message, **rest}}).encode()


TOO_LONG = "request (9031 tokens) exceeds the available context size (2048 tokens), try increasing it"
TOO_LARGE = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 42000."
FAILURES: list[tuple[int, dict[str, str], bytes, type[ExecutorError], str, float | None]] = [
    (429, {"retry-after": "7"}, error("slow down", code="rate_limit_exceeded"), RetryLater, "rate_limited", 7.0),
    (429, {"retry-after-ms": "250", "retry-after": "7"}, b"", RetryLater, "rate_limited", 0.25),
    (429, {"retry-after": formatdate(NOW + 30, usegmt=True)}, b"", RetryLater, "rate_limited", 30.0),
    (429, {}, b"", RetryLater, "rate_limited", None),
    (429, {}, error("Please try again in 1.2s."), RetryLater, "rate_limited", 1.2),
    (429, {}, error("x", status="RESOURCE_EXHAUSTED", details=[{"retryDelay": "34s"}]), RetryLater, "rate_limited", 34.0),
    (429, {"retry-after": "7"}, error("quota", code="insufficient_quota"), Reject, "quota_exhausted", None),
    (429, {}, error("You have reached your spend limit"), Reject, "quota_exhausted", None),
    (429, {}, error(TOO_LARGE, code="rate_limit_exceeded"), Reject, "context_length", None),
    (402, {}, b"", Reject, "quota_exhausted", None),
    (503, {}, error("Loading model", type="unavailable_error", code=503), RetryLater, "overloaded", None),
    (503, {}, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', RetryLater, "overloaded", None),
    (503, {"retry-after": "3"}, b"maintenance", RetryLater, "overloaded", 3.0),
    (503, {}, b"<html>Service Unavailable</html>", Unavailable, "overloaded", None),
    (529, {}, error("Overloaded", type="overloaded_error"), RetryLater, "overloaded", None),
    (498, {}, error("x", code="capacity_exceeded"), RetryLater, "overloaded", None),
    (500, {}, b'{"error":"server busy, please try again"}', RetryLater, "overloaded", None),
    (500, {}, error("The server had an error"), Unavailable, "server_error", None),
    (502, {}, b"<html><body>Bad Gateway</body></html>", Unavailable, "server_error", None),
    (504, {}, b"", Unavailable, "server_error", None),
    (501, {}, error("This server does not support embeddings"), Reject, "bad_request", None),
    (408, {}, b"", Unavailable, "timeout", None),
    (409, {}, b"", Unavailable, "server_error", None),
    (401, {}, error("Invalid API Key", type="authentication_error"), Reject, "auth", None),
    (400, {}, b'[{"error":{"code":400,"message":"API key not valid."}}]', Reject, "auth", None),
    (403, {}, error("Country not supported"), Reject, "permission", None),
    (404, {}, b'{"error":"model \'x\' not found, try pulling it first"}', Reject, "model_not_found", None),
    (404, {}, error("The model `x` does not exist or you do not have access to it."), Reject, "model_not_found", None),
    (404, {}, error("nope", code="model_not_found"), Reject, "model_not_found", None),
    (404, {}, b"404 page not found", Reject, "not_found", None),
    (400, {}, error("x is not a valid model ID"), Reject, "model_not_found", None),
    (400, {}, error(TOO_LONG, type="exceed_context_size_error", code=400), Reject, "context_length", None),
    (400, {}, error("too long", code="context_length_exceeded"), Reject, "context_length", None),
    (400, {}, error("This model's maximum context length is 4096 tokens."), Reject, "context_length", None),
    (500, {}, error("input is too large to process. increase the physical batch size"), Reject, "context_length", None),
    (400, {}, error("blocked", code="content_filter"), Reject, "content_filter", None),
    (400, {}, error("x", innererror={"code": "ResponsibleAIPolicyViolation"}), Reject, "content_filter", None),
    (400, {}, error("messages: field required"), Reject, "bad_request", None),
    (422, {}, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', Reject, "bad_request", None),
    (413, {}, b"", Reject, "bad_request", None),
    (301, {"location": "https://x"}, b"", Reject, "bad_request", None),
]


@pytest.mark.parametrize(("status", "headers", "body", "kind", "failure", "after"), FAILURES)
def test_each_refusal_gets_its_class_and_code(
    status: int, headers: dict[str, str], body: bytes, kind: type[ExecutorError], failure: str, after: float | None
) -> None:
    made = failure_of(status, headers, body, now=NOW, source="b")
    assert (type(made), made.failure) == (kind, failure), str(made)
    assert getattr(made, "after", None) == (pytest.approx(after, abs=0.001) if after is not None else None)
    assert str(made).startswith(f"b answered {status}: ")


@pytest.mark.parametrize(
    ("value", "kind", "failure"),
    [
        ({"error": {"message": "Loading model", "code": 503}}, RetryLater, "overloaded"),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, RetryLater, "rate_limited"),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, Reject, "quota_exhausted"),
        ({"error": {"message": "x", "code": "context_length_exceeded", "type": "invalid_request_error"}}, Reject, "context_length"),
        ({"error": "an unknown error was encountered while running the model"}, Unavailable, "server_error"),
        ({"error": "model 'x' not found"}, Reject, "model_not_found"),
        ({"error": {"message": "x", "type": "server_error"}}, Unavailable, "server_error"),
    ],
)
def test_an_error_in_the_midst_of_a_stream_is_classified_like_any_other(value: Any, kind: type[ExecutorError], failure: str) -> None:
    made = failure_in_stream(value, source="b")
    assert (type(made), made.failure) == (kind, failure), str(made)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(NOW - 60, usegmt=True)}, 0.0),
        ({"retry-after": "9" * 30}, 86_400.0),
        ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "6m0s"}, 0.012),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
            },
            360.0,
        ),
        ({"x-ratelimit-reset-tokens": "-1"}, None),
        ({"x-ratelimit-reset": str(int(NOW) + 20)}, 20.0),
        ({"x-ratelimit-reset": str(int(NOW + 20) * 1000)}, 20.0),
        ({"x-ratelimit-reset-requests": "2027-01-15T08:00:05Z"}, 5.0),
        ({}, None),
    ],
)
def test_hints_to_wait_are_read_in_all_their_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == (pytest.approx(seconds) if seconds is not None else None)


hint_names = st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-reset", "date"])


@given(st.integers(300, 599), st.dictionaries(hint_names, st.text()), st.binary() | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_refusal_is_beyond_classification(status: int, headers: dict[str, str], body: bytes) -> None:
    made = failure_of(status, headers, body, now=NOW, source="b")
    assert made.failure in FAILURE_CODES
    assert len(str(made)) <= 540
    if isinstance(made, RetryLater):
        assert made.after is None or 0 <= made.after <= 86_400


@given(st.text(max_size=2_000), st.text(min_size=6, max_size=40).map(str.strip).filter(lambda s: len(s) >= 6 and "*" not in s))
def test_a_secret_never_survives_in_a_message(text: str, secret: str) -> None:
    shown = hidden(text + secret + text, [secret])
    assert secret not in shown
    assert len(shown) <= 500


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WRONG_MESSAGES: list[tuple[Any, str]] = [
    (None, "payload.messages"),
    ([], "payload.messages"),
    ("hi", "payload.messages"),
    ({"role": "user"}, "payload.messages"),
    (["hi"], "payload.messages[0]"),
    ([{"content": "x"}], "payload.messages[0].role"),
    ([{"role": "user", "content": "x"}, {"role": "bot", "content": "x"}], "payload.messages[1].role"),
    ([{"role": "user"}], "payload.messages[0].content"),
    ([{"role": "user", "content": 5}], "payload.messages[0].content"),
    ([{"role": ["user"], "content": "x"}], "payload.messages[0].role"),
    ([{"role": "user", "content": "x", "images": "aGk="}], "payload.messages[0].images"),
    ([{"role": "user", "content": "x", "images": ["aGk=", "%"]}], "payload.messages[0].images[1]"),
]


@pytest.mark.parametrize(("messages", "field"), WRONG_MESSAGES)
def test_wrong_messages_are_refused_with_the_place_of_the_fault(messages: Any, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        checks.check_messages({"messages": messages}, roles=ollama.ROLES, images=True)
    assert caught.value.field == field
    assert "expected" in str(caught.value)


def test_messages_that_say_something_without_text_are_accepted() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "", "tool_name": "f"},
    ]
    payload = {"messages": messages}
    checks.check_messages(payload, roles=ollama.ROLES, images=True)
    assert payload == {"messages": messages}


@pytest.mark.parametrize(
    ("value", "tokens", "field"),
    [
        (None, True, "payload.input"),
        (5, True, "payload.input"),
        ([], True, "payload.input"),
        ([None], True, "payload.input[0]"),
        (["a", 5], True, "payload.input[1]"),
        ([5, True], True, "payload.input[1]"),
        ([[]], True, "payload.input[0]"),
        ([1, 2], False, "payload.input[0]"),
    ],
)
def test_a_wrong_input_is_refused_with_the_place_of_the_fault(value: Any, tokens: bool, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        checks.check_input({"input": value}, "input", tokens=tokens)
    assert caught.value.field == field
