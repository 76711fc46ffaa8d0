"""Delivers a webhook's message: one signed POST, judged by its status. It is started by the queue itself, never by configuration."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from inferq.config.references import expand, read_secret
from inferq.errors import ConfigError, ExecutorError, InvalidSignature, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Executor
from inferq.executors.addresses import is_public
from inferq.net import HttpClient, ReplyStream, origin_of
from inferq.webhook import ACTION, EXECUTOR, Webhook, is_file, secret_file, sign
from inferq.wire.failures import retry_after

log: Final = logging.getLogger("inferq.webhooks")

_GONE: Final = 410
_BUSY: Final = frozenset({429, 503})
_PRIVATE: Final = "leads to a private, loopback or reserved address; set webhooks.allow_private to allow such receivers"


class Hooks(Protocol):
    """Where the executor finds webhooks, and whom it tells how they fare."""

    async def find(self, name: str) -> Webhook | None: ...

    async def fared(self, name: str, *, error: str = "", gone: bool = False) -> None:
        """A receiver took a message, or did not (`error`), or wants no more (`gone`)."""
        ...


class WebhookExecutor(Executor):
    """One POST a message. 2xx is success, 410 ends the webhook, Retry-After of 429 and 503 is obeyed, anything else is tried again."""

    actions = (ACTION,)
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {ACTION: ("webhook", "message", "body")}
    description = "Delivers webhooks; the queue starts it by itself."

    def __init__(self, hooks: Hooks, *, allow_private: bool, timeout: float, secret_dir: str) -> None:
        super().__init__(EXECUTOR)
        self._hooks = hooks
        self._timeout = timeout
        self._secret_dir = secret_dir
        self._client = HttpClient(connect_timeout=timeout, guard=None if allow_private else _public_only)
        self.statuses: dict[str, int] = {}
        """The HTTP status that each delivered task got, until its end is told."""

    async def close(self) -> None:
        await self._client.close()

    def estimate(self, action: str, payload: dict[str, Any]) -> int:  # noqa: ARG002 - the hook's signature
        return 0

    async def run(self, call: Call) -> Answer:
        """The receiver's status. Redirects are not followed: a signed message goes where it was meant to go."""
        name = str(call.payload["webhook"])
        hook = await self._hooks.find(name)
        if hook is None:
            raise Reject(f"the webhook {name!r} was removed", failure="not_found")
        if not hook.enabled:
            raise Reject(f"the webhook {name!r} is disabled{f': {hook.reason}' if hook.reason else ''}", failure="permission")
        try:
            status = await self._deliver(hook, call)
        except ExecutorError as error:
            await self._hooks.fared(name, error=str(error), gone=isinstance(error, _GoneError))
            raise
        await self._hooks.fared(name)
        self.statuses[call.task_id] = status
        return Answer(data={"status": status})

    async def _deliver(self, hook: Webhook, call: Call) -> int:
        body = str(call.payload["body"]).encode()
        headers = {**hook.headers, **_signed(hook, str(call.payload["message"]), body, self._secret_dir)}
        origin = origin_of(hook.url)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", hook.url, body=body, headers=headers, max_bytes=1 << 20) as reply,
            ):
                if 200 <= reply.status < 300:
                    await reply.drain()
                    return reply.status
                raise _refusal(reply, origin)
        except TimeoutError:
            raise Unavailable(f"{origin} did not answer within {self._timeout:g} s", failure="timeout") from None


class _GoneError(Reject):
    """The receiver answered 410."""


def _signed(hook: Webhook, message: str, body: bytes, secret_dir: str) -> dict[str, str]:
    stamp = int(time.time())
    try:
        signature = sign(_secret_of(hook, secret_dir), message, stamp, body)
    except (ConfigError, InvalidTask, InvalidSignature) as error:
        # Whoever made the webhook must not learn from its error which files and variables there are; it may be mended without making
        # the message anew.
        log.warning("webhook.secret_unusable", extra={"webhook": hook.name, "error": str(error)})
        said = f"the secret of webhook {hook.name!r} cannot be used by the process that delivers; its log says why"
        raise Unavailable(said, failure="auth", sent=False) from None
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(stamp),
        "webhook-signature": signature,
    }


def _secret_of(hook: Webhook, secret_dir: str) -> str:
    """Raises ConfigError or InvalidTask."""
    secret = hook.secret
    if is_file(secret):
        # Judged again where it is opened: links may have come, and another process's folder may be another one.
        root, path = os.path.realpath(secret_dir), os.path.realpath(secret_file(secret, secret_dir))
        return read_secret(Path(secret_file(f"file:{path}", root)))
    return expand(secret, env=os.environ, base=Path(secret_dir), home=Path.home()).text


def _refusal(reply: ReplyStream, origin: str) -> ExecutorError:
    said = f"{origin} answered {reply.status}"
    if reply.status == _GONE:
        return _GoneError(f"{said}: it wants no more messages", failure="not_found")
    if reply.status in _BUSY:
        after = retry_after(reply.headers, now=time.time())
        if after:
            return RetryLater(f"{said}: it asks for {after:g} s", after=after)
    if 300 <= reply.status < 400:
        return Unavailable(f"{said}: redirects are not followed, give the webhook its final address", failure="server_error")
    return Unavailable(said, failure="server_error")


def _public_only(address: str) -> None:
    if not is_public(address):
        raise Reject(f"its address {_PRIVATE}", failure="permission")
