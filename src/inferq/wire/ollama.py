"""Ollama's dialect: a Call to a request body, reply lines to chunks and an Answer, OLLAMA_HOST to a base URL. Pure.

Source: Ollama's API documentation and the types of its official Python client 0.6.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from inferq.executor import Answer, Call, Chunk, Usage, tokens_of
from inferq.wire.framing import MalformedError

ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
PATHS: Final = {"chat": "/api/chat", "generate": "/api/generate", "embed": "/api/embed"}
DEFAULT_PORT: Final = 11434
_GROWING: Final = frozenset({"message", "response", "thinking", "logprobs"})

# Request fields that people put among the model's options; the server would ignore them there without a word.
_TOP_LEVEL: Final = frozenset(
    {
        *("context", "dimensions", "format", "keep_alive", "logprobs", "raw", "shift", "suffix"),
        *("template", "think", "tools", "top_logprobs", "truncate"),
    }
)


def base_url_of(host: str) -> str:
    """The base URL that an OLLAMA_HOST means, by Ollama's own rules: scheme, host and port may each be missing.

    Without a scheme the port is 11434, with one the scheme's own; the addresses that mean "all of mine" to a server
    mean "this machine" to a client. Raises ValueError when it is not an address.
    """
    scheme, separator, rest = host.strip().rstrip("/").partition("://")
    if not separator:
        scheme, rest = "http", scheme
    if scheme not in ("http", "https"):
        raise ValueError(f"expected an address such as 127.0.0.1:11434 or https://models.example, got {host!r}")
    try:
        parts = urlsplit(f"//{rest}")
        name, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        raise ValueError(f"expected an address such as 127.0.0.1:11434 or [::1]:11434, got {host!r}") from None
    if port is None:
        port = DEFAULT_PORT if not separator else 443 if scheme == "https" else 80
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - read here, bound nowhere
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}:{port}{parts.path.rstrip('/')}"


def streams(call: Call) -> bool:
    """Whether to ask for a stream: always for text, unless the payload itself says `stream: false`.

    Ollama computes an unstreamed answer to its end even when the caller has gone; a stream it stops.
    """
    return call.action != "embed" and call.payload.get("stream") is not False


def request_of(call: Call) -> tuple[str, dict[str, Any]]:
    """Path and body of a call. `options` are merged, the payload's own win; unknown fields go along.

    A chat's `system` becomes its first message; `max_tokens` among the options is told in Ollama's word, `num_predict`.
    """
    body = dict(call.payload)
    body["model"] = call.model or body.get("model", "")
    options = {**call.options, **(body.get("options") or {})}
    for name in _TOP_LEVEL & options.keys():
        value = options.pop(name)
        body.setdefault(name, value)
    for name in ("max_completion_tokens", "max_tokens"):
        if name in options:
            limit = options.pop(name)
            options.setdefault("num_predict", limit)
    if options:
        body["options"] = options
    if call.action == "chat" and (system := body.pop("system", None)):
        body["messages"] = [{"role": "system", "content": system}, *body["messages"]]
    if call.action == "embed":
        body.pop("stream", None)
    else:
        body["stream"] = streams(call)
    return PATHS[call.action], body


class Assembly:
    """Puts the lines of a chat or generate together: `feed` gives each line's chunks, `answer` the whole."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._message: dict[str, Any] = {}
        self._lists: dict[str, list[Any]] = {}
        self._chat = False

    @property
    def finished(self) -> bool:
        """Whether the line with `done: true` has come; a stream that ends without it was cut."""
        return self._last.get("done") is True

    def feed(self, line: Any) -> list[Chunk]:
        """The chunks in one line. Raises MalformedError when it is not one."""
        if not isinstance(line, dict):
            raise MalformedError(f"expected an object on each line, got {type(line).__name__}")
        self._last = line
        chunks: list[Chunk] = []
        message = line.get("message")
        if isinstance(message, dict):
            self._chat = True
            self._add_message(message, chunks)
        else:
            self._add_text("thinking", line.get("thinking"), chunks)
            self._add_text("response", line.get("response"), chunks)
        if isinstance(logprobs := line.get("logprobs"), list):
            self._lists.setdefault("logprobs", []).extend(logprobs)
        if "completed" in line and not self.finished:
            chunks.append(Chunk("data", data={key: line[key] for key in ("completed", "total") if key in line}))
        return chunks

    def answer(self) -> Answer:
        """The whole, as an unstreamed call would have given it."""
        raw = {key: value for key, value in self._last.items() if key not in _GROWING}
        texts = {key: "".join(pieces) for key, pieces in self._texts.items()}
        message: dict[str, Any] | None = None
        calls = self._lists.get("tool_calls")
        if self._chat:
            message = {"role": "assistant", **self._message, "content": texts.get("content", "")}
            if "thinking" in texts:
                message["thinking"] = texts["thinking"]
            if calls:
                message["tool_calls"] = calls
            raw["message"] = message
            text = texts.get("content", "")
        else:
            text = texts.get("response", "")
            raw |= {"response": text, **{key: texts[key] for key in ("thinking",) if key in texts}}
        if "logprobs" in self._lists:
            raw["logprobs"] = self._lists["logprobs"]
        return Answer(
            text=text,
            message=message,
            finish_reason=finish_reason(self._last.get("done_reason"), tool_calls=bool(calls)),
            model=self._last.get("model"),
            usage=usage_of(self._last),
            raw=raw,
        )

    def _add_message(self, message: dict[str, Any], chunks: list[Chunk]) -> None:
        for key, value in message.items():
            if key in ("content", "thinking"):
                self._add_text(key, value, chunks)
            elif key == "tool_calls" and value:
                self._lists.setdefault("tool_calls", []).extend(value)
                chunks.append(Chunk("tool_calls", data=value))
            elif value is not None:
                self._message[key] = value

    def _add_text(self, key: str, value: Any, chunks: list[Chunk]) -> None:
        if isinstance(value, str) and value:
            self._texts.setdefault(key, []).append(value)
            chunks.append(Chunk("thinking" if key == "thinking" else "text", value))


