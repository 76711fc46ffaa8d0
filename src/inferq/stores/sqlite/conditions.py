"""A search as SQL: what the narrow columns decide, what the flows decide, and what only the task's own words can decide."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from inferq.query.fields import META
from inferq.query.matching import in_spans, named_backend, text_passes
from inferq.query.words import Search, Test
from inferq.stores.sqlite.rows import NUMBERS, marks
from inferq.task import FlowKey, State, lane_parts

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1

_FLOW_FIELDS: Final = frozenset({"executor", "model", "priority", "size", "tenant"})
_COLUMNS: Final = {
    "attempt": "t.attempt",
    "created": "t.created",
    "started": "t.started",
    "finished": "t.finished",
    "scheduled": "t.due",
    "tokens": "t.estimate",
}
_REMEMBERED: Final = 100
_LABELS: Final = frozenset({"tag", "schedule"})

Condition = tuple[str, list[Any]]


class Flows:
    """Every flow's key by its number: flows are never removed and their keys never change, so only new ones are read."""

    def __init__(self) -> None:
        self.keys: dict[int, FlowKey] = {}
        self._last = 0
        self._passing: dict[tuple[Test, ...], tuple[int, list[int]]] = {}

    def refresh(self, db: sqlite3.Connection) -> None:
        """Read what came since the last time. Threads may do so at once: each adds the same."""
        for id, *key in db.execute("SELECT id, lane, priority, size, tenant FROM flow WHERE id > ? ORDER BY id", (self._last,)).fetchall():
            self.keys[id] = FlowKey(*key)
            self._last = id

    def passing(self, tests: Sequence[Test]) -> list[int]:
        """The flows whose tasks pass these tests of flows. Of a question that was put before only the new flows are looked at."""
        question, all_ = tuple(tests), list(self.keys)
        seen, found = self._passing.get(question, (0, []))
        if seen < len(all_):
            found = found + [id for id in all_[seen:] if all(_flow_passes(self.keys[id], test) is not test.negated for test in tests)]
            if len(self._passing) >= _REMEMBERED:
                self._passing.clear()
            self._passing[question] = len(all_), found
        return found


def _flow_passes(key: FlowKey, test: Test) -> bool:
    if test.field == "priority":
        return test.present or in_spans(key.priority, test)
    if test.field == "backend":
        return text_passes((named_backend(key.lane),), test)
    executor, model, _ = lane_parts(key.lane)
    return text_passes(({"executor": executor, "model": model, "size": key.size, "tenant": key.tenant}[test.field],), test)


@dataclass
class Conditions:
    """What a candidate must pass. `flows` None: any flow. `rest` is decided on the whole task; `hinted` says that a look at the text
    of the submission leaves out most before."""

    narrow: list[Condition] = field(default_factory=list)
    flows: list[int] | None = None
    rest: list[Test] = field(default_factory=list)
    hinted: bool = False

    @property
    def is_everything(self) -> bool:
        return not self.narrow and self.flows is None and not self.rest

    def where(self) -> Condition:
        """As one condition on `t` and its payload `p`."""
        parts = [sql for sql, _ in self.narrow]
        values = [value for _, some in self.narrow for value in some]
        if self.flows is not None:
            parts.append("t.flow IN (SELECT value FROM json_each(?))")
            values.append(json_list(self.flows))
        return " AND ".join(parts) or "1", values


def conditions(asked: Search, flows: Flows) -> Conditions:
    made = Conditions()
    of_flows = [test for test in asked.tests if test.field in _FLOW_FIELDS]
    if of_flows:
        made.flows = flows.passing(of_flows)
    for test in asked.tests:
        if test.field in _FLOW_FIELDS:
            continue
        found = _condition(test, asked.now, flows)
        if found is not None:
            made.narrow.append(_signed(found, test))
        else:
            made.rest.append(test)
            hint = _said_somewhere(test)
            if hint is not None:
                made.narrow.append(hint)
                made.hinted = True
    return made


