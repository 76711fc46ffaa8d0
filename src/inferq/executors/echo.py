"""The echo executor: answers with what it was asked, at a scripted speed and with scripted failures."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Mapping
from itertools import cycle, islice
from typing import Any, ClassVar, Literal

import msgspec

from inferq.errors import FAILURE_CODES, ExecutorError, FailureCode, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Chunk, Executor, Produced, Usage
from inferq.executors import payload as fields

_WORD = re.compile(r"\S+\s*|\s+")
_WAIT: frozenset[str] = frozenset({"rate_limited", "overloaded"})
_AGAIN: frozenset[str] = frozenset({"connect", "server_error", "timeout", "lost"})
_DIMENSIONS = 64


class Fate(msgspec.Struct, forbid_unknown_fields=True):
    """How one attempt ends. None of the first four: it succeeds.

    `code` fails before the first chunk: rate_limited and overloaded (and quota_exhausted with `after`, in seconds)
    as `RetryLater`; connect, server_error, timeout and lost as `Unavailable`; internal as an unforeseen exception;
    the others as `Reject`. `cut_after` ends the stream after so many chunks without its end mark, `fail_after`
    raises `code` there, `hang_after` stays silent from there on.
    """

    code: FailureCode | None = None
    cut_after: int | None = None
    fail_after: int | None = None
    hang_after: int | None = None
    after: float | None = None
    sent: bool = True
    message: str = ""

    def error(self, attempt: int) -> Exception:
        code: FailureCode = self.code or "server_error"
        message = self.message or f"echo: attempt {attempt} fails with {code}, as scripted"
        if code in _WAIT or (code == "quota_exhausted" and self.after is not None):
            return RetryLater(message, after=self.after, failure=code)
        if code in _AGAIN:
            return Unavailable(message, failure=code, sent=self.sent)
        if code == "internal":
            return RuntimeError(message)
        return Reject(message, failure=code)


class Script(msgspec.Struct):
    """What settings and payload may say about an answer; the payload wins. Times are seconds."""

    latency: float = 0.0
    tokens_per_second: float | None = None
    tokens: int | None = None
    text: str | None = None
    thinking: str = ""
    fail: list[Fate | str | None] = []
    messages: list[dict[str, Any]] = []
    prompt: str = ""
    input: str | list[Any] = ""
    dimensions: int = _DIMENSIONS

    def fate(self, attempt: int) -> Fate | None:
        """The scripted end of that attempt: chosen by its number alone, so that a restart changes nothing."""
        if attempt > len(self.fail):
            return None
        named = self.fail[attempt - 1]
        if not isinstance(named, str):
            return named
        if named == "ok":
            return None
        return Fate(hang_after=0) if named == "hang" else msgspec.convert({"code": named}, Fate)


class EchoExecutor(Executor):
    """Answers at once and costs nothing unless told otherwise; keeps nothing between calls."""

    actions = ("chat", "generate", "embed", "echo")
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "chat": ("messages",),
        "generate": ("prompt",),
        "embed": ("input",),
    }
    over_http = True
    description = "Answers with what it was asked; latency, speed and failures as scripted. For tests and demos."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        fields.settings(self.settings, Script, of=name)

    def run(self, call: Call) -> Produced:
        """A coroutine where nothing is watched or scripted (the cheap way), a stream otherwise."""
        script = self._script(call.payload)
        watched = call.stream and call.action in ("chat", "generate")
        if watched or script.latency or script.fail or script.tokens_per_second:
            return self._play(call, script)
        return self._at_once(call, script)

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Refuses a script that could not be played. Raises `InvalidTask`."""
        script = self._script(payload)
        if action == "chat" and not script.messages:
            raise InvalidTask("expected at least one message", field="payload.messages")
        for name in ("latency", "tokens_per_second", "tokens", "dimensions"):
            value = getattr(script, name)
            if value is not None and (not math.isfinite(value) or value < 0):
                raise InvalidTask(f"expected a number of at least 0, got {value}", field=f"payload.{name}")
        for index, fate in enumerate(script.fail):
            if isinstance(fate, str) and fate not in FAILURE_CODES | {"hang", "ok"}:
                known = ", ".join(sorted(FAILURE_CODES))
                raise InvalidTask(f"expected hang, ok or one of {known}; got {fate!r}", field=f"payload.fail[{index}]")

    async def models(self) -> list[str]:
        return ["echo"]

    def _script(self, payload: dict[str, Any]) -> Script:
        return fields.read({**self.settings, **payload} if self.settings else payload, Script)

    async def _at_once(self, call: Call, script: Script) -> Answer:
        return _answer(call, script, self._text(call, script))

    async def _play(self, call: Call, script: Script) -> AsyncIterator[Chunk | Answer]:
        fate = script.fate(call.attempt) or Fate()
        if script.latency:
            await asyncio.sleep(script.latency)
        if fate.code and fate.fail_after is None:
            raise fate.error(call.attempt)
        pause = 1 / script.tokens_per_second if script.tokens_per_second else 0.0
        if script.thinking:
            yield Chunk("thinking", script.thinking)
        pieces = _pieces(call, script, self._text(call, script))
        for number, piece in enumerate([*pieces, None]):
            if fate.hang_after is not None and number >= fate.hang_after:
                await asyncio.Event().wait()
            if fate.fail_after is not None and number >= fate.fail_after:
                raise fate.error(call.attempt)
            if fate.cut_after is not None and number >= fate.cut_after:
                return
            if piece is not None:
                if pause:
                    await asyncio.sleep(pause)
                yield Chunk("text", piece)
        yield _answer(call, script, "".join(pieces))

    def _text(self, call: Call, script: Script) -> str:
        if script.text is not None:
            return script.text
        if call.action == "chat":
            return _content(script.messages[-1].get("content")) if script.messages else ""
        return script.prompt if call.action == "generate" else ""

    def classify(self, error: Exception) -> ExecutorError | Answer | None:
        """A wrong script that was never validated (its settings, or direct use) is the caller's mistake."""
        return Reject(str(error), failure="bad_request") if isinstance(error, InvalidTask) else None