def embeddings_of(reply: Any) -> Answer:
    """The Answer in a reply of /api/embed; `raw` leaves the vectors out. Raises MalformedError when it is none."""
    vectors = reply.get("embeddings") if isinstance(reply, dict) else None
    if not isinstance(vectors, list) or not all(isinstance(vector, list) for vector in vectors):
        raise MalformedError("an embeddings reply without embeddings")
    return Answer(
        embeddings=[[float(number) for number in vector] for vector in vectors],
        model=reply.get("model"),
        usage=usage_of(reply),
        raw={key: value for key, value in reply.items() if key != "embeddings"},
    )


def models_of(reply: Any) -> list[str]:
    """The names in a reply of /api/tags. Raises MalformedError when it is none."""
    models = reply.get("models") if isinstance(reply, dict) else None
    if not isinstance(models, list):
        raise MalformedError("a list of models without models")
    names = (model.get("model") or model.get("name") for model in models if isinstance(model, dict))
    return [str(name) for name in names if name]


def usage_of(reply: dict[str, Any]) -> Usage | None:
    """The token counts of a last line; Ollama leaves a count out when it is nought."""
    counts = [reply.get(key) for key in ("prompt_eval_count", "eval_count")]
    if counts == [None, None]:
        return None
    given, made = map(tokens_of, counts)
    return Usage(input_tokens=given, output_tokens=made)


def finish_reason(done_reason: Any, *, tool_calls: bool = False) -> str | None:
    """Ollama's `done_reason` in OpenAI's words; `load` and `unload` stay as they are."""
    if tool_calls and done_reason in (None, "stop"):
        return "tool_calls"
    return done_reason if isinstance(done_reason, str) and done_reason else None
