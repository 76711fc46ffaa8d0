"""A filter back as text: what `parse` reads as the same filter. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from inferq.query.fields import META, field_named
from inferq.query.words import FOREIGN, Anything, At, Away, Between, Compare, Day, Point, Query, Term, Text, Value
from inferq.task import priority_name

_PLAIN: Final = re.compile(r'[^\s",*\\<>=]+')
_PLAIN_KEY: Final = re.compile(r'[^\s",*\\<>=:]+')
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


def written(query: Query) -> str:
    """The filter as text."""
    parts = [_term(term) for term in query.terms]
    if query.sort is not None:
        parts.append(f"sort:{query.sort}")
    if query.limit is not None:
        parts.append(f"limit:{query.limit}")
    return " ".join(parts)


def _term(term: Term) -> str:
    sign = "-" if term.negated else ""
    if not term.field:
        return sign + ",".join(_bare(value) for value in term.values)
    field = field_named(term.field)
    kind = field.kind if field is not None else "text"
    return f"{sign}{_name(term.field)}:{','.join(_value(value, kind) for value in term.values)}"


def _name(field: str) -> str:
    if field.startswith(META) and not _PLAIN_KEY.fullmatch(field):
        return META + _quoted(field.removeprefix(META))
    return field


def _bare(value: Value) -> str:
    text = value.text if isinstance(value, Text) else ""
    plain = _PLAIN_KEY.fullmatch(text) and not text.startswith("-") and text not in FOREIGN
    star = "*" if isinstance(value, Text) and value.prefix else ""
    return (text if plain else _quoted(text)) + star


def _value(value: Value, kind: str) -> str:
    if isinstance(value, Anything):
        return "*"
    if isinstance(value, Text):
        plain = _PLAIN.fullmatch(value.text)
        return (value.text if plain else _quoted(value.text)) + ("*" if value.prefix else "")
    if isinstance(value, Between):
        return f"{_point(value.low, kind)}..{_point(value.high, kind)}"
    return ("" if value.op == "=" else value.op) + _point(value.point, kind)


def _point(point: Point, kind: str) -> str:
    if isinstance(point, At):
        return instant(point.ms)
    if isinstance(point, Day):
        return point.date
    if isinstance(point, Away):
        return "now" if not point.ms else f"{'-' if point.ms < 0 else '+'}{duration(abs(point.ms))}"
    if kind == "duration":
        return duration(point)
    return priority_name(point) if kind == "priority" else str(point)


def duration(ms: int) -> str:
    """Milliseconds as one number and a unit."""
    return next((f"{ms // size}{unit}" for size, unit in _UNITS if ms % size == 0 and ms), "0s")


def instant(ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


__all__ = ["Compare", "duration", "instant", "written"]
