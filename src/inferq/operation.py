"""Bulk operations as values: what is done to all tasks that pass a filter, how far it has come, and what it touches. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from inferq.access import Principal
from inferq.errors import InvalidQuery, InvalidTask
from inferq.query import Query, Search, Term, Text, asked_text, parse, search
from inferq.task import FINAL, WAITING, State, Submission, Task

KIND: Final = "operation"
"""The kind of its records."""
VERBS: Final = ("cancel", "retry", "priority", "delete")
BITE: Final = 500
"""Tasks that are changed in one transaction."""
COUNTED: Final = 10_000
"""Matches that a preview counts; then it says that there are more."""
KEPT_FAILURES: Final = 20
EXAMPLES: Final = 10
GROWTH: Final = 1.1
"""By how much the matches may have grown since they were shown to somebody."""

Verb = Literal["cancel", "retry", "priority", "delete"]
Standing = Literal["preview", "running", "done", "stopped", "failed"]

TOUCHED: Final[dict[str, tuple[State, ...]]] = {
    "cancel": (*sorted(WAITING), State.RUNNING),
    "retry": (State.FAILED, State.CANCELLED),
    "priority": tuple(sorted(WAITING)),
    "delete": tuple(sorted(FINAL)),
}
"""The states of tasks that an operation can change; others pass it by and are not counted."""


class Failure(msgspec.Struct, frozen=True):
    """A task that could not be changed, and why."""

    task_id: str
    code: str
    error: str


class Example(msgspec.Struct, frozen=True):
    """One of the tasks that an operation would change; `asked` is the beginning of what was asked."""

    id: str
    state: State
    action: str
    model: str
    priority: int
    created: int
    asked: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk operation and how far it has come. Instants are Unix milliseconds.

    `expected` is how many tasks passed when it began (`more`: at least so many), `matched` how many were taken so far, of which `done`
    were changed and `failed` were not; `failures` are the first of these. Tasks behind the sequence number `bound` came later and are
    not touched. `state` is `preview` for one that was only counted: it has no id and changes nothing.
    """

    id: str
    verb: Verb
    q: str
    state: Standing
    priority: int | None = None
    reason: str = ""
    expected: int = 0
    more: bool = False
    matched: int = 0
    done: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()
    examples: tuple[Example, ...] = ()
    bound: int = 0
    who: str = ""
    tenant: str | None = None
    error: str = ""
    created: int = 0
    updated: int = 0
    finished: int | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in ("preview", "running")


class Kept(msgspec.Struct, frozen=True):
    """An operation as its record keeps it: with the bite that is being taken, so that whoever goes on after a crash counts it once.

    `after` is where the next bite begins, `owner` the instance that works on it; empty: nobody. `by` is who asked, where a key bounds what
    may be made again.
    """

    operation: Operation
    after: int
    taken: tuple[str, ...] = ()
    owner: str = ""
    by: Principal | None = None


def asked_of(verb: str, q: str, *, tenant: str | None = None) -> Query:
    """What an operation looks for: the filter, and the states that the verb can change. Raises InvalidQuery, InvalidTask."""
    if verb not in VERBS:
        raise InvalidTask(f"expected one of {', '.join(VERBS)}, got {verb!r}", field="verb")
    said = parse(q)
    if not said.terms:
        raise InvalidQuery("expected a filter that says which tasks, got none; for all of them say state:*")
    if said.sort is not None or said.limit is not None:
        raise InvalidQuery("expected a filter without sort: and limit:, because all tasks that pass are changed")
    touched = Term("state", tuple(Text(str(state)) for state in TOUCHED[verb]))
    own = () if tenant is None else (Term("tenant", (Text(tenant),)),)
    return Query((*said.terms, touched, *own))


def question(operation: Operation) -> Search:
    """The search of an operation, at the moment it began: its relative times do not move while it runs."""
    return search(asked_of(operation.verb, operation.q, tenant=operation.tenant), operation.created)


def check_arguments(verb: str, priority: int | None) -> None:
    """Raises InvalidTask when the priority is missing or means nothing."""
    if (verb == "priority") != (priority is not None):
        wanted = "a priority to move the tasks to" if verb == "priority" else f"no priority for {verb}"
        raise InvalidTask(f"expected {wanted}, got {priority!r}", field="priority")


def example_of(task: Task) -> Example:
    return Example(task.id, task.state, task.action, task.model, task.priority, task.created, _beginning(task.spec))


def _beginning(spec: Submission) -> str:
    return " ".join(asked_text(spec, 200).split())[:80]


def is_changed(operation: Operation, task: Task | None) -> bool:
    """Whether a task of a bite that was begun by somebody else is already as the operation wants it."""
    if operation.verb == "delete":
        return task is None
    if task is None:
        return False
    if operation.verb == "cancel":
        return task.state is State.CANCELLED
    if operation.verb == "retry":
        return task.state not in TOUCHED["retry"]
    return task.priority == operation.priority


def counted(operation: Operation, failures: list[Failure], taken: int, now: int) -> Operation:
    """The operation after a bite."""
    return msgspec.structs.replace(
        operation,
        matched=operation.matched + taken,
        done=operation.done + taken - len(failures),
        failed=operation.failed + len(failures),
        failures=(*operation.failures, *failures)[:KEPT_FAILURES],
        updated=now,
    )


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Kept).decode


def encoded(kept: Kept) -> bytes:
    return _encode(kept)


def decoded(body: bytes) -> Kept:
    return _decode(body)
