"""Which tasks, and how many at a time: what a listing is asked with, and the page that it answers."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from inferq.errors import InvalidQuery, InvalidTask
from inferq.query import LARGEST_LIMIT, At, Compare, Query, Search, Term, Text, parse, search
from inferq.task import Size, State, Task


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tasks, for programs that have the values in hand; empty means any. People write the same as text (`inferq.query`).

    Instants are Unix milliseconds: `since` is included, `until` is not. `prefix` is the beginning of an id.
    """

    states: tuple[State, ...] = ()
    actions: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = ()
    tenants: tuple[str, ...] = ()
    tag: str | None = None
    schedule: str | None = None
    since: int | None = None
    until: int | None = None
    prefix: str | None = None

    def query(self) -> Query:
        """The same in the filter language."""
        lists: dict[str, tuple[object, ...]] = {
            "state": self.states,
            "action": self.actions,
            "executor": self.executors,
            "model": self.models,
            "size": self.sizes,
            "tenant": self.tenants,
            "tag": () if self.tag is None else (self.tag,),
            "schedule": () if self.schedule is None else (self.schedule,),
        }
        terms = [Term(name, tuple(Text(str(value)) for value in values)) for name, values in lists.items() if values]
        if self.priorities:
            terms.append(Term("priority", tuple(Compare("=", number) for number in self.priorities)))
        if self.since is not None:
            terms.append(Term("created", (Compare(">=", At(self.since)),)))
        if self.until is not None:
            terms.append(Term("created", (Compare("<", At(self.until)),)))
        if self.prefix is not None:
            terms.append(Term("id", (Text(self.prefix, prefix=True),)))
        return Query(tuple(terms))

    def search(self) -> Search:
        """What a store is asked; a Filter knows no relative times, so no moment is needed."""
        return search(self.query(), 0)


Where = Filter | Query | str | None
"""How callers say which tasks: a Filter, a text of the filter language, what was parsed from one, or None for all."""


def query_of(where: Where) -> Query:
    """What was said, parsed. Raises InvalidQuery."""
    if isinstance(where, Query):
        return where
    if isinstance(where, str):
        return parse(where)
    if isinstance(where, Filter):
        return where.query()
    if where is None:
        return Query()
    raise InvalidQuery(f"expected a Filter or a text of the filter language, got {type(where).__name__}")


def page_size(limit: int | None, query: Query) -> int:
    """How many tasks a page has: the limit that was given, else the filter's own, else 50. Raises InvalidTask."""
    wanted = limit if limit is not None else query.limit or 50
    if type(wanted) is not int or not 1 <= wanted <= LARGEST_LIMIT:
        raise InvalidTask(f"expected a number from 1 to {LARGEST_LIMIT}, got {wanted!r}", field="limit")
    return wanted


Cursor = int | str
"""Where a listing goes on: the sequence number of the last task in the order of arrival, a text in other orders. Pass it back as it is."""


def checked_cursor(after: Cursor | None) -> Cursor | None:
    """The `after` of a page as it was. Raises InvalidTask for what no page gave."""
    if after is None or type(after) is int or (type(after) is str and _CURSOR.fullmatch(after)):
        return after
    raise InvalidTask(f"expected the `after` of a page, got {after!r}", field="after")


_CURSOR: Final = re.compile(r"-?[0-9]{1,19}(?:\.-?[0-9]{1,19})?")


class Page(msgspec.Struct, frozen=True):
    """Tasks in the order asked for (newest first); `after` continues the listing, None at its end.

    A page may be shorter than its limit, even empty, and still be followed by others: a store looks at a bounded number of candidates
    at a time, so that a rare match in a long queue holds nobody up.
    """

    tasks: list[Task]
    after: Cursor | None
