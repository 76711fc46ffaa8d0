"""Looks for model servers of this machine under given settings."""

from __future__ import annotations

import msgspec

from inferq.config import DEFAULT_BACKENDS, Settings
from inferq.executors.discovery import CANDIDATES, Candidate, Discovered, discover


async def look(settings: Settings) -> list[Discovered]:
    """What is there, and how it is or would be used under these settings. At most about a second long; never raises."""
    names = [(backend.name, backend.executor) for backend in settings.backends]
    built_in = names == [(backend.name, backend.executor) for backend in DEFAULT_BACKENDS]
    return await discover(settings.backends, built_in=built_in, candidates=[_placed(candidate, settings) for candidate in CANDIDATES])


def _placed(candidate: Candidate, settings: Settings) -> Candidate:
    """Ollama is where its own backend has it (OLLAMA_HOST)."""
    configured = settings.backend(candidate.name)
    if configured is None or configured.executor != candidate.executor or not isinstance(configured.settings.get("base_url"), str):
        return candidate
    return msgspec.structs.replace(candidate, base_url=configured.settings["base_url"])
