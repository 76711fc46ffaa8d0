"""What executors hand over, checked before it is kept: plugins may yield anything, and structs do not check what they are built from."""

from __future__ import annotations

import math
from typing import Any, Final, get_args

import msgspec

from inferq.errors import PluginError
from inferq.executor import Answer, Chunk, ChunkKind, Executor, Usage, tokens_of

_KINDS: Final = frozenset(get_args(ChunkKind))


def checked(given: Answer, executor: Executor) -> Answer:
    """The answer, if its fields have their types: structs do not check what they are built from. Raises PluginError."""
    answer: Any = given
    usage = answer.usage
    good = (
        isinstance(answer.text, str | None)
        and isinstance(answer.message, dict | None)
        and isinstance(answer.finish_reason, str | None)
        and isinstance(answer.model, str | None)
        and (answer.embeddings is None or (isinstance(answer.embeddings, list) and all(map(_is_vector, answer.embeddings))))
        and (usage is None or (isinstance(usage, Usage) and all(isinstance(count, int | None) for count in msgspec.structs.astuple(usage))))
    )
    if not good:
        raise PluginError(f"executor {executor.name} must answer with the types of Answer, it answered {str(answer)[:500]}")
    if usage is None:
        return given
    # A count that can be none is no reason to lose the answer.
    counted = Usage(*map(tokens_of, msgspec.structs.astuple(usage)))
    return given if counted == usage else msgspec.structs.replace(given, usage=counted)


def _is_vector(value: object) -> bool:
    """Whether it can be kept and read again: JSON has no infinity, and true is no number."""
    try:
        return isinstance(value, list) and all(type(number) is not bool and math.isfinite(number) for number in value)
    except (TypeError, OverflowError):
        return False


def sound(chunk: Any, executor: Executor) -> Chunk:
    """The chunk as the log can keep it: a known kind, text that UTF-8 can hold, data that is JSON. Raises PluginError."""
    if type(chunk.kind) is not str or chunk.kind not in _KINDS or type(chunk.text) is not str:
        raise PluginError(f"executor {executor.name} must yield chunks of a known kind with text, it yielded {str(chunk)[:500]}")
    kind: Any = chunk.kind
    if chunk.data is not None:
        try:
            msgspec.json.encode(chunk.data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise PluginError(f"executor {executor.name} must yield chunks of JSON values: {error!r}") from None
    if not chunk.text.isascii():
        text = readable(chunk.text)
        if text != chunk.text:
            return Chunk(kind, text, chunk.data)
    kept: Chunk = chunk
    return kept


def readable(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode()
