"""One group on its way into the file: everything a commit will change, kept apart until it is durable, so that a failed group leaves
no trace in memory either."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from inferq.access import TenantLimits
from inferq.events import BatchFinished, Event
from inferq.store import Grown
from inferq.stores.sqlite.rows import NUMBERS, RUNNING, Row, encode
from inferq.stores.sqlite.statements import SQL, write_many
from inferq.task import FlowKey, Head, State


@dataclass(slots=True)
class Flow:
    """A flow's head and length as of the last commit that this process has seen."""

    id: int
    key: FlowKey
    head: int | None
    length: int


@dataclass(slots=True)
class Known:
    """What the writer remembers between groups; valid as long as no other process has committed."""

    seq: int = 0
    version: int = 0
    position: int = 0
    newest: int = 0
    """The latest instant at which a task was created."""
    step: int = 0
    """Milliseconds by which the clock ever went back between two tasks."""
    flows: dict[int, Flow] = field(default_factory=dict)
    ids: dict[FlowKey, int] = field(default_factory=dict)
    last_flow: int = 0
    paused: frozenset[str] = frozenset()
    tenants: dict[str, list[int]] = field(default_factory=dict)
    """The flows of each tenant."""
    limits: dict[str, TenantLimits] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    """Tenants that may not have another task running now."""
    chunks: dict[tuple[int, int], int] = field(default_factory=dict)
    """Index of the last chunk of each attempt that this instance is writing."""
    passed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By state, the last (finished, seq) that pruning has looked at where it must not look again from the beginning."""
    batches: int = 0
    """How many batches there are: where there are none nobody asks about them."""
    holding: dict[str, int] = field(default_factory=dict)
    """Numbers by id of the batches whose waiting tasks are held."""
    held: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """(attempt, token, bytes) of this instance's claims that are surely valid: emptied whenever another process has committed."""


