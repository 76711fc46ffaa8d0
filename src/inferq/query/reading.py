"""From text to a `Query`: the one parser of filters, used by every face. Errors name the place, what was expected and what came. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from inferq.clock import seconds
from inferq.errors import FAILURE_CODES, InvalidQuery
from inferq.query.fields import META, ORDERED, SETTINGS, Field, field_named, near_word, nearest
from inferq.query.words import FOREIGN, OPS, SORTS, Anything, At, Away, Between, Compare, Day, Point, Query, Term, Text, Value
from inferq.task import PRIORITIES, SIZES, State, priority_number

LONGEST: Final = 10_000
"""Characters of a filter."""
MOST_TERMS: Final = 100
MOST_VALUES: Final = 1000
LARGEST_LIMIT: Final = 10_000
STATE_GROUPS: Final = {
    "waiting": (State.SCHEDULED, State.PENDING),
    "ended": (State.COMPLETED, State.FAILED, State.CANCELLED),
}
"""Names for several states."""
KNOWN_STATES: Final = (*(str(state) for state in State), *STATE_GROUPS)
KNOWN_CODES: Final = tuple(sorted(FAILURE_CODES))

_NAME: Final = re.compile(r'([A-Za-z_][\w-]*)(\.(?:"((?:[^"\\]|\\.)*)"|[^\s":,*<>=\\]+))?:', re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ATOM: Final = re.compile(r'[^\s,"]+')
_WORD: Final = re.compile(r'[^\s"]+')
_BLANKS: Final = re.compile(r"\s*")
_OP: Final = re.compile(r">=|<=|>|<|=")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}(?::\d{2}(?:[.]\d{1,9})?)?(?:[Zz]|[+-]\d{2}:\d{2})")
_ZONELESS: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}(?::\d{2}(?:[.]\d{1,9})?)?")
_UNIX_MS: Final = re.compile(r"\d{12,14}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999
_FARTHEST: Final = 1000 * 366 * 86_400.0
_INT64: Final = 2**63


def parse(text: str) -> Query:
    """The filter that a text says. Raises InvalidQuery; the empty text is the filter that every task passes."""
    if len(text) > LONGEST:
        raise InvalidQuery(f"expected a filter of at most {LONGEST:,} characters, got {len(text):,}", position=LONGEST)
    for position, char in enumerate(text):
        if char == "\x00" or "\ud800" <= char <= "\udfff":
            raise InvalidQuery(f"expected text without NUL and that UTF-8 can hold, got {char!r}", position=position)
    return _Reader(text).query()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def query(self) -> Query:
        terms: list[Term] = []
        settings: dict[str, str | int] = {}
        while True:
            self.at = self._end(_BLANKS)
            if self.at >= len(self.text):
                return Query(tuple(terms), **settings)  # type: ignore[arg-type]  # sort is a str, limit an int
            start = self.at
            negated = self._take("-")
            name = _NAME.match(self.text, self.at)
            if name is None:
                terms.append(Term("", (self._bare(start),), negated))
            elif name[1].lower() in SETTINGS and name[2] is None:
                self._setting(name[1].lower(), name.end(), settings, negated=negated)
            else:
                terms.append(self._term(name, negated=negated))
            if len(terms) > MOST_TERMS:
                raise self.error(f"expected at most {MOST_TERMS} conditions, got more", start)
            if self.at < len(self.text) and not self.text[self.at].isspace():
                raise self.error(f"expected a blank before the next condition, got {self.text[self.at]!r}", self.at)

    # terms -----------------------------------------------------------------------------------------------------------

    def _bare(self, start: int) -> Value:
        if self.at >= len(self.text) or self.text[self.at].isspace():
            raise self.error("expected a condition or a word right after '-'", start)
        if self.text[self.at] == '"':
            text = self._quoted()
            if not text:
                raise self.error("expected a word between the quotes, got none", start)
            return Text(text, prefix=self._take("*"))
        begin = self.at
        self.at = self._end(_WORD)
        word = self.text[begin : self.at]
        if word in FOREIGN:
            raise self.error(f"expected {FOREIGN[word]}, got {word}; to look for it as text put it in quotes", begin)
        value = self._starred(word, begin)
        if isinstance(value, Anything):
            raise self.error("expected a field before '*', as in tag:*, got none", begin)
        return value

    def _term(self, name: re.Match[str], *, negated: bool) -> Term:
        field = self._field(name)
        self.at = name.end()
        values: list[Value] = []
        while True:
            values.append(self._value(field))
            if len(values) > MOST_VALUES:
                raise self.error(f"expected at most {MOST_VALUES} values of one field, got more", self.at)
            if not self._take(","):
                return Term(field.name, tuple(values), negated)

    def _field(self, name: re.Match[str]) -> Field:
        written = name[0][:-1]
        if name[3] is not None:
            written = f"{name[1]}.{_unescaped(name[3])}"
        field = field_named(written)
        if field is None:
            near = nearest(written)
            hint = f"did you mean {near}?" if near else "known are id, state, model, tag, created... (docs/filters.md lists them)"
            raise self.error(
                f"expected the name of a field, got {written!r}; {hint} To look for it as text put it in quotes", name.start(), near
            )
        return field

    def _value(self, field: Field) -> Value:
        begin = self.at
        if field.kind in ORDERED:
            return self._ordered(field)
        if op := _OP.match(self.text, begin):
            raise self.error(
                f"expected a text for {field.name}, got {op[0]!r}: only numbers, times and priorities are compared; "
                "put it in quotes if the text begins so",
                begin,
            )
        if begin < len(self.text) and self.text[begin] == '"':
            text = self._quoted()
            value: Value = Text(text, prefix=self._take("*"))
        else:
            self.at = self._end(_ATOM)
            if self.at == begin:
                raise self.error(f"expected a value right after {field.name}:, got none; {field.name}:* finds those that have any", begin)
            value = self._starred(self.text[begin : self.at], begin)
        return self._checked(field, value, begin) if isinstance(value, Text) else value

    def _checked(self, field: Field, value: Text, begin: int) -> Value:
        """A value of a closed list, in its own spelling."""
        known = {"state": KNOWN_STATES, "size": SIZES, "code": KNOWN_CODES}.get(field.kind)
        if field.kind == "id":
            # An id is found by its beginning anyway.
            return Text(value.text.lower(), prefix=True)
        if known is None:
            return value
        word = value.text.lower()
        if not (any(one.startswith(word) for one in known) if value.prefix else word in known):
            raise self.error(f"expected one of {', '.join(known)}, got {value.text!r}{near_word(word, tuple(known))}", begin)
        return Text(word, value.prefix)

    def _starred(self, text: str, begin: int) -> Text | Anything:
        star = text.find("*")
        if star == -1:
            return Text(text)
        if star != len(text) - 1:
            raise self.error("expected '*' only at the end of a value; put the value in quotes if the star is part of it", begin + star)
        return Text(text[:-1], prefix=True) if star else Anything()

    # numbers and times -----------------------------------------------------------------------------------------------

    def _ordered(self, field: Field) -> Value:
        begin = self.at
        found = _OP.match(self.text, begin)
        if found:
            self.at = found.end()
        start = self.at
        if start < len(self.text) and self.text[start] == '"':
            text = self._quoted()
        else:
            self.at = self._end(_ATOM)
            text = self.text[start : self.at]
        if not text:
            raise self.error(f"expected {_EXPECTED[field.kind]} right after {self.text[begin:start] or field.name + ':'}, got none", start)
        read = self._point_of(field, start)
        if found:
            op = next(op for op in OPS if op == found[0])
            return Compare(op, read(text))
        if text == "*":
            return Anything()
        low, dots, high = text.partition("..")
        if not dots:
            return Compare("=", read(text))
        if not low and not high:
            raise self.error(f"expected {_EXPECTED[field.kind]} on one side of '..' at least, got none", start)
        if not low or not high:
            return Compare("<=", read(high)) if high else Compare(">=", read(low))
        first, last = read(low), read(high)
        if isinstance(first, int) and isinstance(last, int) and first > last:
            raise self.error(f"expected the smaller one before '..', got {text!r}", start)
        return Between(first, last)

    def _point_of(self, field: Field, start: int) -> Callable[[str], Point]:
        reader = _READERS[field.kind]

        def read(text: str) -> Point:
            try:
                return reader(text)
            except ValueError as error:
                what = str(error) or f"expected {_EXPECTED[field.kind]}, got {text!r}"
                raise self.error(f"{field.name}: {what}", start) from None

        return read

    # what it says of the listing -------------------------------------------------------------------------------------

    def _setting(self, name: str, begin: int, settings: dict[str, str | int], *, negated: bool) -> None:
        self.at = self._end(_ATOM, begin)
        text = self.text[begin : self.at].lower()
        if negated:
            raise self.error(f"expected {name}: without '-' before it; the opposite order is sort:-created", begin)
        if name in settings:
            raise self.error(f"expected {name}: once, got it twice", begin)
        if name == "limit":
            if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= LARGEST_LIMIT:
                raise self.error(f"expected a number from 1 to {LARGEST_LIMIT} right after limit:, got {text!r}", begin)
            settings[name] = int(text)
        else:
            if text not in SORTS:
                raise self.error(f"expected one of {', '.join(SORTS)} right after sort:, got {text!r}{near_word(text, SORTS)}", begin)
            settings[name] = text

    # the text itself -------------------------------------------------------------------------------------------------

    def _end(self, pattern: re.Pattern[str], begin: int | None = None) -> int:
        begin = self.at if begin is None else begin
        found = pattern.match(self.text, begin)
        return found.end() if found else begin

    def _take(self, char: str) -> bool:
        if self.text[self.at : self.at + 1] != char:
            return False
        self.at += 1
        return True

    def _quoted(self) -> str:
        found = _QUOTED.match(self.text, self.at)
        if found is None:
            raise self.error("expected a closing '\"', got the end of the filter", self.at)
        self.at = found.end()
        return _unescaped(found[1])

    def error(self, message: str, position: int, near: str | None = None) -> InvalidQuery:
        return InvalidQuery(message, position=position, near=near, text=self.text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


# ── points ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not -_INT64 <= int(text) < _INT64:
        raise ValueError
    return int(text)


def _priority(text: str) -> int:
    try:
        return priority_number(text)
    except ValueError:
        near = near_word(text, tuple(PRIORITIES))
        raise ValueError(f"expected {_EXPECTED['priority']}, got {text!r}{near}") from None


def _duration(text: str) -> int:
    amount = seconds(text)
    if amount > _FARTHEST:
        raise ValueError
    return round(amount * 1000)


def _moment(text: str) -> Point:
    if text.lower() == "now":
        return Away(0)
    if text[0] in "+-":
        amount = _duration(text[1:])
        return Away(-amount if text[0] == "-" else amount)
    if _UNIX_MS.fullmatch(text) and text.isascii():
        return _in_range(int(text))
    if _DAY.fullmatch(text) and text.isascii():
        return Day(date.fromisoformat(text).isoformat())
    if _MOMENT.fullmatch(text) and text.isascii():
        return _in_range((datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1))
    if _ZONELESS.fullmatch(text):
        raise ValueError(f"expected a time with its zone such as {text}Z or {text}+01:00, got {text!r}")
    try:
        ago = _duration(text)
    except ValueError:
        raise ValueError(f"expected {_EXPECTED['time']}, got {text!r}") from None
    raise ValueError(f"expected {_EXPECTED['time']}, got {text!r}; did you mean -{text} ({ago / 1000:g} s ago)?")


def _in_range(ms: int) -> At:
    if not _FIRST_MS <= ms <= _LAST_MS:
        raise ValueError
    return At(ms)


_READERS: Final[dict[str, Callable[[str], Point]]] = {
    "number": _number,
    "priority": _priority,
    "duration": _duration,
    "time": _moment,
}
_EXPECTED: Final = {
    "number": "a whole number",
    "priority": f"an integer or one of {', '.join(PRIORITIES)}",
    "duration": "a duration such as 30s, 5m or 1h30m",
    "time": "a time such as -2h, 2026-11-21 or 2026-11-21T10:00:00Z",
}


def words_of(field: Field) -> tuple[str, ...]:
    """What may be written as a value of the field, where that is a closed list or has names; else nothing."""
    return {"state": KNOWN_STATES, "size": SIZES, "code": KNOWN_CODES, "priority": tuple(PRIORITIES)}.get(field.kind, ())


def state_names(text: Text) -> tuple[str, ...]:
    """The states that a value of `state:` stands for."""
    named = [name for name in KNOWN_STATES if (name.startswith(text.text) if text.prefix else name == text.text)]
    found: list[str] = []
    for name in named:
        found += [str(state) for state in STATE_GROUPS.get(name, ())] or [name]
    return tuple(dict.fromkeys(found))


def texts_of(field: Field, text: Text) -> tuple[str, ...] | None:
    """What a value of a closed list stands for, spelled out; None where the list is open."""
    if field.kind == "state":
        return state_names(text)
    known: dict[str, tuple[str, ...]] = {"size": SIZES, "code": KNOWN_CODES}
    if field.kind not in known:
        return None
    return tuple(one for one in known[field.kind] if (one.startswith(text.text) if text.prefix else one == text.text))


__all__ = ["META", "parse", "state_names", "texts_of"]
