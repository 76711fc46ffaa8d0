"""What a client may say of a task, and the form in which it goes into the store."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from inferq.task.flow import FlowKey, Size

LAST_MOMENT: Final = 253_402_300_799_999
"""Unix milliseconds: the end of the year 9999, the last that a calendar here can show."""


class Submission(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What a client may say about a task; everything else is the queue's. Durations are seconds, instants Unix milliseconds.

    `key` is the idempotency key: the same key with the same body is the same task. `timeout` bounds one attempt, `idle_timeout`
    the silence between chunks, `start_deadline` the moment until which it must have started, `deadline` the whole of it.
    `max_retries` 0 means none; None takes the queue's default. `at_most_once` fails a lost attempt instead of making another.
    `remote` True asks for a remote backend, False forbids one. `batch` and `schedule` are the queue's own: what it came from.
    """

    executor: str
    action: str
    model: str = ""
    payload: dict[str, Any] = {}
    options: dict[str, Any] = {}
    priority: int = 5
    backend: str | None = None
    tenant: str = ""
    key: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    scheduled_at: int | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    start_deadline: int | None = None
    deadline: int | None = None
    max_retries: int | None = None
    at_most_once: bool = False
    stream: bool = False
    estimate: int | None = None
    size: Size | None = None
    remote: bool | None = None
    batch: str | None = None
    schedule: str | None = None


def labels_of(submission: Submission) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs that a task of this submission can be found by: its tags, its schedule."""
    if not submission.tags and submission.schedule is None:
        return ()
    labels = [("tag", tag) for tag in dict.fromkeys(submission.tags)]
    if submission.schedule is not None:
        labels.append(("schedule", submission.schedule))
    return tuple(labels)


class NewTask(msgspec.Struct, gc=False):
    """A validated submission on its way into the store: `spec` is the encoded Submission, `digest` identifies its body for `key`."""

    id: str
    flow: FlowKey
    action: str
    spec: bytes
    estimate: int
    key: str | None = None
    digest: bytes | None = None
    due: int | None = None
    expires: int | None = None
    at_most_once: bool = False
    batch: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    """(name, value) pairs it can be found by: its tags, its schedule."""