def json_list(numbers: list[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _signed(condition: Condition, test: Test) -> Condition:
    sql, values = condition
    return (f"NOT coalesce({sql}, 0)" if test.negated else sql), values


def _condition(test: Test, now: int, flows: Flows) -> Condition | None:
    name = test.field
    if name == "state":
        states = [NUMBERS[State(text)] for text in test.texts]
        return ("1", []) if test.present else (f"t.state IN ({marks(len(states))})", states)
    if name == "id":
        return _text("t.id", test)
    if name == "action":
        return _text("t.action", test)
    if name == "error":
        return _text("t.code", test)
    if name == "backend":
        return _backend(test, flows)
    if name == "key":
        sql, values = _text("i.key", test)
        return f"EXISTS (SELECT 1 FROM idempotency AS i WHERE i.seq = t.seq AND {sql})", values  # noqa: S608 - our own names
    if name == "batch":
        sql, values = _text("b.id", test)
        return ("t.batch IS NOT NULL", []) if test.present else (f"t.batch IN (SELECT number FROM batch AS b WHERE {sql})", values)  # noqa: S608 - our own names
    if name in _LABELS:
        sql, values = _text("l.value", test)
        return f"EXISTS (SELECT 1 FROM label AS l WHERE l.seq = t.seq AND l.name = ? AND {sql})", [name, *values]  # noqa: S608 - our own names
    if name in _COLUMNS:
        return _number(_COLUMNS[name], test)
    if name == "wait":
        return _number("max(0, coalesce(t.started, t.finished, ?) - t.created)", test, now)
    if name == "run":
        sql = "CASE WHEN t.started IS NOT NULL AND t.state >= 2 THEN max(0, coalesce(t.finished, ?) - t.started) END"
        return _number(sql, test, now)
    return None


def _backend(test: Test, flows: Flows) -> Condition:
    """Where its latest attempt was made; before the first one, the backend that its lane names."""
    named = flows.passing([replace(test, negated=False)])
    sql, values = _text("t.backend", test)
    inside = "t.flow IN (SELECT value FROM json_each(?))"
    return f"CASE WHEN t.backend IS NULL THEN {inside} ELSE {sql} END", [json_list(named), *values]


def _text(column: str, test: Test) -> Condition:
    parts: list[str] = []
    values: list[Any] = []
    if test.texts:
        parts.append(f"{column} IN ({marks(len(test.texts))})")
        values += test.texts
    for prefix in test.prefixes:
        sql, some = begins(column, prefix)
        parts.append(sql)
        values += some
    if test.present:
        parts.append(f"{column} <> ''")
    return f"({' OR '.join(parts) or '0'})", values


def begins(column: str, prefix: str) -> Condition:
    """That a text begins so, as a range of an index."""
    after = _after(prefix)
    if not prefix:
        return f"{column} IS NOT NULL", []
    return (f"{column} >= ?", [prefix]) if after is None else (f"({column} >= ? AND {column} < ?)", [prefix, after])


def _after(prefix: str) -> str | None:
    """The first text after all that begin so, in the order of UTF-8; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None


def _number(expression: str, test: Test, *bound: int) -> Condition:
    parts: list[str] = []
    values: list[Any] = []
    for low, high in test.spans:
        if (low is not None and low > _LARGEST) or (high is not None and high < _SMALLEST):
            continue
        found = []
        if low is not None and low > _SMALLEST:
            found.append(f"{expression} >= ?")
            values += [*bound, low]
        if high is not None and high < _LARGEST:
            found.append(f"{expression} <= ?")
            values += [*bound, high]
        if not found:
            found.append(f"{expression} IS NOT NULL")
            values += bound
        parts.append(f"({' AND '.join(found)})")
    if test.present:
        parts.append(f"{expression} IS NOT NULL")
        values += bound
    return f"({' OR '.join(parts) or '0'})", values


def _said_somewhere(test: Test) -> Condition | None:
    """For texts that JSON writes as they are: a quick look at the text of the submission, which leaves out no match."""
    texts = (*test.texts, *test.prefixes)
    if test.negated or test.present or not texts or not all(_is_plain(text) for text in texts):
        return None
    patterns = [f"%{pattern}%" for text in texts for pattern in _patterns(test.field, text)]
    parts: list[str] = ["CAST(p.spec AS TEXT) LIKE ?"] * len(patterns)
    values: list[Any] = [*patterns]
    if not test.field:
        for word in texts:
            sql, some = begins("t.id", word.lower())
            parts.append(sql)
            values += some
    return f"({' OR '.join(parts)})", values


def _patterns(field: str, text: str) -> list[str]:
    """How JSON may write it: a value of the metadata stands behind its key, or in a list behind it."""
    if not field.startswith(META):
        return [text]
    key = field.removeprefix(META)
    names = dict.fromkeys((key, key.rpartition(".")[2]))
    if not all(_is_plain(name) for name in names):
        return [text]
    return [f'"{name}":{begin}' for name in names for begin in (text, f'"{text}', "[")]


def _is_plain(text: str) -> bool:
    return text != "" and all(char >= " " and char not in '"\\' for char in text)
