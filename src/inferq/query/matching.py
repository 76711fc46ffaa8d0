"""Whether one task passes a search: what every store's answer is judged by, and what filters a live stream. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from inferq.query.fields import META
from inferq.query.words import Search, Test
from inferq.task import FINAL, LOCAL, REMOTE, State, Submission, Task, lane_parts

ASKED: Final = 2000
"""Characters of the preview of what was asked that words are looked for in."""
_NO_TEXT: Final = frozenset({"role", "type", "images", "image_url", "format"})


def matches(task: Task, asked: Search) -> bool:
    """Whether every test holds for the task."""
    return all(holds(task, test, asked.now) for test in asked.tests)


def holds(task: Task, test: Test, now: int) -> bool:
    """Whether one test does."""
    return _positive(task, test, now) is not test.negated


def _positive(task: Task, test: Test, now: int) -> bool:
    if test.field == "":
        return any(_says(task, word) for word in test.texts)
    number = _NUMBERS.get(test.field)
    if number is not None:
        value = number(task, now)
        return value is not None and (test.present or in_spans(value, test))
    if test.field.startswith(META):
        return text_passes(_metadata(task.spec.metadata, test.field.removeprefix(META)), test)
    return text_passes(_TEXTS[test.field](task), test)


def text_passes(values: Iterable[str | None], test: Test) -> bool:
    """Whether one of these values is one of the test's, its sign left aside."""
    return any(
        value in test.texts or (test.present and value != "") or any(value.startswith(prefix) for prefix in test.prefixes)
        for value in values
        if value is not None
    )


def in_spans(value: int, test: Test) -> bool:
    return any((low is None or value >= low) and (high is None or value <= high) for low, high in test.spans)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _says(task: Task, word: str) -> bool:
    return task.id.startswith(word.lower()) or folded(word) in folded(asked_text(task.spec))


def folded(text: str) -> bytes:
    """Letters of ASCII made small; nothing else changes, so that every store can do the same."""
    return text.encode("utf-8", "surrogatepass").lower()


def asked_text(spec: Submission, limit: int = ASKED) -> str:
    """The beginning of what was asked: the texts of the payload, in their order, without images and without the frame of messages."""
    found: list[str] = []
    left = limit
    for text in _texts(spec.payload):
        found.append(text[:left])
        left -= len(text) + 1
        if left <= 0:
            break
    return "\n".join(found)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            if name not in _NO_TEXT:
                yield from _texts(part)
    elif isinstance(value, list):
        for part in islice(value, 1000):
            yield from _texts(part)


def _metadata(metadata: dict[str, Any], key: str) -> Iterable[str | None]:
    """The values under a key: the key as it is, else a path of keys with dots between."""
    if key in metadata:
        return _as_texts(metadata[key])
    value: Any = metadata
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return ()
        value = value[part]
    return _as_texts(value)


def _as_texts(value: Any) -> Iterable[str | None]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return [text for part in value for text in ([part] if isinstance(part, str) else [_json(part)])]
    return () if value is None else (_json(value),)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ── the fields ──────────────────────────────────────────────────────────────────────────────────────────────────────


def waited(task: Task, now: int) -> int:
    """Milliseconds from its submission to its latest start; without one to its end, or until now."""
    until = task.started if task.started is not None else task.finished if task.finished is not None else now
    return max(0, until - task.created)


def ran(task: Task, now: int) -> int | None:
    """Milliseconds from its latest start to its end, or until now while it runs."""
    if task.started is None or (task.state not in FINAL and task.state is not State.RUNNING):
        return None
    return max(0, (task.finished if task.finished is not None else now) - task.started)


def named_backend(lane: str) -> str | None:
    """The backend that a lane names; none where it only says of which sort."""
    backend = lane_parts(lane)[2]
    return None if backend in (REMOTE, LOCAL) else backend


_NUMBERS: Final[dict[str, Callable[[Task, int], int | None]]] = {
    "priority": lambda task, _: task.flow.priority,
    "attempt": lambda task, _: task.attempt,
    "created": lambda task, _: task.created,
    "started": lambda task, _: task.started,
    "finished": lambda task, _: task.finished,
    "scheduled": lambda task, _: task.due,
    "deadline": lambda task, _: task.spec.deadline,
    "wait": waited,
    "run": ran,
    "tokens": lambda task, _: task.estimate,
}

_TEXTS: Final[dict[str, Callable[[Task], Iterable[str | None]]]] = {
    "id": lambda task: (task.id,),
    "state": lambda task: (str(task.state),),
    "action": lambda task: (task.spec.action,),
    "executor": lambda task: (lane_parts(task.flow.lane)[0],),
    "model": lambda task: (lane_parts(task.flow.lane)[1],),
    "backend": lambda task: (task.backend if task.backend is not None else named_backend(task.flow.lane),),
    "size": lambda task: (task.flow.size,),
    "tenant": lambda task: (task.flow.tenant,),
    "tag": lambda task: task.spec.tags,
    "batch": lambda task: (task.spec.batch,),
    "schedule": lambda task: (task.spec.schedule,),
    "key": lambda task: (task.spec.key,),
    "error": lambda task: (task.code,),
}
