"""References in values: `${NAME}` from the environment, `${NAME:-otherwise}`, and `file:` for the contents of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from inferq.config.secret import looks_secret
from inferq.errors import ConfigError

_VARIABLE = re.compile(r"(?P<escape>\$*)\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<otherwise>[^}]*))?\}")
_FILE = re.compile(r"(?P<escape>\$*)file:(?P<path>.+)", re.DOTALL)
_MAX_SECRET_FILE: Final = 65_536


class Expanded(msgspec.Struct, frozen=True):
    """A text with its references resolved. `secret` says that what it refers to must not be shown."""

    text: str
    referred: bool = False
    secret: bool = False


def expand(text: str, *, env: Mapping[str, str], base: Path, home: Path) -> Expanded:
    """Resolve the references of one value; relative files lie beside `base`. `$${NAME}` and `$file:x` stand for themselves.

    Raises ConfigError for a variable that is not set and for a file that cannot be read.
    """
    whole = _FILE.fullmatch(text)
    if whole and whole["escape"]:
        return Expanded(text[1:])
    if whole:
        return Expanded(read_secret(place(whole["path"], base=base, home=home)), referred=True, secret=True)

    names: list[str] = []

    def resolve(found: re.Match[str]) -> str:
        if found["escape"]:
            return found[0][1:]
        name, otherwise = found["name"], found["otherwise"]
        names.append(name)
        value = env.get(name) or otherwise
        if value is None:
            raise ConfigError(f"refers to ${{{name}}}, but that variable is not set; set it or write ${{{name}:-otherwise}}")
        return value

    made = _VARIABLE.sub(resolve, text)

    return Expanded(made, referred=bool(names), secret=any(map(looks_secret, names)))


def escape(text: str) -> str:
    """The text, written so that `expand` gives it back."""
    if _FILE.fullmatch(text):
        return f"${text}"
    return _VARIABLE.sub(lambda found: f"${found[0]}", text)


def read_secret(path: Path) -> str:
    """The text of a file without its last line end. Raises ConfigError, which never quotes the contents."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_SECRET_FILE + 1)
    except OSError as error:
        raise ConfigError(f"refers to the file {path}, which cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_SECRET_FILE:
        raise ConfigError(f"refers to the file {path}, which is larger than {_MAX_SECRET_FILE} bytes")
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"refers to the file {path}, which is not UTF-8 text") from None


def place(text: str, *, base: Path, home: Path) -> Path:
    """An absolute path from what was written: `~` is `home`, relative ones lie beside `base`."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return Path(os.path.normpath(base / text))
