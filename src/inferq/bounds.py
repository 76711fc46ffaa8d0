"""What a submission names, wherever it names it: models in fields that travel to a backend, and names against a key's patterns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from inferq.task import Submission

REACH_ANYTHING: Final = frozenset({"script", "http"})
"""Executors whose tasks may reach a model without naming it."""

_WORDS: Final = frozenset({"messages", "prompt", "system", "input", "suffix", "template"})
"""Fields of a payload in which people say things: a model that is named there is only talked about."""
_SHAPES: Final = frozenset(
    {"parameters", "properties", "schema", "json_schema", "response_format", "format", "guided_json", "grammar", "metadata"}
)
"""Fields that describe JSON, or that no backend reads as a wish."""


def fits_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of these, or begins as one that ends with `*`."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def models_in(submission: Submission) -> Iterator[str]:
    """Every model that a submission names. Payload and options travel to the backend, and servers read models from many places there:
    `models`, fallbacks, a tool's or a plugin's own `model`, whatever `extra_body` is spread into."""
    yield submission.model
    said = {name: value for name, value in submission.payload.items() if name not in _WORDS}
    rest: list[Any] = [said, submission.options]
    while rest:
        value = rest.pop()
        if isinstance(value, list | tuple):
            rest += value
        elif isinstance(value, Mapping):
            for name, part in value.items():
                if _names_models(name):
                    yield from _texts(part)
                elif name not in _SHAPES:
                    rest.append(part)


def _names_models(name: Any) -> bool:
    text = str(name).lower()
    return text in ("model", "models") or text.endswith(("_model", "_models")) or "fallback" in text


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too: some fallbacks stand in lists under the model that they stand in for."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            # A whole request may stand there; only what it calls its model counts.
            rest += [part["model"]] if "model" in part else [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            rest += part
