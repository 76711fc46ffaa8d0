"""A whole store as lines of JSON, to be carried to another store: what each line holds, what is left out, what is refused. Pure.

The first line is `Opening`, the last `Closing`; in between records, paused lanes, batches, tasks in the order of their arrival, the lines
of batches, and last which batches take no more lines. An archive holds what is true of any store: no sequence numbers, no claims, no
streams, no event log. What runs is written as it would be after its worker died.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from inferq.access import KEY, TENANT, StoredKey, TenantLimits
from inferq.backend import SWITCH, Switch
from inferq.config.secret import looks_secret
from inferq.errors import FailureCode, InvalidTask
from inferq.schedule import KIND as SCHEDULE
from inferq.schedule import Schedule
from inferq.task import DRAIN, FINAL, LAST_MOMENT, WAITING, Size, State, Submission, TaskResult
from inferq.webhook import KIND as WEBHOOK
from inferq.webhook import Webhook, is_reference

FORMAT: Final = 1
LONGEST_LINE: Final = 256 * 1024 * 1024
"""Bytes of one line."""

Instant = Annotated[int, Meta(ge=0, le=LAST_MOMENT)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Long = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
TaskId = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class _Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class Opening(_Line, tag="inferq", frozen=True, kw_only=True):
    """What this is, and in which version of the format."""

    format: int


class KeptPause(_Line, tag="pause", frozen=True, kw_only=True):
    """A lane that is paused."""

    scope: Name


class KeptRecord(_Line, tag="record", frozen=True, kw_only=True):
    """A schedule, a webhook, a tenant's limits, a backend's switch or a key."""

    type: Literal["schedule", "webhook", "tenant", "backend", "key"]
    id: str
    version: Annotated[int, Meta(ge=1)]
    created: Instant
    updated: Instant
    body: Raw


class KeptBatch(_Line, tag="batch", frozen=True, kw_only=True):
    """A batch without its tasks; `sealed` of one that is finished, for others see `KeptSeal`. `pruned` are ended tasks that it had before:
    completed, failed, cancelled."""

    id: TaskId
    name: str | None = None
    tenant: str = ""
    source: str = ""
    digest: str = ""
    metadata: Raw
    created: Instant
    sealed: Instant | None = None
    finished: Instant | None = None
    held: bool = False
    reason: str | None = None
    lines: Count = 0
    pruned: tuple[Count, Count, Count] = (0, 0, 0)
    input_tokens: Count = 0
    output_tokens: Count = 0


class KeptAttempt(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """An ended attempt; the one that completed its task is not among them, for the result says everything about it."""

    number: Count
    outcome: Name
    worker: str
    started: Instant
    ended: Instant
    backend: str | None = None
    code: FailureCode | None = None
    error: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    remote: bool = False
    tried: Raw | UnsetType = UNSET


class KeptTask(_Line, tag="task", frozen=True, kw_only=True):
    """A task with everything that is its own. `due` is missing from a scheduled one whose batch is held."""

    id: TaskId
    state: State
    lane: Annotated[str, Meta(pattern="/", max_length=2000)]
    priority: Long
    size: Size
    tenant: str = ""
    estimate: Count
    spec: Raw
    digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{2})*$")] | None = None
    batch: str | None = None
    attempt: Count = 0
    failures: Count = 0
    lost: Count = 0
    created: Instant
    due: Instant | None = None
    delay: Count | None = None
    expires: Instant | None = None
    started: Instant | None = None
    finished: Instant | None = None
    code: FailureCode | None = None
    error: str | None = None
    backend: str | None = None
    remote: bool = False
    result: Raw | UnsetType = UNSET
    attempts: tuple[KeptAttempt, ...] = ()


class KeptLines(_Line, tag="lines", frozen=True, kw_only=True):
    """Lines of a batch: number, task, key."""

    batch: str
    lines: tuple[tuple[Count, TaskId, str | None], ...]


class KeptSeal(_Line, tag="sealed", frozen=True, kw_only=True):
    """A batch takes no more lines: it comes after its tasks, or the batch would be finished before they are there."""

    batch: str
    at: Instant


class Closing(_Line, tag="end", frozen=True, kw_only=True):
    """The archive is whole; how many tasks it has."""

    tasks: Count


Item = KeptPause | KeptRecord | KeptBatch | KeptTask | KeptLines | KeptSeal
Line = Opening | Item | Closing

_decoder: Final = msgspec.json.Decoder(Line)
_encode: Final = msgspec.json.Encoder().encode
_decode_spec: Final = msgspec.json.Decoder(Submission).decode
_BODIES: Final[dict[str, Any]] = {SCHEDULE: Schedule, WEBHOOK: Webhook, TENANT: TenantLimits, SWITCH: Switch, KEY: StoredKey}
RECORDS: Final = tuple(kind for kind in _BODIES if kind != KEY)
"""The kinds of records that every archive has; `key` only where it is asked for."""
_NO_PAUSE: Final = frozenset({"*", DRAIN})


def encoded(line: Line) -> bytes:
    """One line with its end."""
    return _encode(line) + b"\n"


def decoded(line: bytes) -> Line:
    """Raises InvalidTask with the reason for what cannot be a line of an archive."""
    try:
        found: Line = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidTask(str(error)) from None
    if isinstance(found, KeptTask):
        _check_task(found)
    elif isinstance(found, KeptRecord):
        _decoded_as(_BODIES[found.type], found.body, "body")
    elif isinstance(found, KeptBatch):
        _decoded_as(dict[str, Any], found.metadata, "metadata")
        if (found.finished is None) != (found.sealed is None):
            raise InvalidTask("expected both or neither of sealed and finished", field="sealed")
    elif isinstance(found, KeptLines) and not found.lines:
        raise InvalidTask("expected at least one line", field="lines")
    elif isinstance(found, KeptPause) and "/" not in found.scope:
        raise InvalidTask(f"expected a lane such as ollama/llama3.2, got {found.scope!r}", field="scope")
    return found


def spec_of(task: KeptTask) -> Submission:
    """What was submitted. Raises InvalidTask."""
    try:
        return _decode_spec(task.spec)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidTask(str(error), field="spec") from None


def _check_task(task: KeptTask) -> None:
    spec_of(task)
    if task.state is State.RUNNING:
        raise InvalidTask("expected no running task: an archive has them waiting", field="state")
    final = task.state in FINAL
    if final != (task.finished is not None):
        raise InvalidTask(f"expected {'a' if final else 'no'} time of its end for a task that is {task.state}", field="finished")
    if (task.state is State.COMPLETED) != (task.result is not UNSET):
        raise InvalidTask(f"expected a result of a completed task and of no other, got one that is {task.state}", field="result")
    if isinstance(task.result, Raw):
        _decoded_as(TaskResult, task.result, "result")
        if task.started is None:
            raise InvalidTask("expected the start of a completed task, got none", field="started")
    if task.due is not None and task.state is not State.SCHEDULED:
        raise InvalidTask(f"expected no due time for a task that is {task.state}", field="due")
    if len({attempt.number for attempt in task.attempts}) != len(task.attempts):
        raise InvalidTask("expected each attempt once", field="attempts")


def _decoded_as(kind: Any, body: Raw, field: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidTask(str(error), field=field) from None


# ── what is left out ────────────────────────────────────────────────────────────────────────────────────────────────


def kept_pause(scope: str) -> KeptPause | None:
    """That all is paused or drained is said of a place, not of the work in it."""
    return None if scope in _NO_PAUSE else KeptPause(scope=scope)


def kept_record(kind: str, id: str, version: int, body: bytes, created: int, updated: int) -> KeptRecord:
    """A record without secrets. Raises msgspec.DecodeError for a body that cannot be read."""
    if kind == WEBHOOK:
        body = _encode(_without_secrets(msgspec.json.decode(body, type=Webhook)))
    made: Any = kind
    return KeptRecord(type=made, id=id, version=version, created=created, updated=updated, body=Raw(body))


def _without_secrets(hook: Webhook) -> Webhook:
    """A webhook as it may leave: what has lost its secret tells nobody anything until it is given another."""
    headers = {name: value for name, value in hook.headers.items() if not looks_secret(name)}
    lost = [*(["secret"] if not is_reference(hook.secret) else []), *sorted(set(hook.headers) - set(headers))]
    if not lost:
        return msgspec.structs.replace(hook, since=0, failing_since=None)
    secret = hook.secret if is_reference(hook.secret) else ""
    reason = hook.reason if hook.reason.startswith(_LOST) else f"{_LOST} {', '.join(lost)}: give them with `inferq webhooks add`"
    return msgspec.structs.replace(hook, headers=headers, secret=secret, enabled=False, reason=reason, since=0, failing_since=None)


_LOST: Final = "an archive holds no secrets, it had"


def arriving(record: KeptRecord, position: int) -> KeptRecord:
    """A record as it is kept where the newest event is at this position: a webhook tells of what happens from now on."""
    if record.type != WEBHOOK:
        return record
    hook = msgspec.structs.replace(msgspec.json.decode(record.body, type=Webhook), since=position)
    return msgspec.structs.replace(record, body=Raw(_encode(hook)))


def submissions(item: Item) -> tuple[Submission, ...]:
    """What would be run, now or later, because of this line."""
    if isinstance(item, KeptTask):
        return (spec_of(item),) if item.state in WAITING else ()
    if isinstance(item, KeptRecord) and item.type == SCHEDULE:
        return (msgspec.json.decode(item.body, type=Schedule).task,)
    return ()


# ── what came of it ─────────────────────────────────────────────────────────────────────────────────────────────────


class Wrong(msgspec.Struct, frozen=True):
    """A line that was not taken, and why."""

    line: int
    reason: str


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import came to: lines that were new by kind, how many were there already, how many were refused (the first of them in
    `errors`), and whether the archive was read to its end."""

    added: dict[str, int]
    present: int
    wrong: int
    errors: list[Wrong]
    whole: bool
    dry_run: bool = False


_BLANK: Final = re.compile(rb"\s*")


def is_blank(line: bytes) -> bool:
    return _BLANK.fullmatch(line) is not None
