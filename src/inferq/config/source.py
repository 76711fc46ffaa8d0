"""Where a value came from, and a value on its way from there into the tree. Words only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

Origin = Literal["default", "file", "environment", "argument"]


class Source(msgspec.Struct, frozen=True):
    """Who set a value: `name` is the file, the variable or the argument, `line` its line (from 1) where that is known.

    `written` is the name it was written under when that is not the key's own.
    """

    kind: Origin = "default"
    name: str = ""
    line: int | None = None
    written: str = ""

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        text = f"argument {self.name}" if self.kind == "argument" else self.name
        text += f":{self.line}" if self.line else ""
        return f"{text} ({self.written})" if self.written else text


DEFAULT = Source()


class Entry(msgspec.Struct, frozen=True):
    """One value as somebody wrote it: where it belongs, who wrote it, and `base`, the directory that relative paths start from.

    `convert` translates a forerunner's meaning into ours after references are resolved; it raises ValueError.
    """

    path: tuple[str, ...]
    value: Any
    source: Source
    base: Path
    convert: Callable[[Any], Any] | None = None
