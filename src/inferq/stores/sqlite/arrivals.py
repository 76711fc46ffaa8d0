"""New tasks come in, inside a write transaction: keys that are known, room that is left, flows they join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferq.clock import Now
from inferq.errors import DuplicateKey, InferqError, QueueFull
from inferq.events import Event, TaskSubmitted
from inferq.store import RecordPut
from inferq.stores.sqlite.limits import check_room, waiting_deliveries
from inferq.stores.sqlite.records import put_one, tell_one
from inferq.stores.sqlite.rows import NEVER, PENDING, SCHEDULED, Row
from inferq.stores.sqlite.statements import SQL, write_many
from inferq.stores.sqlite.transaction import Transaction
from inferq.task import FlowKey, NewTask, State

Keys = dict[tuple[str, str], tuple[str, bytes]]
"""(id, digest) by (tenant, key)."""

AddCall = tuple[Sequence[NewTask], Now, int | None, RecordPut | None, Sequence[Event]]


def add(tx: Transaction, calls: Sequence[AddCall]) -> list[list[str] | InferqError]:
    """Each call is kept whole or not at all; a refused one writes nothing."""
    replies: list[list[str] | InferqError] = []
    arrivals = Arrivals(tx)
    for new, now, limit, guard, told in calls:
        try:
            known = arrivals.admitted(new, limit)
            if guard is not None:
                put_one(tx, guard, now)
        except InferqError as error:
            replies.append(error)
            continue
        replies.append([arrivals.take(task, known, now.wall) for task in new])
        if told:
            tell_one(tx, told, now)
    arrivals.write()
    return replies


class Arrivals:
    """New tasks of one group, counted by flow and state before the transaction is told."""

    def __init__(self, tx: Transaction) -> None:
        self.tasks: list[Row] = []
        self.payloads: list[Row] = []
        self.labels: list[Row] = []
        self._tx = tx
        self._entered: dict[int, list[int]] = {}
        self._last_key: FlowKey | None = None
        self._last_flow = 0
        self._wall: int | None = None
        self._counts = {PENDING: [0, 0], SCHEDULED: [0, 0]}
        self._limited = any(limits.max_queued is not None for limits in tx.known.limits.values())

    def admitted(self, new: Sequence[NewTask], limit: int | None) -> Keys:
        """Those of them that are there already, when there is room for the others. Raises DuplicateKey, RateLimited, QueueFull."""
        known = known_keys(self._tx, new)
        if self._limited:
            self.write()
            check_room(self._tx, fresh(new, known))
        if limit is not None:
            self.settle()
            waiting = self._tx.count(State.PENDING) + self._tx.count(State.SCHEDULED)
            count = len(fresh(new, known))
            if waiting + count > limit and (waiting := waiting - waiting_deliveries(self._tx)) + count > limit:
                raise QueueFull(f"expected room for {count} more, but {waiting} of at most {limit} tasks wait; try again later")
        return known

    def take(self, task: NewTask, known: Keys, wall: int, *, batch: tuple[int, str] | None = None, held: bool = False) -> str:
        """Its id, or that of the task that is known by its key. A task of a held batch (number, id) waits until the batch goes on."""
        tx, key, due = self._tx, task.key, task.due
        if key is not None:
            first = known.get((task.flow.tenant, key))
            if first is not None:
                return first[0]
        if wall != self._wall:
            self._wall = wall
            tx.dated(wall)
        seq = tx.seq = tx.seq + 1
        if task.flow is self._last_key:
            flow = self._last_flow
        else:
            flow = self._last_flow = tx.flow_id(task.flow)
            self._last_key = task.flow
        size = len(task.spec)
        told = due
        if held:
            state, standing, due, told = SCHEDULED, "scheduled", NEVER, None
        elif due is not None and due > wall:
            state, standing = SCHEDULED, "scheduled"
        else:
            state, standing, due, told = PENDING, "pending", None, None
            entered = self._entered.get(flow)
            if entered is None:
                self._entered[flow] = [seq, 1]
            else:
                entered[1] += 1
        count = self._counts[state]
        count[0] += 1
        count[1] += size
        number, batch_id = (None, None) if batch is None else batch
        row = (seq, task.id, flow, state, task.action, task.estimate, task.at_most_once, due, task.expires, wall, size, number)
        self.tasks.append(row)
        self.payloads.append((seq, task.spec))
        schedule = None
        for name, value in task.labels:
            self.labels.append((name, value, seq))
            if name == "schedule":
                schedule = value
        if key is not None:
            tx.execute(SQL["add_key"], (task.flow.tenant, key, task.digest or b"", seq, task.id))
            known[(task.flow.tenant, key)] = (task.id, task.digest or b"")
        joined = task.flow
        tx.events.append(TaskSubmitted(0, wall, task.id, standing, joined.lane, joined.priority, told, batch_id, schedule))
        return task.id

    def write(self) -> None:
        """Into the file with what came since the last time."""
        self.settle()
        if self.tasks:
            write_many(self._tx.execute, "add_task", self.tasks)
            write_many(self._tx.execute, "add_payload", self.payloads)
        if self.labels:
            write_many(self._tx.execute, "add_label", self.labels)
        self.tasks, self.payloads, self.labels = [], [], []

    def settle(self) -> None:
        """Tell the transaction what came since the last time."""
        for flow, (first, count) in self._entered.items():
            self._tx.enter(flow, first, count)
        self._entered = {}
        for state, (count, size) in self._counts.items():
            if count:
                self._tx.moved(None, state, count=count, size=size)
        self._counts = {PENDING: [0, 0], SCHEDULED: [0, 0]}


def known_keys(tx: Transaction, new: Sequence[NewTask]) -> Keys:
    """The tasks of these that are there already, by tenant and key. Raises DuplicateKey."""
    known: Keys = {}
    first: dict[tuple[str, str], bytes] = {}
    for task in new:
        if task.key is None:
            continue
        place = (task.flow.tenant, task.key)
        digest = task.digest or b""
        row = tx.execute(SQL["known_key"], place).fetchone()
        if row is not None:
            known[place] = (row[0], bytes(row[1]))
        before = known[place][1] if place in known else first.setdefault(place, digest)
        if before != digest:
            raise DuplicateKey(f"expected the body that key {task.key!r} was first used with, got another; use a new key for other work")
    return known


def fresh(new: Sequence[NewTask], known: Mapping[tuple[str, str], object]) -> list[NewTask]:
    """Those that will be new: of several with one key the first."""
    keyed = {place: task for task in reversed(new) if task.key is not None and (place := (task.flow.tenant, task.key)) not in known}
    return [*keyed.values(), *(task for task in new if task.key is None)]
