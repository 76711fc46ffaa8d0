"""The Ollama executor: chat, generate and embed through Ollama's own API, with every field of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import msgspec

from inferq.errors import ConfigError, Reject
from inferq.executor import Answer, Call, Chunk, Health
from inferq.executors import payload as fields
from inferq.executors.model_server import ModelServer
from inferq.net import MAX_BODY
from inferq.wire import checks, ollama
from inferq.wire.framing import JsonLines, MalformedError


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of an Ollama backend. `host` is another name for `base_url`; both take what OLLAMA_HOST takes.

    `connect_timeout` is in seconds. `headers` go with every request. `max_answer_bytes` bounds one answer.
    """

    base_url: str | None = None
    host: str | None = None
    headers: dict[str, str] = {}
    connect_timeout: float = 10.0
    max_answer_bytes: int = MAX_BODY


class OllamaExecutor(ModelServer):
    """Drives an Ollama server at `base_url`, else at the environment's OLLAMA_HOST, else on this machine's port 11434.

    Payload fields and options go to the server as they are, also those that this version does not know. Text is always
    streamed from the server, unless the payload says `stream: false`.
    """

    actions = ("chat", "generate", "embed")
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {"chat": ("messages",), "generate": ("prompt",), "embed": ("input",)}
    dialect = "ollama"
    over_http = True
    description = "Chat, generate and embed on an Ollama server, through its own API."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        chosen = fields.settings(self.settings, Settings, of=name)
        self._reach(
            _base_url(chosen, name),
            headers=chosen.headers,
            connect_timeout=chosen.connect_timeout,
            max_answer_bytes=chosen.max_answer_bytes,
        )

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Checks the fields that are known; others are left to the server."""
        if action == "chat":
            checks.check_messages(payload, roles=ollama.ROLES, images=True)
            checks.check_field(payload, "tools", list)
        elif action == "generate":
            checks.check_field(payload, "prompt", str)
            for field in ("template", "suffix"):
                checks.check_field(payload, field, str)
            checks.check_field(payload, "raw", bool)
            checks.check_images(payload, "payload.images")
        else:
            checks.check_input(payload, "input", tokens=False)
            checks.check_field(payload, "truncate", bool)
            checks.check_field(payload, "dimensions", int)
        checks.check_field(payload, "system", str)
        checks.check_field(payload, "stream", bool)
        checks.check_field(payload, "options", dict)
        checks.check_field(payload, "format", str, dict)

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        """Yields the chunks and then the Answer. A stream that ends without `done: true` is a failure."""
        path, body = ollama.request_of(call)
        if call.action == "embed":
            yield await self._post(path, body, ollama.embeddings_of)
            return
        whole = ollama.Assembly()
        lines = JsonLines(max_line=self._max_bytes)
        async with self._posted(path, body, accept="application/x-ndjson, application/json") as reply:
            while not whole.finished:
                piece = await reply.some()
                for line in lines.feed(piece) if piece else lines.end():
                    for chunk in self._take(whole, line):
                        yield chunk
                if not piece:
                    break
            if not whole.finished:
                raise self._cut("done: true")
            await reply.drain()
        yield whole.answer()

    def _take(self, whole: ollama.Assembly, line: Any) -> list[Chunk]:
        if isinstance(line, dict) and line.get("error"):
            raise self._broken_off(line)
        return whole.feed(line)

    async def health(self) -> Health:
        """Asks for the version."""
        return await self._asked("/api/version", _version)

    async def loaded(self) -> list[str]:
        """The models in the server's memory. Raises ExecutorError."""
        return await self._get("/api/ps", ollama.models_of)

    async def load_model(self, model: str, *, keep: float | None = None) -> None:
        """As the server itself does it: a request without a prompt. `keep` is its `keep_alive`. Raises ExecutorError."""
        await self._hold(model, {} if keep is None else {"keep_alive": keep})

    async def unload_model(self, model: str) -> None:
        """Raises ExecutorError."""
        await self._hold(model, {"keep_alive": 0})

    async def _hold(self, model: str, more: dict[str, Any]) -> None:
        body = {"model": model, "stream": False, **more}
        try:
            await self._post("/api/generate", body, lambda reply: reply)
        except Reject as error:
            if "does not support generate" not in str(error):
                raise
            # A model that only embeds.
            await self._post("/api/embed", {**body, "input": []}, lambda reply: reply)

    async def models(self) -> list[str]:
        """The models that are on the server's disk. Raises ExecutorError."""
        return await self._get("/api/tags", ollama.models_of)


def _base_url(chosen: Settings, name: str) -> str:
    given = chosen.base_url or chosen.host
    try:
        return ollama.base_url_of(given or os.environ.get("OLLAMA_HOST") or "127.0.0.1")
    except ValueError as error:
        where = "setting 'base_url'" if given else "environment variable OLLAMA_HOST"
        raise ConfigError(f"{name}: {where}: {error}") from None


def _version(reply: Any) -> str:
    if not isinstance(reply, dict) or "version" not in reply:
        raise MalformedError("no version in the answer to /api/version")
    return f"Ollama {reply['version']}"
