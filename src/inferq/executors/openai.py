"""The OpenAI executor: chat, generate and embed on any server that speaks OpenAI's API, with or without a key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final

import msgspec

from inferq.errors import ConfigError, ExecutorError, InvalidTask, Reject, Unavailable
from inferq.executor import Answer, Call, Chunk, Health
from inferq.executors import payload as fields
from inferq.executors.model_server import content_type
from inferq.executors.router import RoutedModels
from inferq.net import MAX_BODY, Reply
from inferq.wire import checks, openai
from inferq.wire.framing import EventReader, decode_json

OFFICIAL: Final = "https://api.openai.com/v1"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of an OpenAI-compatible backend.

    `api_key` is the key itself, `api_key_env` the environment variable that holds it; most local servers need none.
    `as_chat` makes every `generate` a chat, for servers without /completions. `stream_usage: false` leaves out
    `stream_options`, for servers that refuse it. `connect_timeout` is in seconds, `max_answer_bytes` bounds one answer.
    """

    base_url: str | None = None
    api_key: str | None = None
    api_key_env: str | None = None
    organization: str | None = None
    project: str | None = None
    headers: dict[str, str] = {}
    as_chat: bool = False
    stream_usage: bool = True
    connect_timeout: float = 10.0
    max_answer_bytes: int = MAX_BODY


class OpenAIExecutor(RoutedModels):
    """Drives the server at `base_url`, else at the environment's OPENAI_BASE_URL, else OpenAI's own.

    The environment's OPENAI_API_KEY goes only where it was meant to go: to OpenAI itself or to OPENAI_BASE_URL. Every other
    server gets the key of its own settings, or none. Payload fields and options go to the server as they are; text is
    always streamed from it, unless the payload says `stream: false`.
    """

    actions = ("chat", "generate", "embed")
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {"chat": ("messages",), "generate": ("prompt",), "embed": ("input",)}
    dialect = "openai"
    over_http = True
    description = "Chat, generate and embed on any server that speaks OpenAI's API."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        self._set = fields.settings(self.settings, Settings, of=name)
        base_url = _base_url(self._set, name)
        self._key = _key(self._set, base_url)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if self._set.organization:
            headers["OpenAI-Organization"] = self._set.organization
        if self._set.project:
            headers["OpenAI-Project"] = self._set.project
        self._reach(
            base_url,
            headers=headers | self._set.headers,
            connect_timeout=self._set.connect_timeout,
            max_answer_bytes=self._set.max_answer_bytes,
            secrets=(self._key,) if self._key else (),
        )

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Checks the fields that are known; others are left to the server."""
        checks.check_field(payload, "system", str)
        checks.check_field(payload, "stream", bool)
        checks.check_field(payload, "as_chat", bool)
        checks.check_field(payload, "stream_options", dict)
        if action == "chat":
            checks.check_messages(payload, roles=openai.ROLES)
            checks.check_field(payload, "tools", list)
        elif action == "embed":
            checks.check_input(payload, "input", tokens=True)
            checks.check_field(payload, "dimensions", int)
        else:
            self._check_prompt(payload)

    def _check_prompt(self, payload: dict[str, Any]) -> None:
        checks.check_input(payload, "prompt", tokens=True)
        if payload.get("system") and payload.get("as_chat") is False:
            raise InvalidTask("a completion has no system; leave out as_chat: false to make it a chat", field="payload.system")
        chat = payload.get("as_chat", self._set.as_chat) or payload.get("system")
        if chat and not isinstance(payload.get("prompt"), str):
            raise InvalidTask("expected text, because it is made as a chat", field="payload.prompt")

    def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        """Yields the chunks and then the Answer. A stream that ends without its end mark is a failure."""
        if self._set.api_key_env and not self._key:
            raise Reject(f"{self.name}: no key in environment variable {self._set.api_key_env}", failure="auth")
        chat = openai.as_chat(call, default=self._set.as_chat)
        path, body = openai.request_of(call, chat=chat, usage=self._set.stream_usage)
        # One generator, not one in another: each level would cost every chunk on its way.
        return self._streamed(path, body) if body.get("stream") else self._whole(call, path, body)

    async def _whole(self, call: Call, path: str, body: dict[str, Any]) -> AsyncIterator[Chunk | Answer]:
        read = openai.embeddings_of if call.action == "embed" else openai.answer_of
        answer = await self._post(path, body, read)
        for chunk in _chunks(answer):
            yield chunk
        yield answer

    async def _streamed(self, path: str, body: dict[str, Any]) -> AsyncIterator[Chunk | Answer]:
        whole = openai.Assembly()
        events = EventReader(max_line=self._max_bytes)
        done = False
        async with self._posted(path, body, accept="text/event-stream, application/json") as reply:
            if content_type(reply) == "application/json":
                # The server took no notice of `stream`: its answer is whole, and as good.
                answer = openai.answer_of(decode_json(await reply.read()))
                for chunk in _chunks(answer):
                    yield chunk
                yield answer
                return
            try:
                while not done and (piece := await reply.some()):
                    for event in events.feed(piece):
                        if event.data == "[DONE]":
                            done = True
                            break
                        for chunk in whole.feed(self._checked(decode_json(event.data))):
                            yield chunk
            except Unavailable:
                if not whole.finished:  # a cut after the last word costs the token counts, not the answer
                    raise
            if not whole.finished and not (done and whole.started):
                raise self._cut("[DONE] or a finish reason")
            await reply.drain()
            answer = whole.answer()
        yield answer

    def _checked(self, value: Any) -> Any:
        if isinstance(value, dict) and value.get("error"):
            raise self._broken_off(value)
        return value

    async def health(self) -> Health:
        """Asks for the list of models, which costs nothing."""
        return await self._asked("/models", lambda reply: f"{len(openai.models_of(reply))} models")

    async def models(self) -> list[str]:
        """The models that the server lists. Raises ExecutorError."""
        return await self._get("/models", openai.models_of)

    def _hint(self, reply: Reply, error: ExecutorError) -> str:
        if error.failure == "auth" and not self._key:
            return "no key was sent: set api_key or api_key_env"
        return super()._hint(reply, error)


def _chunks(answer: Answer) -> list[Chunk]:
    """A whole answer for those who watch: as the chunks of one single delta."""
    if answer.message is not None:
        return openai.chunks_of(answer.message)
    return [Chunk("text", answer.text)] if answer.text else []


def _base_url(chosen: Settings, name: str) -> str:
    given = chosen.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
    if not given.startswith(("http://", "https://")):
        where = "setting 'base_url'" if chosen.base_url else "environment variable OPENAI_BASE_URL"
        raise ConfigError(f"{name}: {where}: expected an address such as http://127.0.0.1:8000/v1, got {given!r}")
    return given.rstrip("/")


def _key(chosen: Settings, base_url: str) -> str:
    if chosen.api_key is not None:
        return chosen.api_key.strip()
    if chosen.api_key_env:
        return os.environ.get(chosen.api_key_env, "").strip()
    meant_for = {OFFICIAL, os.environ.get("OPENAI_BASE_URL", OFFICIAL).rstrip("/")}
    return os.environ.get("OPENAI_API_KEY", "").strip() if base_url in meant_for else ""
