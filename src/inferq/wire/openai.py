"""OpenAI's dialect: a Call to a request body, reply and stream objects to chunks and an Answer. Pure.

Source: OpenAI's API specification 2.3 (chat completions, completions, embeddings), and what compatible servers add to
it (`reasoning_content` of DeepSeek and llama.cpp, `reasoning` of vLLM and OpenRouter, Mistral's lists of parts).
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from inferq.executor import Answer, Call, Chunk, Usage, tokens_of
from inferq.wire.framing import MalformedError

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
EMBEDDINGS: Final = "/embeddings"

_REASONING: Final = ("reasoning_content", "reasoning")
# Fields that a stream may repeat whole; every other text in a delta is a piece to be joined.
_WHOLE: Final = frozenset({"role", "id", "type", "name", "expires_at"})


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_chat(call: Call, *, default: bool = False) -> bool:
    """Whether a `generate` is made as a chat: when its `as_chat` or `default` says so, or it has a `system`."""
    wanted = call.payload.get("as_chat")
    return wanted if isinstance(wanted, bool) else default or bool(call.payload.get("system"))


def streams(call: Call) -> bool:
    """Whether to ask for a stream: always for text, unless the payload itself says `stream: false`.

    A stream shows a cut connection at once, keeps idle proxies from cutting the call, lets a backend see that the caller
    went away (some finish a whole answer for nobody otherwise) and feeds `idle_timeout`; the answer is the same.
    """
    return call.action in ("chat", "generate") and call.payload.get("stream") is not False


def request_of(call: Call, *, chat: bool, usage: bool = True) -> tuple[str, dict[str, Any]]:
    """Path and body of a call. Options and payload are merged, the payload's fields win; unknown fields go along.

    `chat` makes a `generate` a chat. `usage` asks a stream for its token counts.
    """
    options = dict(call.options)
    if "num_predict" in options:  # the same wish in Ollama's words
        limit = options.pop("num_predict")
        options.setdefault("max_tokens", limit)
    body = {**options, **call.payload}
    system = body.pop("system", None)
    body.pop("as_chat", None)
    body["model"] = call.model or body.get("model", "")
    body.pop("stream", None)
    if call.action == "embed":
        return EMBEDDINGS, body
    if call.action == "generate" and chat:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    if system and "messages" in body:
        body["messages"] = [{"role": "system", "content": system}, *body["messages"]]
    if streams(call):
        body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True, **(body.get("stream_options") or {})}
    else:
        body.pop("stream_options", None)  # servers refuse it without a stream
    return (CHAT if "messages" in body else COMPLETIONS), body


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer_of(reply: Any) -> Answer:
    """The Answer in a whole reply of chat or completions. Raises MalformedError when it is none."""
    choices = _object(reply, "a completion").get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedError("a completion without choices")
    first = _object(choices[0], "a choice")
    message = first.get("message")
    if message is None:
        text = first.get("text")
    else:
        content = _object(message, "a message").get("content")
        text = content if isinstance(content, str) else _words(content)
    return Answer(
        text=text if isinstance(text, str) else "",
        message=message,
        finish_reason=first.get("finish_reason"),
        model=reply.get("model"),
        usage=usage_of(reply),
        raw=reply,
    )


def embeddings_of(reply: Any) -> Answer:
    """The Answer in a reply of embeddings, in the order of the inputs; base64 vectors are decoded.

    `raw` is the reply without the vectors. Raises MalformedError when it is none.
    """
    data = _object(reply, "an embeddings reply").get("data")
    if not isinstance(data, list):
        raise MalformedError("an embeddings reply without data")
    rows = sorted((_object(row, "an embedding") for row in data), key=lambda row: row.get("index") or 0)
    return Answer(
        embeddings=[_vector(row.get("embedding")) for row in rows],
        model=reply.get("model"),
        usage=usage_of(reply),
        raw={key: value for key, value in reply.items() if key != "data"},
    )


def models_of(reply: Any) -> list[str]:
    """The ids in a list of models. Raises MalformedError when it is none."""
    data = _object(reply, "a list of models").get("data")
    if not isinstance(data, list):
        raise MalformedError("a list of models without data")
    return [str(model["id"]) for model in data if isinstance(model, dict) and "id" in model]


def usage_of(reply: Mapping[str, Any]) -> Usage | None:
    """The token counts of a reply or stream object; Groq keeps them under `x_groq`."""
    extra = reply.get("x_groq")
    usage = reply.get("usage") or (extra.get("usage") if isinstance(extra, dict) else None)
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(prompt, "cached_tokens"),
        reasoning_tokens=_count(completion, "reasoning_tokens"),
    )


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Assembly:
    """Puts a stream together: `feed` gives each object's chunks, `answer` what an unstreamed call would have given."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    @property
    def started(self) -> bool:
        """Whether any choice has begun."""
        return bool(self._choices)

    @property
    def finished(self) -> bool:
        """Whether every choice that began has its finish reason."""
        return bool(self._choices) and all(choice.finished for choice in self._choices.values())

    def feed(self, value: Any) -> list[Chunk]:
        """The chunks in one object of the stream. Raises MalformedError when it is not one."""
        chunks: list[Chunk] = []
        for key, kept in _object(value, "a stream object").items():
            if key != "choices" and (kept is not None or key not in self._top):
                self._top[key] = kept
        choices = value.get("choices") or ()
        if not isinstance(choices, Iterable):
            raise MalformedError("expected a list of choices in a stream object")
        for place, part in enumerate(choices):
            index = _object(part, "a choice").get("index", place)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice()
            delta = choice.feed(part)
            if index == 0:
                chunks += chunks_of(delta)
            elif delta:
                chunks.append(Chunk("data", data={"index": index, "delta": delta}))
        return chunks

    def answer(self) -> Answer:
        """The whole. Raises MalformedError when no choice has begun."""
        choices = [{"index": index, **choice.whole()} for index, choice in sorted(self._choices.items())]
        kind = "text_completion" if any("text" in choice for choice in choices) else "chat.completion"
        return answer_of({**self._top, "object": kind, "choices": choices})


