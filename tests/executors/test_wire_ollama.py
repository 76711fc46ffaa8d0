"""Ollama's dialect: what goes out, and what an answer's lines come to."""

from __future__ import annotations

from typing import Any

import ollama as ollama_sdk
import pytest
from doubles.drawn import places, split
from hypothesis import given
from hypothesis import strategies as st

from inferq.executor import Call, Chunk, Usage
from inferq.wire import ollama


def call(action: str, payload: dict[str, Any], **rest: Any) -> Call:
    return Call("t", action, rest.pop("model", "m-1"), payload, **rest)


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
