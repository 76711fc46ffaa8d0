"""A llama.cpp server in router mode, which holds several models: which of them are in memory, and load and unload.

As its documentation of 2026 says (tools/server/README.md, "Model management"): GET /models gives each model a `status`, POST /models/load
and POST /models/unload take `{"model": name}`, answer at once and go on in the background.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from inferq.errors import Reject
from inferq.executors.model_server import ModelServer
from inferq.wire.framing import MalformedError

_STEPS: Final = (0.05, 0.1, 0.2, 0.5)
"""Seconds between two looks at a model on its way."""


class _Status(msgspec.Struct):
    value: str = ""
    failed: bool = False


class _Model(msgspec.Struct):
    id: str
    status: _Status | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class RoutedModels(ModelServer):
    """What a server with OpenAI's API can do with its memory where it is such a router."""

    async def loaded(self) -> list[str] | None:
        """The models in its memory; None where the server does not say. Raises ExecutorError."""
        states = await self._states()
        return None if not states else sorted(name for name, status in states.items() if status.value == "loaded")

    async def load_model(self, model: str, *, keep: float | None = None) -> None:
        """Raises Reject where the server is no router, has no such model, or cannot load it. It keeps no time to unload again."""
        if keep is not None:
            raise Reject(f"{self._source} takes no time for which a model stays: leave it out")
        if (await self._known(model)).value != "loaded":
            await self._order("load", model)
            await self._until(model, "loaded")

    async def unload_model(self, model: str) -> None:
        """Raises Reject where the server is no router or has no such model."""
        if (await self._known(model)).value != "unloaded":
            await self._order("unload", model)
            await self._until(model, "unloaded")

    async def _states(self) -> dict[str, _Status]:
        """The state of each model; empty where the server names none."""
        found = await self._get("/models", _read)
        return {model.id: model.status for model in found.data if model.status is not None}

    async def _known(self, model: str) -> _Status:
        states = await self._states()
        if not states:
            raise Reject(f"{self._source} cannot load or unload: it is no llama.cpp router, and keeps what it was started with")
        if model not in states:
            some = ", ".join(sorted(states)[:5])
            raise Reject(f"{self._source} has no model {model!r}; it has {some}", failure="model_not_found")
        return states[model]

    async def _order(self, verb: str, model: str) -> None:
        await self._post(f"{self.client.base_url.removesuffix('/v1')}/models/{verb}", {"model": model}, lambda reply: reply)

    async def _until(self, model: str, wanted: str) -> None:
        moving = False
        looks = 0
        while (status := await self._known(model)).value != wanted:
            # Before the first look at work, what it says may be of an earlier time.
            moving = moving or status.value == "loading"
            if status.value == "unloaded" and (moving or looks >= len(_STEPS)):
                raise Reject(f"{self._source} could not load {model}: its log says why")
            await asyncio.sleep(_STEPS[min(looks, len(_STEPS) - 1)])
            looks += 1


def _read(reply: Any) -> _Models:
    try:
        return msgspec.convert(reply, _Models)
    except msgspec.ValidationError as error:
        raise MalformedError(f"a list of models: {error}") from error