class Transaction:
    """Open between BEGIN IMMEDIATE and COMMIT; verbs read and write through it."""

    def __init__(self, db: sqlite3.Connection, known: Known, *, number: int, name: str) -> None:
        self.db = db
        self.execute = db.execute
        self.executemany = db.executemany
        self.number = number
        self.name = name
        self.known = known
        self.seq = known.seq
        self.newest = known.newest
        self.step = known.step
        self.flows: dict[int, Flow] = {}
        self.new_ids: dict[FlowKey, int] = {}
        self.tasks_delta = [0] * 6
        self.bytes_delta = [0] * 6
        self.events: list[Event] = []
        self.streams: list[Grown] = []
        self.chunks: dict[tuple[int, int], int] = {}
        self.held: dict[int, tuple[int, int, int]] = {}
        self.dropped: set[int] = set()
        self.forgotten: list[tuple[int, int]] = []
        self.paused: frozenset[str] | None = None
        self.relimited = False
        """Whether a tenant's limits were changed."""
        self.meta: dict[str, int] = {}
        self.executed: dict[tuple[str, bool], int] = {}
        """Tasks that each backend (name, remote) has completed in this group."""
        self.ended = False
        """Whether a task ended or a batch was sealed: a batch may be finished by it."""
        self.tokens: dict[str, list[int]] = {}
        """Input and output tokens of completed tasks by the id of their batch."""
        self.holding: dict[str, int] | None = None
        self._batch_ids: dict[int, str] = {}
        self.after_commit: list[str] = []
        """Names of instances whose lock files may go once this is committed."""

    # flows ---------------------------------------------------------------------------------------------------------

    def flow_id(self, key: FlowKey) -> int:
        """The flow's number; makes it when it is new."""
        number = self.known.ids.get(key) or self.new_ids.get(key)
        if number is None:
            number = self.known.last_flow + len(self.new_ids) + 1
            self.execute(SQL["add_flow"], (number, key.lane, key.priority, key.size, key.tenant))
            self.new_ids[key] = number
            self.flows[number] = Flow(number, key, None, 0)
        return number

    def flow(self, number: int) -> Flow:
        """The flow, to be changed: a copy that becomes true with the commit."""
        mine = self.flows.get(number)
        if mine is None:
            known = self.known.flows[number]
            mine = self.flows[number] = Flow(known.id, known.key, known.head, known.length)
        return mine

    def peek(self, named: int | FlowKey) -> Flow | None:
        """The flow of that number or key, only to look at; None while it does not exist."""
        number = named if isinstance(named, int) else self.known.ids.get(named) or self.new_ids.get(named)
        if number is None:
            return None
        return self.flows.get(number) or self.known.flows.get(number)

    def known_key(self, number: int) -> FlowKey:
        """The key of a flow that exists."""
        return (self.flows.get(number) or self.known.flows[number]).key

    def lane(self, number: int) -> str:
        """The lane of a flow."""
        flow = self.peek(number)
        return flow.key.lane if flow is not None else ""

    def enter(self, number: int, seq: int, count: int = 1) -> None:
        """Tasks join a flow, the first of them with this sequence number."""
        flow = self.flow(number)
        flow.head = seq if flow.head is None else min(flow.head, seq)
        flow.length += count

    def leave(self, number: int, count: int = 1) -> None:
        """Tasks left a flow: find its new head."""
        flow = self.flow(number)
        flow.length -= count
        row: Row | None = self.execute(SQL["head"], (number,)).fetchone() if flow.length else None
        flow.head = row[0] if row else None

    # counters and log ------------------------------------------------------------------------------------------------

    def moved(self, before: int | None, after: int | None, *, count: int = 1, size: int = 0) -> None:
        """`count` tasks of `size` bytes in all changed state."""
        if before is not None:
            self.tasks_delta[before] -= count
            self.bytes_delta[before] -= size
        if after is not None:
            self.tasks_delta[after] += count
            self.bytes_delta[after] += size
            if after > RUNNING:
                self.ended = True

    def dated(self, wall: int) -> None:
        """Tasks are created at this instant: what a listing by time relies on."""
        if wall > self.newest:
            self.newest = self.meta["newest"] = wall
        elif self.newest - wall > self.step:
            self.step = self.meta["step"] = self.newest - wall

    def count(self, state: State) -> int:
        """How many tasks are in this state, this transaction's own changes included."""
        number = NUMBERS[state]
        row = self.execute("SELECT tasks FROM counter WHERE state = ?", (number,)).fetchone()
        return int(row[0]) + self.tasks_delta[number]

    # batches ---------------------------------------------------------------------------------------------------------

    @property
    def batches(self) -> int:
        """How many there are."""
        return self.meta.get("batches", self.known.batches)

    def batch_id(self, number: int | None) -> str | None:
        """The id of the batch of that number; None for what belongs to none."""
        if number is None:
            return None
        known = self._batch_ids.get(number)
        if known is None:
            row = self.execute("SELECT id FROM batch WHERE number = ?", (number,)).fetchone()
            known = self._batch_ids[number] = row[0] if row else ""
        return known or None

    def hold(self, id: str, number: int, *, held: bool) -> None:
        """From this commit on the batch's waiting tasks are held, or not."""
        holding = dict(self.known.holding if self.holding is None else self.holding)
        if held:
            holding[id] = number
        else:
            holding.pop(id, None)
        self.holding = holding

    def holds(self, batch: str | int | None) -> bool:
        """Whether waiting tasks of the batch (its id or number) are held."""
        if batch is None:
            return False
        holding = self.known.holding if self.holding is None else self.holding
        return bool(holding) and (batch in holding if isinstance(batch, str) else batch in holding.values())

    def _finish_batches(self, at: int) -> None:
        """In the transaction that ends the last task of a sealed batch, so that it is told once, by whoever that was."""
        for number, id, completed, failed, cancelled in self.execute(SQL["batches_ended"]).fetchall():
            self.execute(SQL["batch_finish"], (at, number))
            self.events.append(BatchFinished(0, at, id, completed, failed, cancelled))

    # log -------------------------------------------------------------------------------------------------------------

    def next_chunk(self, seq: int, attempt: int, count: int) -> int:
        """Reserve `count` indexes in an attempt's log; returns the last of them."""
        place = (seq, attempt)
        last = self.chunks.get(place) or self.known.chunks.get(place, 0)
        self.chunks[place] = last + count
        return last + count

    # the end ---------------------------------------------------------------------------------------------------------

    def flush(self, at: int) -> None:
        """Write what was gathered: flows, counters, events, high-water marks."""
        known = self.known
        if self.tokens:
            self.executemany(SQL["batch_tokens"], [(came, went, id) for id, (came, went) in self.tokens.items()])
        if self.ended and self.batches:
            self._finish_batches(at)
        if self.flows:
            version = self.meta["version"] = known.version + 1
            write_many(self.execute, "save_flow", [(f.id, f.head, f.length, version) for f in self.flows.values()])
        if self.seq != known.seq:
            self.meta["seq"] = self.seq
        deltas = [(s, t, b) for s, (t, b) in enumerate(zip(self.tasks_delta, self.bytes_delta, strict=True)) if t or b]
        if deltas:
            write_many(self.execute, "save_counter", deltas)
        if self.executed:
            write_many(self.execute, "save_executed", [(*place, tasks) for place, tasks in self.executed.items()])
        if self.events:
            position = known.position
            for event in self.events:
                position += 1
                event.position = position
            self.meta["position"] = position
            self.execute(SQL["save_event"], (position, at, encode(self.events)))
        if self.meta:
            write_many(self.execute, "save_meta", list(self.meta.items()))

    def settle(self) -> None:
        """It is committed: what was gathered becomes what is known."""
        known = self.known
        known.seq = self.seq
        known.newest = self.newest
        known.step = self.step
        known.version = self.meta.get("version", known.version)
        known.position = self.meta.get("position", known.position)
        known.flows.update(self.flows)
        known.ids.update(self.new_ids)
        for key, number in self.new_ids.items():
            known.tenants.setdefault(key.tenant, []).append(number)
        known.last_flow += len(self.new_ids)
        known.chunks.update(self.chunks)
        for place in self.forgotten:
            known.chunks.pop(place, None)
        known.batches = self.batches
        if self.holding is not None:
            known.holding = self.holding
        known.held.update(self.held)
        for seq in self.dropped:
            known.held.pop(seq, None)
        if self.paused is not None:
            known.paused = self.paused


def head_of(flow: Flow) -> Head:
    return Head(flow.id, flow.key, flow.head or 0, flow.length)
