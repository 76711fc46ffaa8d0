"""From what a caller says to what a store keeps: types, JSON that survives, the executor's own rules, estimate, size class, id."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from inferq.errors import InvalidTask, PayloadTooLarge, UnknownAction
from inferq.estimate import estimate, size_class
from inferq.executor import Executor
from inferq.given import checked_instant, checked_priority, checked_seconds
from inferq.task import LAST_MOMENT, FlowKey, NewTask, Size, Submission, labels_of, lane_of, new_id

LONGEST_KEY: Final = 512
"""Characters of an idempotency key, wherever it comes from."""
MAX_DEPTH: Final = 64
"""Levels of nesting that a payload may have."""

_encode: Final = msgspec.json.Encoder().encode
STREAMED_ACTIONS: Final = ["chat", "generate", "execute"]
"""Actions whose chunks are kept unless the submission says otherwise. A list, so that an action of any type can be looked for."""
_NAMED: Final = re.compile(r"field `(.*?)`$")
_PLACE: Final = re.compile(r"^(.*?) - at (?:`key` in )?`\$\.?(.*?)`$", re.DOTALL)


def submission_from(given: Submission | Mapping[str, Any]) -> Submission:
    """A submission from a mapping such as a JSON object; names of priorities become numbers, times with a zone (RFC 3339) Unix
    milliseconds, texts such as `10m` seconds. Raises InvalidTask naming the field.
    """
    if isinstance(given, Submission):
        return given
    if not isinstance(given, Mapping):
        raise InvalidTask(f"expected a Submission or a mapping with executor, action and payload, got {type(given).__name__}")
    fields = dict(given)
    if "priority" in fields:
        fields["priority"] = checked_priority(fields["priority"])
    if fields.get("stream") is None:
        fields["stream"] = fields.get("action") in STREAMED_ACTIONS
    for name in ("payload", "options", "metadata"):
        if name in fields and fields[name] is not None:
            fields[name] = plain(fields[name])
    # What is no text is left to the types, which name the field too.
    for name in _MOMENTS:
        if isinstance(fields.get(name), str | datetime):
            fields[name] = checked_instant(fields[name], name)
    for name in _DURATIONS:
        if isinstance(fields.get(name), str | timedelta):
            fields[name] = checked_seconds(fields[name], name)
    try:
        return msgspec.convert(fields, Submission)
    except msgspec.ValidationError as error:
        raise located(error) from None


def refuse_origin(batch: object, schedule: object) -> None:
    """What a task came from is the queue's own word. Raises InvalidTask."""
    for field, said, where in (("batch", batch, "queue.batches"), ("schedule", schedule, "queue.schedules")):
        if said is not None:
            raise InvalidTask(f"expected none, got {said!r}: the queue itself says this of tasks that come through {where}", field=field)


def plain(value: Any) -> Any:
    """A mapping as a dict, nothing as an empty one; anything else as it is, to be refused by its type."""
    if type(value) is dict:
        return value
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else value


def located(error: Exception) -> InvalidTask:
    """Our error for msgspec's, with the place as a field."""
    match = _PLACE.match(str(error))
    text, field = match.groups() if match else (str(error), "")
    named = _NAMED.search(text)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    return InvalidTask(text[:1].lower() + text[1:], field=field)


def admit(given: Submission | Mapping[str, Any], executor_of: Callable[[str, str | None], Executor], *, max_bytes: int) -> NewTask:
    """Check everything and make it ready to be kept; nothing is stored when this raises (InvalidTask and its kinds)."""
    submission = _checked(given)
    executor = executor_of(submission.executor, submission.backend)
    _check_values(submission)
    return _ready(submission, executor, max_bytes)


_NOTHING: Final = object()


class Admission:
    """Admits many submissions from JSON, one after the other: what one has in common with the one before is not checked again.

    `allow` sees each submission before it is checked, and may change or refuse it. The mappings that are given are used up.
    """

    def __init__(
        self,
        executor_of: Callable[[str, str | None], Executor],
        *,
        max_bytes: int,
        allow: Callable[[Submission], Submission] | None = None,
    ) -> None:
        self._executor_of = executor_of
        self._max_bytes = max_bytes
        self._allow = allow
        self._like: dict[str, Any] = {}
        self._first: Submission | None = None
        self._executor: Executor | None = None

    def admit(self, fields: dict[str, Any]) -> NewTask:
        """As `admit` does. Raises InvalidTask and its kinds, and what `allow` raises."""
        payload = fields.pop("payload", _NOTHING)
        if payload is _NOTHING:
            payload = {}
        if self._first is None or self._executor is None or fields != self._like or type(payload) is not dict:
            return self._other(fields, payload)
        submission = msgspec.structs.replace(self._first, payload=payload)
        if self._allow is not None:
            submission = self._allow(submission)
        return _ready(submission, self._executor, self._max_bytes, suspect=_suspect)

    def _other(self, fields: dict[str, Any], payload: Any) -> NewTask:
        """One that differs from those before in more than its payload: checked in every respect, and remembered."""
        self._first = None
        submission = submission_from(fields | {"payload": payload})
        made = admit(submission if self._allow is None else self._allow(submission), self._executor_of, max_bytes=self._max_bytes)
        self._executor = self._executor_of(submission.executor, submission.backend)
        self._like, self._first = fields, submission
        return made