def _content(content: object) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _limit(options: Mapping[str, Any]) -> int | None:
    limit = options.get("max_tokens", options.get("num_predict"))
    return limit if isinstance(limit, int) and limit >= 0 else None


def _pieces(call: Call, script: Script, text: str) -> list[str]:
    """The answer cut into chunks, a word each; `tokens` asks for another number by repeating or cutting."""
    if call.action in ("embed", "echo"):
        return []
    words = _WORD.findall(text)
    if script.tokens is not None:
        source = words or ["token "]
        words = list(islice(cycle([word if word[-1:].isspace() else f"{word} " for word in source]), script.tokens))
    limit = _limit(call.options)
    return words if limit is None else words[:limit]


def _answer(call: Call, script: Script, text: str) -> Answer:
    if call.action == "echo":
        return Answer(data=call.payload)
    if call.action == "embed":
        inputs = script.input if isinstance(script.input, list) else [script.input]
        vectors = [_vector(str(item), script.dimensions) for item in inputs]
        used = Usage(input_tokens=sum(len(str(item).split()) for item in inputs))
        return Answer(embeddings=vectors, model=call.model or "echo", usage=used)
    return _written(call, script, text)


def _written(call: Call, script: Script, text: str) -> Answer:
    limit = _limit(call.options)
    reason: Literal["stop", "length"] = "stop"
    if script.tokens is not None or limit is not None:
        pieces = _pieces(call, script, text)
        reason = "length" if limit is not None and len(pieces) >= limit else "stop"
        text, count = "".join(pieces), len(pieces)
    else:
        count = len(text.split())
    chat = call.action == "chat"
    asked = " ".join(_content(message.get("content")) for message in script.messages) if chat else script.prompt
    message = {"role": "assistant", "content": text} if chat else None
    used = Usage(input_tokens=len(asked.split()), output_tokens=count)
    return Answer(text=text, message=message, finish_reason=reason, model=call.model or "echo", usage=used)


def _vector(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on the text only: equal texts are equal everywhere, others nearly orthogonal."""
    noise = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    raw = [int.from_bytes(noise[at : at + 2]) - 32767.5 for at in range(0, 2 * dimensions, 2)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / length for value in raw]
