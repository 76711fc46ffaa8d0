"""The reference tables of `docs/configuration.md`, made from the code; `python -m inferq.config.reference FILE` renews them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from inferq.config import legacy
from inferq.config.key import Key, keys
from inferq.config.reload import is_live

_OWN_DEFAULTS: Final = {
    "store.data_dir": "the platform's data directory",
    "store.url": "`inferq.db` in `store.data_dir`",
    "backends.*.executor": "the name, for built-in ones",
}


def key_table() -> str:
    """Every key: name, type, unit, default, what a reload does, variable, meaning."""
    lines = ["| key | type | unit | default | reload | variable | meaning |", "|---|---|---|---|---|---|---|"]
    for key in keys():
        cells = (f"`{key.name.replace('*', 'NAME')}`", _type(key), _unit(key), _default(key), _reload(key), f"`{key.env}`", key.meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def legacy_table() -> str:
    """Every name of a forerunner and of a backend's own tools that is understood."""
    lines = ["| key | flat | nested | variable | remarks |", "|---|---|---|---|---|"]
    for row in legacy.TABLE:
        nested = ", ".join(f"`{group}.{name}`" for group, name in row.nested)
        flat = f"`{row.flat}`" if row.flat else ""
        variables = ", ".join(f"`{name}`" for name in reversed(row.env))
        lines.append(f"| `{row.key}` | {flat} | {nested} | {variables} | {row.note} |")
    return "\n".join(lines)


def renewed(page: str) -> str:
    """The page with what stands between its markers replaced by today's tables."""
    for name, table in (("keys", key_table()), ("legacy", legacy_table())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def _type(key: Key) -> str:
    bounds = ", ".join(f"{word} {limit:g}" for word, limit in key.bounds if word != "of at most" or limit < 100_000_001)
    name = " \\| ".join(f"`{choice}`" for choice in key.choices) if key.choices else key.kind
    return name + (f" {bounds}" if bounds else "") + (" or none" if key.optional else "")


def _unit(key: Key) -> str:
    return key.unit if key.kind in ("integer", "number", "duration", "size") else ""


def _reload(key: Key) -> str:
    return "yes" if is_live(key.name) else "restart"


def _default(key: Key) -> str:
    if key.name in _OWN_DEFAULTS:
        return _OWN_DEFAULTS[key.name]
    value: Any = key.default
    if key.kind in ("list", "mapping"):
        return "empty"
    if value is None:
        return "none"
    return (
        f"`{value:g}`" if isinstance(value, float) and value < 100_000 else f"`{value:.0f}`" if isinstance(value, float) else f"`{value}`"
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(renewed(Path(name).read_text("utf-8")), encoding="utf-8")