def _suspect(spec: bytes) -> bool:
    """Whether what came from JSON may still hold what is refused: of that, NUL and deep nesting show in the encoded text."""
    return b"\\u0000" in spec or spec.count(b"[") + spec.count(b"{") > MAX_DEPTH


def _ready(submission: Submission, executor: Executor, max_bytes: int, *, suspect: Callable[[bytes], bool] | None = None) -> NewTask:
    """What has been checked, as the store keeps it; its payload only where it is `suspect`. Raises PayloadTooLarge, and what the
    executor's own rules refuse."""
    spec = _encoded(submission)
    if suspect is not None and suspect(spec):
        check_json(submission.payload, "payload")
    if len(spec) > max_bytes:
        raise PayloadTooLarge(f"expected at most {max_bytes:,} bytes (store.max_payload_bytes), got {len(spec):,}", field="payload")
    _check_executor_rules(submission, executor)
    tokens = submission.estimate
    if tokens is None and type(executor).estimate is not Executor.estimate:
        tokens = executor.estimate(submission.action, submission.payload)
    if tokens is None:
        tokens = estimate(submission.action, submission.payload, submission.options)
    start, end = submission.start_deadline, submission.deadline
    return NewTask(
        id=new_id(),
        flow=_flow_key(
            submission.executor,
            submission.model,
            submission.backend,
            submission.priority,
            submission.size or size_class(tokens),
            submission.tenant,
            submission.remote,
        ),
        action=submission.action,
        spec=spec,
        estimate=tokens,
        key=submission.key,
        digest=_digest(submission) if submission.key is not None else None,
        due=submission.scheduled_at,
        expires=min(start, end) if start is not None and end is not None else start if end is None else end,
        at_most_once=submission.at_most_once,
        batch=submission.batch,
        labels=labels_of(submission),
    )


def checked(given: Submission | Mapping[str, Any]) -> Submission:
    """Check all that needs no executor, as whoever sends it elsewhere must: what JSON would lose or garble is refused here."""
    submission = _checked(given)
    _check_values(submission)
    _encoded(submission)
    return submission


def _checked(given: Submission | Mapping[str, Any]) -> Submission:
    submission = submission_from(given)
    if not _is_plain(submission):
        if submission is given:
            # It was built by hand, and structs do not check what they are built from.
            _check_types(submission)
        _check_own_rules(submission)
    return submission


def _check_values(submission: Submission) -> None:
    for name, value in (("payload", submission.payload), ("options", submission.options), ("metadata", submission.metadata)):
        if value:
            check_json(value, name)


@lru_cache(maxsize=4096)
def _flow_key(executor: str, model: str, backend: str | None, priority: int, size: Size, tenant: str, remote: bool | None) -> FlowKey:
    return FlowKey(lane_of(executor, model, backend, remote=remote), priority, size, tenant)


def _is_plain(submission: Any) -> bool:
    """Whether it is one of the many: right types, and nothing in the fields that need a closer look. Errs towards False."""
    return (
        type(submission.executor) is str
        and type(submission.action) is str
        and type(submission.model) is str
        and submission.model.isprintable()
        and type(submission.tenant) is str
        and submission.tenant.isprintable()
        and type(submission.priority) is int
        and -_BIGGEST < submission.priority < _BIGGEST
        and type(submission.payload) is dict
        and type(submission.options) is dict
        and type(submission.metadata) is dict
        and submission.tags == []
        and submission.backend is None
        and submission.key is None
        and submission.scheduled_at is None
        and submission.start_deadline is None
        and submission.deadline is None
        and submission.timeout is None
        and submission.idle_timeout is None
        and submission.max_retries is None
        and submission.estimate is None
        and submission.size is None
        and submission.remote is None
        and (submission.batch is None or (type(submission.batch) is str and submission.batch.isprintable()))
        and submission.schedule is None
        and type(submission.stream) is bool
        and type(submission.at_most_once) is bool
    )