def chunks_of(delta: Mapping[str, Any]) -> list[Chunk]:
    """One delta of the first choice as chunks: text, thinking, tool calls (pieces, as they came), the rest as data."""
    chunks: list[Chunk] = []
    thought = False
    for key, value in delta.items():
        if not value or key in ("role", "finish_reason"):
            continue
        if key in ("content", "text"):
            parts = [("text", value)] if isinstance(value, str) else _parts(value)
            chunks += [Chunk("text" if kind == "text" else "thinking", text) for kind, text in parts if text]
        elif key in _REASONING and isinstance(value, str):
            if not thought:  # some servers say the same under both names
                chunks.append(Chunk("thinking", value))
            thought = True
        elif key == "tool_calls":
            chunks.append(Chunk("tool_calls", data=value))
        else:
            chunks.append(Chunk("data", data={key: value}))
    return chunks


class _Choice:
    """One choice growing. Texts are joined once, at the end: adding to a long text piece by piece costs its square."""

    def __init__(self) -> None:
        self._message = _Growing()
        self._rest: dict[str, Any] = {}
        self._is_text = False
        self._logprobs: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        return self._rest.get("finish_reason") is not None

    def feed(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """Takes one piece and gives back its delta."""
        for key, value in part.items():
            if key == "logprobs":
                self._add_logprobs(value)
            elif key not in ("index", "delta", "text") and (value is not None or key not in self._rest):
                self._rest[key] = value
        delta: Mapping[str, Any]
        if "text" in part:
            self._is_text = True
            delta = {"text": part["text"]}
        else:
            delta = _object(part.get("delta") or {}, "a delta")
        self._message.add(delta)
        return delta

    def whole(self) -> dict[str, Any]:
        """The choice as an unstreamed reply has it."""
        grown = self._message.whole()
        tail = {"finish_reason": None, **self._rest, "logprobs": self._logprobs}
        if self._is_text:
            return {"text": grown.get("text") or "", **tail}
        return {"message": {"role": "assistant", "content": None, **grown}, **tail}

    def _add_logprobs(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        if self._logprobs is None:
            self._logprobs = {}
        for key, more in value.items():
            if isinstance(more, list) and isinstance(self._logprobs.setdefault(key, []), list):
                self._logprobs[key].extend(more)
            else:
                self._logprobs.setdefault(key, more)


class _Growing:
    """An object that arrives in deltas, tool calls by their index."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._nested: dict[str, _Growing] = {}
        self._calls: list[tuple[object, _Growing]] = []
        self._rest: dict[str, Any] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        for key, value in delta.items():
            if value is None:
                self._rest.setdefault(key, None)
            elif key == "tool_calls" and isinstance(value, list):
                for call in value:
                    self._add_call(_object(call, "a tool call"))
            elif isinstance(value, str):
                pieces = self._texts.setdefault(key, [])
                if key not in _WHOLE or not pieces or (key == "name" and value not in ("", pieces[0])):
                    pieces.append(value)
            elif isinstance(value, dict):
                self._nested.setdefault(key, _Growing()).add(value)
            elif isinstance(value, list):
                self._rest[key] = [*(self._rest.get(key) or []), *value]
            else:
                self._rest[key] = value

    def _add_call(self, call: Mapping[str, Any]) -> None:
        index = call.get("index")
        if index is None:
            # Servers without an index begin a call with its id and go on with the last one.
            index = call.get("id") or (self._calls[-1][0] if self._calls else 0)
        found = next((grown for key, grown in self._calls if key == index), None)
        if found is None:
            found = _Growing()
            self._calls.append((index, found))
        found.add({key: value for key, value in call.items() if key != "index"})

    def whole(self) -> dict[str, Any]:
        whole = {**self._rest, **{key: "".join(pieces) for key, pieces in self._texts.items()}}
        whole |= {key: grown.whole() for key, grown in self._nested.items()}
        if self._calls:
            # A name instead of an index keeps its place: the sort is stable.
            calls = sorted(self._calls, key=lambda call: call[0] if isinstance(call[0], int) else 0)
            whole["tool_calls"] = [grown.whole() for _, grown in calls]
        return whole


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parts(content: Any) -> list[tuple[str, str]]:
    """Content as a list of parts (Mistral): (`text` or `thinking`, the words)."""
    parts: list[tuple[str, str]] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            parts.append(("text", part["text"]))
        elif isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            words = inner if isinstance(inner, str) else "".join(text for _, text in _parts(inner))
            parts.append(("thinking", words))
    return parts


def _words(content: Any) -> str:
    return "".join(words for kind, words in _parts(content) if kind == "text")


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):
        try:
            packed = b64decode(value, validate=True)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        except (ValueError, struct.error):
            raise MalformedError("an embedding in base64 that is not a row of 32-bit floats") from None
    if not isinstance(value, list) or not all(isinstance(number, int | float) for number in value):
        raise MalformedError("an embedding that is not a list of numbers")
    return [float(number) for number in value]


def _count(holder: Any, key: str) -> int | None:
    return tokens_of(holder.get(key)) if isinstance(holder, dict) else None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"expected {what}, got {type(value).__name__}")
    return value
