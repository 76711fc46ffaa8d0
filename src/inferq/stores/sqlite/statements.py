"""The SQL of this store: one statement a file in `sql/`, loaded once by name."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

_FOLDER: Final = files("inferq.stores.sqlite") / "sql"

SQL: Final[dict[str, str]] = {
    entry.name.removesuffix(".sql"): entry.read_text("utf-8") for entry in _FOLDER.iterdir() if entry.name.endswith(".sql")
}

MIGRATIONS: Final[tuple[tuple[str, str], ...]] = tuple(
    sorted((entry.name.removesuffix(".sql"), entry.read_text("utf-8")) for entry in (_FOLDER / "migrations").iterdir() if entry.name.endswith(".sql"))
)
"""(name, script) in the order to apply; `PRAGMA user_version` is how many a file has had."""
