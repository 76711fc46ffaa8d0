"""Where the candidates of a listing come from, in its order: the index that leaves out most of what does not pass, else all tasks."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from inferq.errors import FAILURE_CODES
from inferq.query.resolving import sure_states
from inferq.query.words import Search, Span, Test
from inferq.stores.sqlite.conditions import Conditions, Flows, begins, json_list
from inferq.stores.sqlite.rows import COMPLETED, NUMBERS, PENDING, RUNNING, SCHEDULED
from inferq.task import State

FEW: Final = 2000
"""So many candidates of an index are read and sorted; of more, only an index that has them in order is of use."""
_MOST_STREAMS: Final = 2000
"""Ranges of indexes that are merged; with more of them a walk over all tasks is quicker."""
_BLOCK: Final = 1000
_MANY: Final = 16
"""Ranges from which on their first candidates are asked for together."""
_DENSE: Final = 0.1
"""Above this share of all tasks a state leaves out too little to be preferred to a flow."""

Key = tuple[int, int]
"""What the listing is ordered by, and the sequence number; in order of arrival both are that."""
_LAST_KEY: Final[Key] = (2**63 - 1, 2**63 - 1)
_FIRST_KEY: Final[Key] = (-(2**63), -(2**63))


class Range(NamedTuple):
    """A range of an index that has its tasks in the order of the listing: `column` is what it is ordered by."""

    table: str
    where: str
    values: tuple[Any, ...] = ()
    column: str = "seq"


class Source(Protocol):
    """Gives candidates, the next ones at each call."""

    def take(self, count: int) -> tuple[str, list[Any]]:
        """A table with a column `value` of the next `count` sequence numbers at most, in order."""
        ...

    def reached(self) -> Key | None:
        """The last candidate of the latest `take`; None when the source ended before."""
        ...


class Order(NamedTuple):
    """Which way, after which place, and from where to where: sequence numbers in order of arrival, else moments."""

    down: bool
    after: Key | None
    low: int = -(2**63) + 1
    high: int = 2**63 - 1

    @property
    def start(self) -> Key:
        return self.after if self.after is not None else (_LAST_KEY if self.down else _FIRST_KEY)

    def beyond(self, seq: int) -> tuple[int, int]:
        """The sequence numbers that come after one, as one range: of two conditions on a side an index heeds the first only."""
        return (self.low, min(seq - 1, self.high)) if self.down else (max(seq + 1, self.low), self.high)

    def upto(self, moment: int) -> tuple[int, int]:
        """The same for a moment, which several tasks may share."""
        return (self.low, min(moment, self.high)) if self.down else (max(moment, self.low), self.high)


class One:
    """A single range: SQLite walks it inside the statement that checks the candidates."""

    def __init__(self, db: sqlite3.Connection, range: Range, order: Order) -> None:
        self._db, self._range, self._order = db, range, order
        self._place = order.start[1]
        self._taken = 0

    def take(self, count: int) -> tuple[str, list[Any]]:
        sql, values = self._walk("seq AS value")
        self._taken = count
        return f"({sql} LIMIT ?)", [*values, count]

    def reached(self) -> Key | None:
        sql, values = self._walk("seq")
        row = self._db.execute(f"{sql} LIMIT 1 OFFSET ?", (*values, self._taken - 1)).fetchone()
        if row is None:
            return None
        self._place = row[0]
        return self._place, self._place

    def _walk(self, columns: str) -> tuple[str, list[Any]]:
        sql = f"SELECT {columns} FROM {self._range.table} WHERE {self._range.where} AND seq BETWEEN ? AND ?"  # noqa: S608 - our own names
        return f"{sql} ORDER BY seq{' DESC' if self._order.down else ''}", [*self._range.values, *self._order.beyond(self._place)]


class Many:
    """Candidates in order from several ranges, or from a list."""

    def __init__(self, candidates: Iterator[Key]) -> None:
        self._candidates = candidates
        self._last: Key | None = None

    def take(self, count: int) -> tuple[str, list[Any]]:
        found = list(islice(self._candidates, count))
        self._last = found[-1] if len(found) == count else None
        return "json_each(?)", [json_list([seq for _, seq in found])]

    def reached(self) -> Key | None:
        return self._last


def few(seqs: Sequence[int], order: Order) -> Many:
    """A source of these candidates."""
    after = order.start[1]
    left = {seq for seq in seqs if (seq < after if order.down else seq > after) and order.low <= seq <= order.high}
    return Many(iter([(seq, seq) for seq in sorted(left, reverse=order.down)]))


def merged(db: sqlite3.Connection, ranges: Sequence[Range], order: Order) -> Many:
    """A source of the candidates of all ranges, each once."""
    block = max(8, _BLOCK // len(ranges))
    streams = [_keys(db, range, order, block, first) for range, first in _begun(db, ranges, order)]
    return Many(_once(heapq.merge(*streams, reverse=order.down)))


def _begun(db: sqlite3.Connection, ranges: Sequence[Range], order: Order) -> list[tuple[Range, int | None]]:
    """The ranges with the first candidate of each, where one statement can tell them all: most of many are not needed further."""
    table, where, values, column = ranges[0]
    if len(ranges) < _MANY or column != "seq" or len(values) != 1 or any(range[:2] != (table, where) for range in ranges):
        return [(range, None) for range in ranges]
    # Each range's own value comes from the list.
    own = where.replace("?", "v.value", 1)
    first = f"SELECT seq FROM {table} WHERE {own} AND seq BETWEEN ? AND ? ORDER BY seq{' DESC' if order.down else ''} LIMIT 1"  # noqa: S608 - our own names
    wanted = msgspec.json.encode([range.values[0] for range in ranges]).decode()
    rows = db.execute(f"SELECT ({first}) FROM json_each(?) AS v", (*order.beyond(order.start[1]), wanted)).fetchall()  # noqa: S608 - our own names
    return [(range, seq) for range, (seq,) in zip(ranges, rows, strict=True) if seq is not None]


def _once(keys: Iterator[Key]) -> Iterator[Key]:
    last: Key | None = None
    for key in keys:
        if key != last:
            yield key
        last = key


def _keys(db: sqlite3.Connection, range: Range, order: Order, block: int, first: int | None = None) -> Iterator[Key]:
    column, turn = range.column, " DESC" if order.down else ""
    place = order.start
    if first is not None:
        place = (first, first)
        yield place
    if column == "seq":
        further, by = "seq BETWEEN ? AND ?", f"seq{turn}"
    else:
        further = f"{column} BETWEEN ? AND ? AND ({column}, seq) {'<' if order.down else '>'} (?, ?)"
        by = f"{column}{turn}, seq{turn}"
    sql = f"SELECT {column}, seq FROM {range.table} WHERE {range.where} AND {further} ORDER BY {by} LIMIT ?"  # noqa: S608 - our own names
    while True:
        bounds = order.beyond(place[1]) if column == "seq" else (*order.upto(place[0]), *place)
        rows = db.execute(sql, (*range.values, *bounds, block)).fetchall()
        yield from rows
        if len(rows) < block:
            return
        place = rows[-1]
        block = min(_BLOCK, block * 4)


# ── the choice ──────────────────────────────────────────────────────────────────────────────────────────────────────


def by_arrival(db: sqlite3.Connection, flows: Flows, asked: Search, found: Conditions, order: Order) -> Source:
    """The source for a listing in the order of arrival."""
    listed = _few_of(db, flows, asked)
    if listed is not None:
        return few(listed, order)
    states = sure_states(asked)
    numbers = sorted(NUMBERS[State(state)] for state in states) if states is not None else None
    counts: dict[int, int] = dict(db.execute("SELECT state, tasks FROM counter"))
    if numbers is not None and sum(counts[number] for number in numbers) <= FEW:
        return few([seq for number in numbers for seq in _all_in_state(db, number)], order)
    ranges = _ranges(db, asked, found, numbers, counts)
    if len(ranges) == 1:
        return One(db, ranges[0], order)
    return merged(db, ranges, order) if ranges else few([], order)


def _ranges(db: sqlite3.Connection, asked: Search, found: Conditions, numbers: list[int] | None, counts: dict[int, int]) -> list[Range]:
    """What is walked: batches, labels and failure codes leave out most, then rare states, then flows, then states; else all tasks are."""
    ranges = _of_batches(db, asked, numbers)
    if ranges is None:
        ranges = _labelled(db, asked)
    if ranges is None:
        ranges = _failing(asked)
    if ranges is None and numbers == [PENDING]:
        ranges = _pending(db, found)
    if ranges is None and numbers is not None and sum(counts[number] for number in numbers) <= _DENSE * sum(counts.values()):
        ranges = _in_states(db, numbers, counts)
    if ranges is None and found.flows is not None and len(found.flows) <= _MOST_STREAMS:
        ranges = [Range("task INDEXED BY task_flow", "flow = ?", (flow,)) for flow in found.flows]
    if ranges is None and numbers is not None:
        ranges = _in_states(db, numbers, counts)
    return [Range("task", "1")] if ranges is None else ranges


def by_time(db: sqlite3.Connection, asked: Search, order: Order) -> Source:
    """The source for a listing in the order of ends, or of due times: the range of time that the tests leave bounds it."""
    column = "finished" if asked.sort.endswith("finished") else "due"
    low, high = hull(asked, "finished" if column == "finished" else "scheduled")
    order = order._replace(low=order.low if low is None else low, high=order.high if high is None else high)
    states = sorted(sure_states(asked) or ())
    ranges = [Range("task", f"state = {NUMBERS[State(state)]}", (), column) for state in states]
    return merged(db, ranges, order) if ranges else few([], order)


def hull(asked: Search, name: str) -> Span:
    """The span outside of which no task passes, by the tests of one field."""
    low: int | None = None
    high: int | None = None
    for test in asked.tests:
        if test.field != name or test.negated or test.present or not test.spans:
            continue
        lows = [first for first, _ in test.spans if first is not None]
        highs = [last for _, last in test.spans if last is not None]
        if len(lows) == len(test.spans):
            low = min(lows) if low is None else max(low, min(lows))
        if len(highs) == len(test.spans):
            high = max(highs) if high is None else min(high, max(highs))
    return low, high


def _sure(asked: Search, *names: str) -> Iterator[Test]:
    """Tests of these fields that leave out every task without one of their values."""
    return (test for test in asked.tests if test.field in names and not test.negated and not test.present)


def _few_of(db: sqlite3.Connection, flows: Flows, asked: Search) -> list[int] | None:
    """All candidates of an id or a key, or of a range of ends or due times, where they are few."""
    for test in _sure(asked, "id"):
        found: list[int] = []
        for prefix in test.prefixes:
            sql, values = begins("id", prefix)
            found += [seq for (seq,) in db.execute(f"SELECT seq FROM task WHERE {sql} ORDER BY id LIMIT ?", (*values, FEW + 1))]  # noqa: S608 - our own names
        if len(found) <= FEW:
            return found
    for test in _sure(asked, "key"):
        if not test.prefixes and len(test.texts) <= 10:
            # Keys are told apart by tenant.
            tenants = msgspec.json.encode(sorted({key.tenant for key in tuple(flows.keys.values())})).decode()
            sql = "SELECT i.seq FROM json_each(?) AS t CROSS JOIN idempotency AS i ON i.tenant = t.value AND i.key = ?"
            return [seq for text in test.texts for (seq,) in db.execute(sql, (tenants, text))]
    return None


_ALL_IN_STATE: Final = {
    SCHEDULED: "SELECT seq FROM task INDEXED BY task_parked WHERE state = 0",
    PENDING: "SELECT seq FROM task INDEXED BY task_ready WHERE state = 1",
    RUNNING: "SELECT seq FROM task INDEXED BY task_running WHERE state = 2",
}
_ENDED: Final = "SELECT seq FROM task INDEXED BY task_ended WHERE state = ? AND state >= 3"


def _all_in_state(db: sqlite3.Connection, number: int) -> list[int]:
    if number >= COMPLETED:
        return [seq for (seq,) in db.execute(_ENDED, (number,))]
    return [seq for (seq,) in db.execute(_ALL_IN_STATE[number])]


def _in_states(db: sqlite3.Connection, numbers: Sequence[int], counts: dict[int, int]) -> list[Range] | None:
    """Ranges that have exactly the tasks of these states in the order of arrival; None where they would be too many."""
    ranges: list[Range] = []
    for number in numbers:
        if number == SCHEDULED:
            ranges.append(Range("task INDEXED BY task_parked", "state = 0"))
        elif number == RUNNING:
            workers = db.execute("SELECT number FROM instance").fetchall()
            ranges += [Range("task INDEXED BY task_running", "state = 2 AND worker = ?", worker) for worker in workers]
        elif number >= COMPLETED:
            ranges.append(Range("task INDEXED BY task_ended", "state = ? AND state >= 3", (number,)))
        elif counts[number]:
            pending = _pending(db, None)
            if pending is None:
                return None
            ranges += pending
    return ranges


def _pending(db: sqlite3.Connection, found: Conditions | None) -> list[Range] | None:
    wanted = None if found is None or found.flows is None else set(found.flows)
    flows = [id for (id,) in db.execute("SELECT id FROM flow WHERE length > 0") if wanted is None or id in wanted]
    if len(flows) > _MOST_STREAMS:
        return None
    return [Range("task INDEXED BY task_ready", "flow = ? AND state = 1", (flow,)) for flow in flows]


def _of_batches(db: sqlite3.Connection, asked: Search, numbers: list[int] | None) -> list[Range] | None:
    states = sorted(NUMBERS.values()) if numbers is None else numbers
    for test in _sure(asked, "batch"):
        begun = [begins("id", prefix) for prefix in test.prefixes] + [("id = ?", [text]) for text in dict.fromkeys(test.texts)]
        batches: set[int] = set()
        for sql, values in begun:
            batches |= {number for (number,) in db.execute(f"SELECT number FROM batch WHERE {sql} LIMIT ?", (*values, _MOST_STREAMS))}  # noqa: S608 - our own names
        if len(batches) * len(states) <= _MOST_STREAMS:
            pairs = [(one, state) for one in sorted(batches) for state in states]
            return [Range("task INDEXED BY task_batch", "batch = ? AND state = ?", pair) for pair in pairs]
    return None


def _labelled(db: sqlite3.Connection, asked: Search) -> list[Range] | None:
    for test in _sure(asked, "tag", "schedule"):
        values = list(test.texts)
        for prefix in test.prefixes:
            values += _values_of(db, test.field, prefix)
        if len(values) <= _MOST_STREAMS:
            return [Range("label", "name = ? AND value = ?", (test.field, value)) for value in dict.fromkeys(values)]
    return None


def _values_of(db: sqlite3.Connection, name: str, prefix: str) -> list[str]:
    """The values of a label that begin so, by leaps from one to the next."""
    found: list[str] = []
    value, sql = prefix, "SELECT value FROM label WHERE name = ? AND value >= ? ORDER BY value LIMIT 1"
    while len(found) <= _MOST_STREAMS:
        row = db.execute(sql, (name, value)).fetchone()
        if row is None or not row[0].startswith(prefix):
            break
        value = row[0]
        found.append(value)
        sql = "SELECT value FROM label WHERE name = ? AND value > ? ORDER BY value LIMIT 1"
    return found


def _failing(asked: Search) -> list[Range] | None:
    for test in asked.tests:
        if test.field == "error" and not test.negated:
            codes = sorted(FAILURE_CODES) if test.present else test.texts
            return [Range("task INDEXED BY task_code", "code = ? AND code IS NOT NULL", (code,)) for code in dict.fromkeys(codes)]
    return None
