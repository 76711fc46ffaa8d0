"""Tasks in Ollama's words for servers that speak OpenAI's API, and their answers back in Ollama's words. Pure.

What has no word there is either refused (`template`, `context`: the answer would be another) or left out, and `LEFT_OUT` is the
whole list of that: how a local runtime places the model, and refinements of sampling that OpenAI's API does not know.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from inferq.errors import Untranslatable
from inferq.executor import Answer, Call, Chunk

LEFT_OUT: Final = frozenset(
    {
        *("keep_alive", "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "use_mmap", "use_mlock", "low_vram"),
        *("numa", "vocab_only", "f16_kv", "logits_all", "shift", "truncate"),
        *("top_k", "min_p", "typical_p", "tfs_z", "repeat_penalty", "repeat_last_n", "penalize_newline"),
        *("mirostat", "mirostat_eta", "mirostat_tau"),
    }
)
"""Options and fields of Ollama that are dropped on the way."""
REFUSED: Final = ("template", "context")
_EFFORTS: Final = frozenset({"low", "medium", "high"})
_IMAGES: Final = {"iVBOR": "png", "/9j/": "jpeg", "R0lG": "gif", "UklG": "webp"}


def to_openai(call: Call) -> Call:
    """The call in OpenAI's words: options flat, format as response_format, images as parts, tool calls with ids.

    Raises Untranslatable naming the field.
    """
    payload = dict(call.payload)
    options = {**call.options, **(payload.pop("options", None) or {})}
    for name in REFUSED:
        if payload.get(name) or options.get(name):
            raise Untranslatable(f"payload.{name}: OpenAI's API has no word for it; only an Ollama backend can run this task")
    fields = {**options, **payload}
    said = {name: value for name, value in fields.items() if name not in LEFT_OUT and name not in REFUSED and value is not None}
    limit = said.pop("num_predict", None)
    if isinstance(limit, int) and limit >= 0:
        said.setdefault("max_tokens", limit)
    _format(said)
    _thinking(said)
    if call.action == "chat":
        said["messages"] = _messages(said.get("messages") or [])
    elif call.action == "generate":
        _prompt(said)
    return msgspec.structs.replace(call, payload=said, options={})


def to_ollama(answer: Answer, action: str) -> Answer:
    """The answer as an Ollama backend would have given it: the message's fields in Ollama's words, none for a generate."""
    if action != "chat" or answer.message is None:
        return msgspec.structs.replace(answer, message=None)
    message: dict[str, Any] = {"role": answer.message.get("role") or "assistant", "content": answer.text or ""}
    thinking = answer.message.get("reasoning_content") or answer.message.get("reasoning")
    if isinstance(thinking, str) and thinking:
        message["thinking"] = thinking
    if calls := answer.message.get("tool_calls"):
        message["tool_calls"] = [tool_call(one) for one in calls]
    return msgspec.structs.replace(answer, message=message)


def tool_call(call: Any) -> dict[str, Any]:
    """One whole tool call of OpenAI's as Ollama's, whose arguments are an object."""
    function = call.get("function") if isinstance(call, dict) else None
    made = dict(function) if isinstance(function, dict) else {}
    arguments = made.get("arguments")
    if isinstance(arguments, str):
        try:
            made["arguments"] = json.loads(arguments) if arguments else {}
        except ValueError:
            # A model may write what is no JSON; it is not lost.
            made["arguments"] = {"": arguments}
    return {"function": made}


def tool_calls_of(answer: Answer) -> Chunk | None:
    """The tool calls of an answer as the one chunk in which Ollama tells them."""
    calls = (answer.message or {}).get("tool_calls")
    return Chunk("tool_calls", data=calls) if calls else None


# ── fields ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _format(said: dict[str, Any]) -> None:
    wanted = said.pop("format", None)
    if wanted == "json":
        said["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict):
        said["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    elif wanted:
        raise Untranslatable(f"payload.format: expected json or a schema, got {wanted!r}")


def _thinking(said: dict[str, Any]) -> None:
    """Ollama's levels are OpenAI's efforts; true and false have no word there, and the model decides."""
    wanted = said.pop("think", None)
    if isinstance(wanted, str) and wanted in _EFFORTS:
        said["reasoning_effort"] = wanted


def _prompt(said: dict[str, Any]) -> None:
    """Ollama puts a prompt into the model's chat template, unless it is raw or has a suffix; that is what a chat does."""
    raw = said.pop("raw", False)
    images = said.pop("images", None)
    said["as_chat"] = not raw and not said.get("suffix")
    if not said["as_chat"]:
        said.pop("system", None)
    elif images:
        said["prompt"] = _with_images(said.get("prompt") or "", images)


def _messages(messages: list[Any]) -> list[Any]:
    made: list[Any] = []
    pending: list[str] = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            made.append(message)
            continue
        one = {name: value for name, value in message.items() if name not in ("images", "thinking", "tool_name") and value is not None}
        if images := message.get("images"):
            one["content"] = _with_images(message.get("content") or "", images)
        if calls := message.get("tool_calls"):
            one["tool_calls"] = [_called(call, f"call_{number}_{place}") for place, call in enumerate(calls)]
            pending = [call["id"] for call in one["tool_calls"]]
            one.setdefault("content", None)
        elif one.get("role") == "tool":
            one.setdefault("tool_call_id", pending.pop(0) if pending else f"call_{number}")
        made.append(one)
    return made


def _called(call: Any, id: str) -> dict[str, Any]:
    function = dict(call.get("function") or {}) if isinstance(call, dict) else {}
    if not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {})
    kept = call.get("id") if isinstance(call, dict) else None
    return {"id": kept or id, "type": "function", "function": function}


def _with_images(text: str, images: list[Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for image in images:
        kind = next((kind for start, kind in _IMAGES.items() if str(image).startswith(start)), "png")
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}})
    return parts
