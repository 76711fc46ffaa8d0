"""The SQL of this store: one statement a file in `sql/`, loaded once by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import chain
from typing import Any, Final

_FOLDER: Final = files("inferq.stores.sqlite") / "sql"

SQL: Final[dict[str, str]] = {
    entry.name.removesuffix(".sql"): entry.read_text("utf-8") for entry in _FOLDER.iterdir() if entry.name.endswith(".sql")
}

MIGRATIONS: Final[tuple[tuple[str, str], ...]] = tuple(
    sorted(
        (entry.name.removesuffix(".sql"), entry.read_text("utf-8"))
        for entry in (_FOLDER / "migrations").iterdir()
        if entry.name.endswith(".sql")
    )
)
"""(name, script) in the order to apply; `PRAGMA user_version` is how many a file has had."""

MOST_ROWS: Final = 64
"""Rows that one statement writes at most; each number of rows is a statement of its own, prepared when it is first needed."""

_many: dict[tuple[str, int], str] = {}


def write_many(execute: Callable[[str, Sequence[Any]], Any], name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement whose only VALUES row stands for many, 64 rows at a time.

    Each step of a statement gives the interpreter's lock away, and behind a busy event loop it takes a switch interval to get it back:
    a group of commands costs as many of them as it has statements, whatever these do.
    """
    for start in range(0, len(rows), MOST_ROWS):
        part = rows[start : start + MOST_ROWS]
        execute(_statement(name, len(part)), list(chain.from_iterable(part)))


def within(name: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    """A statement whose only `IN (?)` stands for many values, and the values padded to its next size: few texts, all cached."""
    size = next((size for size in (4, 16, 64, 256) if size >= len(values)), len(values))
    made = _many.get((name, size))
    if made is None:
        made = _many[name, size] = SQL[name].replace("IN (?)", f"IN ({', '.join('?' * size)})")
    return made, [*values, *([values[-1]] * (size - len(values)))]


def _statement(name: str, size: int) -> str:
    made = _many.get((name, size))
    if made is None:
        before, row, after = _ROW.split(SQL[name], maxsplit=1)
        made = _many[name, size] = f"{before}VALUES {', '.join([row] * size)}{after}"
    return made


_ROW: Final = re.compile(r"VALUES (\([?, ]+\))")
