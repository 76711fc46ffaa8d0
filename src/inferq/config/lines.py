"""In which line of a configuration file each key stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART: Final = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


@lru_cache(maxsize=8)
def key_lines(text: str, suffix: str) -> dict[tuple[str, ...], int]:
    """The line (from 1) of each key that is given a value, by its path. Of a text that can be read."""
    found = _toml(text) if suffix == ".toml" else _yaml(text)
    places: dict[tuple[str, ...], int] = {}
    for path, line in found:
        places.setdefault(path, line)
    return places


def _toml(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _names(header[1])
        elif key := _KEY.match(line):
            yield table + _names(key[1]), number


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _yaml(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """JSON too: it is YAML, but for tabs between its words."""
    import yaml

    try:
        root = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    yield from _nodes(root, ())


def _nodes(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if getattr(node, "id", "") != "mapping":
        return
    for key, value in node.value:
        if isinstance(key.value, str):
            inner = (*path, key.value) if path else tuple(key.value.split("."))
            if value.start_mark.line == value.end_mark.line or not _holds_groups(value):
                yield inner, key.start_mark.line + 1
            yield from _nodes(value, inner)


def _holds_groups(node: Any) -> bool:
    """Whether what is inside stands in lines of its own."""
    return node.id == "mapping" or (node.id == "sequence" and any(item.id != "scalar" for item in node.value))
