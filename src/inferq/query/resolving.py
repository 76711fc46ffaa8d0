"""What a filter comes to at a moment: relative times made absolute, names of several states spelled out. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

from inferq.errors import InvalidQuery
from inferq.query.fields import Field, field_named
from inferq.query.reading import texts_of
from inferq.query.words import Anything, At, Away, Between, Compare, Day, Point, Query, Search, Sort, Span, Term, Test, Text
from inferq.task import FINAL

_DAY_MS: Final = 86_400_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def search(query: Query, now: int) -> Search:
    """The question that a store answers; `now` in Unix milliseconds. Raises InvalidQuery for an order that no index serves."""
    made = Search(tuple(_test(term, now) for term in query.terms), cast("Sort", query.sort or "-created"), now)
    check_sort(made)
    return made


def check_sort(asked: Search) -> None:
    """Raises InvalidQuery when the tasks that pass cannot be had in that order."""
    by = asked.sort.removeprefix("-")
    if by == "created":
        return
    allowed = {str(state) for state in FINAL} if by == "finished" else {"scheduled"}
    states = sure_states(asked)
    if states is None or not states <= allowed:
        wanted = "state:ended (or completed, failed, cancelled)" if by == "finished" else "state:scheduled"
        raise InvalidQuery(f"expected {wanted} beside sort:{asked.sort}: only such tasks are kept in that order", near=wanted)


def sure_states(asked: Search) -> frozenset[str] | None:
    """The only states that a task can have that passes; None: any."""
    found: frozenset[str] | None = None
    for test in asked.tests:
        if test.field == "state" and not test.negated and not test.present:
            found = frozenset(test.texts) if found is None else found & frozenset(test.texts)
    return found


def _test(term: Term, now: int) -> Test:
    field = field_named(term.field) if term.field else None
    texts: list[str] = []
    prefixes: list[str] = []
    spans: list[Span] = []
    present = False
    for value in term.values:
        if isinstance(value, Anything):
            present = True
        elif isinstance(value, Text):
            _add_text(field, value, texts, prefixes)
        elif isinstance(value, Between):
            spans.append((_edges(value.low, now)[0], _edges(value.high, now)[1]))
        else:
            spans.append(_span(value, now))
    return Test(term.field, tuple(texts), tuple(prefixes), tuple(spans), present, term.negated)


def _add_text(field: Field | None, value: Text, texts: list[str], prefixes: list[str]) -> None:
    spelled = texts_of(field, value) if field is not None else None
    if spelled is not None:
        texts += spelled
    elif field is not None and value.prefix:
        prefixes.append(value.text)
    else:
        texts.append(value.text)


def _span(value: Compare, now: int) -> Span:
    first, last = _edges(value.point, now)
    if value.op == ">":
        return last + 1, None
    if value.op == ">=":
        return first, None
    if value.op == "<":
        return None, first - 1
    if value.op == "<=":
        return None, last
    if isinstance(value.point, Away):
        # `created:-2h` is what was created in the last two hours, `scheduled:+2h` what is due in the next two.
        return min(now, first), max(now, last)
    return first, last


def _edges(point: Point, now: int) -> tuple[int, int]:
    if isinstance(point, Day):
        start = (datetime.combine(date.fromisoformat(point.date), datetime.min.time(), UTC) - _EPOCH) // timedelta(milliseconds=1)
        return start, start + _DAY_MS - 1
    ms = point.ms if isinstance(point, At) else now + point.ms if isinstance(point, Away) else point
    return ms, ms
