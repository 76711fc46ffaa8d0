"""Backends as a program meets them, wherever the queue is: `queue.backends`."""

from __future__ import annotations

import asyncio
import builtins
from abc import ABC, abstractmethod
from typing import Any, Literal

import msgspec

from inferq.backend import BackendInfo
from inferq.errors import InvalidTask, WaitTimeout
from inferq.given import checked_seconds
from inferq.handle import Duration

_STEPS = (0.05, 0.1, 0.2, 0.5)
"""Seconds between two looks at a backend that is being drained."""

_LONGEST = 2000
"""Characters of a reason."""


class Tested(msgspec.Struct, frozen=True):
    """What one real health check came to. `seconds` is how long the answer took, `models` what the backend lists, `loaded` what it has in
    its memory (None where it does not say)."""

    name: str
    ok: bool
    detail: str = ""
    seconds: float = 0.0
    models: tuple[str, ...] = ()
    loaded: tuple[str, ...] | None = None


class Held(msgspec.Struct, frozen=True):
    """What a backend has in its memory after a load or unload; `loaded` None where it does not say. `seconds` is how long it took."""

    name: str
    model: str
    loaded: tuple[str, ...] | None
    seconds: float


class BackendsDoor(ABC):
    """See where tasks run, and keep them away from there. What is ordered here is obeyed by every process on the store at once."""

    @abstractmethod
    async def list(self) -> builtins.list[BackendInfo]:
        """Every backend that is configured here or that a worker has, by name."""

    @abstractmethod
    async def get(self, name: str) -> BackendInfo:
        """Raises RecordNotFound."""

    @abstractmethod
    async def test(self, name: str) -> Tested:
        """Ask it now how it is, and for its models. Raises RecordNotFound."""

    async def load(self, name: str, model: str, *, keep: Duration | None = None, timeout: Duration = 600.0) -> Held:
        """Bring a model into the backend's memory and return when it is there. `keep` is for how long without a task (Ollama only).

        Raises RecordNotFound, WaitTimeout (it goes on loading), and Conflict with the reason where the backend cannot or did not.
        """
        held = checked_seconds(keep, "keep")
        return await self._hold(name, checked_model(model), "load", held, checked_seconds(timeout, "timeout"))

    async def unload(self, name: str, model: str, *, timeout: Duration = 60.0) -> Held:
        """Take a model out of the backend's memory. Raises RecordNotFound, WaitTimeout, Conflict."""
        return await self._hold(name, checked_model(model), "unload", None, checked_seconds(timeout, "timeout"))

    @abstractmethod
    async def _hold(self, name: str, model: str, verb: Literal["load", "unload"], keep: float | None, timeout: float) -> Held: ...

    @abstractmethod
    async def enable(self, name: str) -> BackendInfo:
        """Undo `drain` and `disable`. Idempotent. Raises RecordNotFound."""

    async def disable(self, name: str, *, reason: str = "") -> BackendInfo:
        """No more tasks for it until it is enabled again; running ones go on. Idempotent. Raises RecordNotFound."""
        return await self._switch(name, "disabled", checked_reason(reason))

    async def drain(self, name: str, *, reason: str = "", wait: bool = False, timeout: Duration | None = None) -> BackendInfo:
        """No more tasks for it until it is enabled again; with `wait` returns when the last running one has ended.

        Idempotent. Raises RecordNotFound, and WaitTimeout when that takes longer than `timeout`; it goes on draining then.
        """
        limit = checked_seconds(timeout, "timeout")
        info = await self._switch(name, "draining", checked_reason(reason))
        if not wait:
            return info
        try:
            async with asyncio.timeout(limit):
                return await self._drained(name, info)
        except TimeoutError:
            raise WaitTimeout(f"backend {name} still ran tasks after {limit:g} s; it goes on draining, ask again later") from None

    async def _drained(self, name: str, info: BackendInfo) -> BackendInfo:
        looks = 0
        while info.busy or info.unaware:
            await asyncio.sleep(_STEPS[min(looks, len(_STEPS) - 1)])
            looks += 1
            info = await self.get(name)
        return info

    @abstractmethod
    async def _switch(self, name: str, state: str, reason: str) -> BackendInfo: ...


def checked_model(model: Any) -> str:
    """Raises InvalidTask for what is no name of a model."""
    if not isinstance(model, str) or not model or not model.isprintable() or len(model) > _LONGEST:
        raise InvalidTask(f"expected the name of a model, got {str(model)[:60]!r}", field="model")
    return model


def checked_reason(reason: Any) -> str:
    """Raises InvalidTask for what is no text, or too much of it."""
    if not isinstance(reason, str) or "\x00" in reason or len(reason) > _LONGEST:
        raise InvalidTask(f"expected a text of at most {_LONGEST} characters, got {str(reason)[:60]!r}", field="reason")
    return str(reason)