def _check_types(submission: Submission) -> None:
    try:
        msgspec.convert({name: getattr(submission, name) for name in submission.__struct_fields__}, Submission)
    except msgspec.ValidationError as error:
        raise located(error) from None


def _encoded(submission: Submission) -> bytes:
    try:
        spec = _encode(submission)
    except UnicodeEncodeError as error:
        raise InvalidTask(f"expected text that UTF-8 can hold, got a lone surrogate ({error.reason})", field="submission") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidTask(f"expected JSON values, got: {error}", field="submission") from None
    except RecursionError:
        raise InvalidTask(f"expected at most {MAX_DEPTH} levels of nesting, got more", field="payload") from None
    return spec


def _digest(submission: Submission) -> bytes:
    """Of the body: without the key itself and the moments, which a repeated call counts from a later now."""
    body = msgspec.structs.replace(submission, key=None, scheduled_at=None, start_deadline=None, deadline=None)
    return hashlib.blake2b(_encode(body), digest_size=16).digest()


_TEXTS: Final = ("executor", "action", "model", "tenant", "backend", "key", "batch", "schedule")
_MOMENTS: Final = ("scheduled_at", "start_deadline", "deadline")
_DURATIONS: Final = ("timeout", "idle_timeout")
_COUNTS: Final = ("max_retries", "estimate")
_BIGGEST: Final = 2**53


def _check_own_rules(submission: Submission) -> None:
    for name in _TEXTS:
        text = getattr(submission, name)
        if text:
            check_json(text, name)
    for index, tag in enumerate(submission.tags):
        check_json(tag, f"tags[{index}]")
    if not -(2**63) <= submission.priority < 2**63:
        raise InvalidTask(f"expected an integer of 64 bits, got {submission.priority}", field="priority")
    for name in _DURATIONS:
        limit = getattr(submission, name)
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InvalidTask(f"expected seconds above 0, got {limit}", field=name)
    for name in _MOMENTS:
        moment = getattr(submission, name)
        if moment is not None and not 0 <= moment <= LAST_MOMENT:
            raise InvalidTask(f"expected Unix milliseconds from 1970 to 9999, got {moment}", field=name)
    for name in _COUNTS:
        count = getattr(submission, name)
        if count is not None and not 0 <= count < _BIGGEST:
            raise InvalidTask(f"expected a number between 0 and 2^53, got {count}", field=name)
    if submission.key == "":
        raise InvalidTask("expected a key of at least one character, got an empty one; leave it out for none", field="key")
    if submission.key is not None and len(submission.key) > LONGEST_KEY:
        raise InvalidTask(f"expected a key of at most {LONGEST_KEY} characters, got {len(submission.key):,}", field="key")


def _check_executor_rules(submission: Submission, executor: Executor) -> None:
    action, payload = submission.action, submission.payload
    if action not in executor.actions:
        known = ", ".join(executor.actions)
        raise UnknownAction(f"expected an action of executor {submission.executor} ({known}), got {action!r}", field="action")
    if executor.needs_model and not submission.model:
        raise InvalidTask(f"expected the name of a model for executor {submission.executor}, got none", field="model")
    for name in executor.required.get(action, ()):
        if name not in payload:
            raise InvalidTask(f"expected this field for action {action}, got none", field=f"payload.{name}")
    executor.validate(action, submission.model, payload)


def check_json(value: Any, path: str, depth: int = 1) -> None:
    """Refuse what JSON or the wire would lose or garble: NaN, infinities, NUL, other types, keys that are no text, deep nesting."""
    kind = type(value)
    if kind is str:
        if "\x00" in value:
            raise InvalidTask("expected text without NUL characters, got one", field=path)
        if not value.isascii():
            _check_unicode(value, path)
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidTask(f"expected a finite number, got {value}", field=path)
    elif kind is dict or kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            raise InvalidTask(f"expected at most {MAX_DEPTH} levels of nesting, got more", field=path)
        if kind is dict:
            for key, part in value.items():
                if type(key) is not str:
                    raise InvalidTask(f"expected text as key, got {key!r}", field=path)
                check_json(key, f"{path} (key)", depth + 1)
                check_json(part, f"{path}.{key}", depth + 1)
        else:
            for index, part in enumerate(value):
                check_json(part, f"{path}[{index}]", depth + 1)
    elif kind is int:
        if not -(2**63) <= value < 2**64:
            raise InvalidTask(f"expected an integer of 64 bits, got {value}", field=path)
    elif value is not None and kind is not bool:
        raise InvalidTask(f"expected a JSON value (text, number, true, false, null, list, object), got {kind.__name__}", field=path)


def _check_unicode(text: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidTask("expected text that UTF-8 can hold, got a lone surrogate", field=path) from None
