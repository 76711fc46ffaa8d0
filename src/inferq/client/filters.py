"""A library's Filter in the words of the filter language, which is what a server's list takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from inferq.query import At, Compare, Query, Term, Text
from inferq.store import Filter


def query_text(where: Filter) -> str | None:
    """The same filter as text; None for one that lets everything through."""
    terms: list[Term] = []

    def add(field: str, texts: Iterable[str]) -> None:
        values = tuple(Text(text) for text in texts)
        if values:
            terms.append(Term(field, values))

    add("state", map(str, where.states))
    add("action", where.actions)
    add("executor", where.executors)
    add("model", where.models)
    add("size", where.sizes)
    add("tenant", where.tenants)
    add("tag", () if where.tag is None else (where.tag,))
    add("schedule", () if where.schedule is None else (where.schedule,))
    if where.priorities:
        terms.append(Term("priority", tuple(Compare("=", priority) for priority in where.priorities)))
    if where.since is not None:
        terms.append(Term("created", (Compare(">=", At(where.since)),)))
    if where.until is not None:
        terms.append(Term("created", (Compare("<", At(where.until)),)))
    if where.prefix is not None:
        terms.append(Term("id", (Text(where.prefix),)))
    return str(Query(tuple(terms))) if terms else None
