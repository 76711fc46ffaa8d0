"""What an OpenAI-compatible server says, as the official SDK reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 4,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
DONE = b"data: [DONE]\n\n"
EVENTS = "text/event-stream"


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def piece(delta: dict[str, Any], *, finish: str | None = None, index: int = 0) -> bytes:
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "m-1",
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}],
            "usage": None,
        }
    )


def usage() -> bytes:
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "m-1",
            "choices": [],
            "usage": USAGE,
        }
    )


def chat_stream(words: Sequence[str], *, finish: str = "stop") -> list[bytes]:
    return [
        piece({"role": "assistant", "content": ""}),
        *(piece({"content": word}) for word in words),
        piece({}, finish=finish),
        usage(),
        DONE,
    ]


def tool_stream() -> list[bytes]:
    first = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}
    second = {"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": ""}}
    return [
        piece({"role": "assistant", "content": None, "tool_calls": [first]}),
        piece({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
        piece({"tool_calls": [second]}),
        piece({"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]}),
        piece({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        piece({}, finish="tool_calls"),
        usage(),
        DONE,
    ]


def chat(text: str = "Hello there", *, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m-1",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": USAGE,
    }


def completion_stream(words: Sequence[str]) -> list[bytes]:
    def part(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return event({"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": "m-1", "choices": [choice]})

    return [*(part(word) for word in words), part("", "length"), DONE]


def embeddings(*vectors: list[float] | str) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage_ = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": "m-1", "usage": usage_}


def error(message: str, *, code: str | int | None = None, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}
