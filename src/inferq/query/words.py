"""What a filter says, as values: a `Query` is the text in parts (it prints as it was meant), a `Search` is what it comes to at a moment."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Op = Literal["=", ">", ">=", "<", "<="]
FOREIGN: Final = {"OR": "a comma, as in tag:x,y", "AND": "a blank", "NOT": "a '-' before the condition, as in -tag:x"}
"""Words of other filter languages, and what says the same here; in quotes they are ordinary words."""
OPS: Final[tuple[Op, ...]] = (">=", "<=", ">", "<", "=")


class Text(msgspec.Struct, frozen=True, tag="text"):
    """This text, or with `prefix` every text that begins so."""

    text: str
    prefix: bool = False


class Anything(msgspec.Struct, frozen=True, tag="anything"):
    """`*`: any value, as long as there is one."""


class At(msgspec.Struct, frozen=True, tag="at"):
    """An instant, in Unix milliseconds."""

    ms: int


class Day(msgspec.Struct, frozen=True, tag="day"):
    """A day of UTC, such as `2026-11-21`."""

    date: str


class Away(msgspec.Struct, frozen=True, tag="away"):
    """So many milliseconds from now: before it when negative."""

    ms: int


Point = int | At | Day | Away
"""A number (of a priority, of tokens; of milliseconds where the field is a duration) or a moment."""


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """At, above or below a point. A day is all of that day; `=` with a moment away from now is everything from here to there."""

    op: Op
    point: Point


class Between(msgspec.Struct, frozen=True, tag="between"):
    """From one point to another, both included."""

    low: Point
    high: Point


Value = Text | Anything | Compare | Between


class Term(msgspec.Struct, frozen=True):
    """One condition: the field has one of the values, or with `negated` none of them. The field of bare words is empty."""

    field: str
    values: tuple[Value, ...]
    negated: bool = False


class Query(msgspec.Struct, frozen=True):
    """A parsed filter: all terms must hold. `sort` and `limit` are what it says of the listing, where it says it."""

    terms: tuple[Term, ...] = ()
    sort: str | None = None
    limit: int | None = None

    def __str__(self) -> str:
        from inferq.query.writing import written

        return written(self)


Span = tuple[int | None, int | None]
"""From and to, both included; None is open."""


class Test(msgspec.Struct, frozen=True):
    """A condition ready to be decided: one of the texts, a beginning, a span, or that there is a value at all."""

    field: str
    texts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    present: bool = False
    negated: bool = False


Sort = Literal["-created", "created", "-finished", "finished", "-scheduled", "scheduled"]
SORTS: Final[tuple[Sort, ...]] = ("-created", "created", "-finished", "finished", "-scheduled", "scheduled")


class Search(msgspec.Struct, frozen=True):
    """What a store is asked: every test holds, in this order. `now` (Unix milliseconds) is when the question was put.

    `-created` is newest first; by `finished` only ended tasks can be sorted, by `scheduled` only scheduled ones.
    """

    tests: tuple[Test, ...] = ()
    sort: Sort = "-created"
    now: int = 0
