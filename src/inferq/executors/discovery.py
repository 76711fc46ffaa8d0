"""Model servers of this machine that nobody has configured: an Ollama, a llama.cpp server, a vLLM, each where it usually listens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from inferq.config import BackendSettings
from inferq.errors import InferqError, PluginError
from inferq.executors.loader import load

_PATIENCE: Final = 1.0
"""Seconds that each server gets to answer; all are asked at once."""


class Candidate(msgspec.Struct, frozen=True):
    """A server that may be there: what people call it, the executor that speaks to it, the name its backend would get."""

    title: str
    executor: str
    name: str
    base_url: str


CANDIDATES: Final = (
    Candidate("Ollama", "ollama", "ollama", "http://127.0.0.1:11434"),
    Candidate("llama.cpp server", "openai", "llamacpp-server", "http://127.0.0.1:8080/v1"),
    Candidate("vLLM", "openai", "vllm", "http://127.0.0.1:8000/v1"),
)


class Discovered(msgspec.Struct, frozen=True):
    """What looking for one server came to. `note` says how it is used, or why it is not, or why it was not found."""

    title: str
    address: str
    found: bool
    models: tuple[str, ...] = ()
    note: str = ""
    used: bool = False
    backend: BackendSettings | None = None
    """The backend to make of it, where it is to be used and does not exist yet."""


async def discover(
    configured: Sequence[BackendSettings], *, built_in: bool, candidates: Sequence[Candidate] = CANDIDATES, patience: float = _PATIENCE
) -> list[Discovered]:
    """Look for all candidates at once, each for `patience` seconds at most. Never raises.

    `configured` are the backends of the settings, `built_in` says that nobody wrote them. A server is used only where no backend of
    its executor was configured; one that speaks OpenAI's API also runs tasks for Ollama, if there is no Ollama.
    """
    models = await asyncio.gather(*(_models(candidate, patience) for candidate in candidates))
    ollama = any(candidate.executor == "ollama" and not problem for candidate, (_, problem) in zip(candidates, models, strict=True))
    kinds = set() if built_in else {backend.executor for backend in configured}
    serves = () if ollama or "ollama" in kinds else ("ollama",)
    return [
        _judged(candidate, names, problem, configured=configured, kinds=kinds, serves=serves)
        for candidate, (names, problem) in zip(candidates, models, strict=True)
    ]


def _judged(
    candidate: Candidate,
    names: tuple[str, ...],
    problem: str,
    *,
    configured: Sequence[BackendSettings],
    kinds: set[str],
    serves: tuple[str, ...],
) -> Discovered:
    told: dict[str, Any] = {"title": candidate.title, "address": candidate.base_url}
    if problem:
        return Discovered(**told, found=False, note=problem)
    told |= {"found": True, "models": names}
    if candidate.executor in kinds:
        mine = ", ".join(backend.name for backend in configured if backend.executor == candidate.executor)
        return Discovered(**told, note=f"not used: {mine} is configured for executor {candidate.executor}")
    if any(backend.name == candidate.name for backend in configured):
        return Discovered(**told, note=f"used as backend {candidate.name}", used=True)
    also = serves if candidate.executor != "ollama" else ()
    settings = {"base_url": candidate.base_url}
    made = BackendSettings(candidate.name, candidate.executor, models=names, settings=settings, serves=also, remote=False)
    lanes = " and ".join((candidate.executor, *also))
    return Discovered(**told, note=f"used as backend {candidate.name} for tasks of executor {lanes}", used=True, backend=made)


async def _models(candidate: Candidate, patience: float) -> tuple[tuple[str, ...], str]:
    """The models it lists, and why it is not what it should be; empty when it is."""
    settings = {"base_url": candidate.base_url, "connect_timeout": patience}
    try:
        executor = load(candidate.executor)(candidate.name, settings)
    except (PluginError, InferqError) as error:
        return (), str(error)
    try:
        async with asyncio.timeout(patience):
            return tuple(sorted(await executor.models())), ""
    except TimeoutError:
        return (), f"no answer within {patience:g} s"
    except InferqError as error:
        return (), _short(str(error))
    finally:
        await executor.close()


def _short(text: str) -> str:
    """What went wrong, without the address that is said beside it."""
    if "connection refused" in text:
        return "nobody listens there"
    return text.split("): ", 1)[-1] if "): " in text else text


__all__ = ["CANDIDATES", "Candidate", "Discovered", "discover"]
