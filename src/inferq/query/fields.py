"""The fields that a filter may name: what each means, what its values are, and which other names people give it. Pure."""

from __future__ import annotations

import difflib
from typing import Final, Literal, NamedTuple

Kind = Literal["text", "id", "state", "size", "code", "number", "priority", "time", "duration"]

ORDERED: Final = frozenset({"number", "priority", "time", "duration"})
"""Kinds that know more and less: `>`, `>=`, `<`, `<=` and `a..b`."""


class Field(NamedTuple):
    """One field: `others` are further names that are understood, `indexed` says that a page costs the same whatever the queue holds."""

    name: str
    kind: Kind
    meaning: str
    example: str
    others: tuple[str, ...] = ()
    indexed: bool = False


META: Final = "meta."
"""Begins the fields that name a value of the task's metadata."""

_TABLE: Final = (
    Field("id", "id", "the id, or its beginning", "id:019ab3c4", ("task_id",), indexed=True),
    Field("state", "state", "where it stands; `waiting` and `ended` stand for several states", "state:failed,cancelled", ("status",), True),
    Field("action", "text", "what is asked for: chat, generate, embed...", "action:embed", ("type",)),
    Field("executor", "text", "the executor it was submitted to", "executor:ollama", indexed=True),
    Field("backend", "text", "where its latest attempt was made, or the backend it asked for by name", "backend:gpu-1"),
    Field("model", "text", "the model", "model:qwen3*", indexed=True),
    Field("priority", "priority", "the priority, by name or number", "priority:>=high", indexed=True),
    Field("size", "size", "the size class: low, medium, long", "size:long", ("class", "size_class"), indexed=True),
    Field("tenant", "text", "on whose account it runs", "tenant:acme", indexed=True),
    Field("tag", "text", "a tag that it carries", "tag:nightly", ("tags",), indexed=True),
    Field(META + "<key>", "text", "a value of its metadata, as text", "meta.customer:42", ("metadata.<key>",)),
    Field("batch", "text", "the batch it belongs to", "batch:019ab3c4-d5e6-7f01-8000-000000000000", ("batch_id",), indexed=True),
    Field("schedule", "text", "the schedule that made it", "schedule:daily-report", ("cron",), indexed=True),
    Field("key", "text", "its idempotency key", "key:order-17", ("idempotency_key",), indexed=True),
    Field("error", "code", "the failure code of its latest attempt", "error:rate_limited", ("code",), indexed=True),
    Field("attempt", "number", "how many attempts have begun", "attempt:>1", ("attempts",)),
    Field("created", "time", "when it was submitted", "created:>-2h", ("submitted",), indexed=True),
    Field("started", "time", "when its latest attempt began", "started:-10m"),
    Field("finished", "time", "when it ended", "finished:2026-11-21", ("completed", "ended")),
    Field("scheduled", "time", "when it is due, while it is scheduled", "scheduled:<+1h", ("due", "scheduled_at")),
    Field("deadline", "time", "when it must have ended", "deadline:<+10m"),
    Field("wait", "duration", "from its submission to its latest start, or until now", "wait:>10m", ("waited",)),
    Field("run", "duration", "from its latest start to its end, or until now", "run:30s..5m", ("ran",)),
    Field("tokens", "number", "its estimated tokens, input and output", "tokens:>4000", ("estimate",)),
)

FIELDS: Final[dict[str, Field]] = {field.name: field for field in _TABLE if not field.name.startswith(META)}
META_FIELD: Final = next(field for field in _TABLE if field.name.startswith(META))
TABLE: Final = _TABLE
"""In the order of the documentation, `meta.<key>` among them."""

_OTHERS: Final = {other: field.name for field in _TABLE for other in field.others}
SETTINGS: Final = ("sort", "limit")
"""What a filter may say of the listing instead of the tasks."""

# Words of other queues, and of what a later inferq may have: the nearest of today's.
_ELSEWHERE: Final = {"queue": "model", "user": "tenant", "owner": "tenant", "worker": "backend", "age": "wait"}


def field_named(name: str) -> Field | None:
    """The field of that name or other name; `meta.<key>` has the name as it was written."""
    lowered = name.lower()
    for prefix in (META, "metadata."):
        if lowered.startswith(prefix) and len(name) > len(prefix):
            return META_FIELD._replace(name=META + name[len(prefix) :])
    return FIELDS.get(_OTHERS.get(lowered, lowered))


def nearest(name: str) -> str | None:
    """The field that somebody who wrote `name` may have meant."""
    lowered = name.lower()
    known = [*FIELDS, *_OTHERS, *SETTINGS, "meta.<key>"]
    near = difflib.get_close_matches(lowered, known, n=1, cutoff=0.6)
    return near[0] if near else _ELSEWHERE.get(lowered)


def near_word(word: str, known: tuple[str, ...]) -> str:
    """`; did you mean failed?`, or nothing."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
