"""What an Ollama server says, as the official SDK reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

LINES = "application/x-ndjson"
AT = "2026-01-02T03:04:05.678901Z"
COUNTS = {
    "total_duration": 5_000_000,
    "load_duration": 1_000_000,
    "prompt_eval_count": 9,
    "prompt_eval_duration": 2_000_000,
    "eval_count": 3,
    "eval_duration": 2_000_000,
}


def line(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()


def chat_line(message: dict[str, Any], **rest: Any) -> bytes:
    return line({"model": "m-1", "created_at": AT, "message": {"role": "assistant", **message}, "done": False, **rest})


def chat_end(reason: str = "stop") -> bytes:
    return chat_line({"content": ""}, done=True, done_reason=reason, **COUNTS)


def chat_stream(words: Sequence[str], *, reason: str = "stop") -> list[bytes]:
    return [*(chat_line({"content": word}) for word in words), chat_end(reason)]


def chat(text: str = "Hello there") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": "m-1", "created_at": AT, "message": message, "done": True, "done_reason": "stop", **COUNTS}


def generate_stream(words: Sequence[str]) -> list[bytes]:
    said = [line({"model": "m-1", "created_at": AT, "response": word, "done": False}) for word in words]
    end = {"model": "m-1", "created_at": AT, "response": "", "done": True, "done_reason": "length", "context": [1, 2, 3]}
    return [*said, line({**end, **COUNTS})]


def embeddings(*vectors: list[float]) -> dict[str, Any]:
    return {
        "model": "m-1",
        "embeddings": list(vectors),
        "total_duration": 14_143_917,
        "load_duration": 1_019_500,
        "prompt_eval_count": 8,
    }


def tags(*names: str) -> dict[str, Any]:
    details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "135M"}
    models = [{"name": n, "model": n, "modified_at": AT, "size": 98, "digest": "ab", "details": details} for n in names]
    return {"models": models}
