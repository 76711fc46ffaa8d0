"""References in values: `${NAME}` from the environment, `${NAME:-otherwise}`, `file:` for the contents of a file, `credential:` for one
that systemd hands over."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from inferq.config.secret import looks_secret
from inferq.config.text import Unreadable, text_of
from inferq.errors import ConfigError

_VARIABLE = re.compile(r"(?P<escape>\$*)\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<otherwise>[^}]*))?\}")
_FILE = re.compile(r"(?P<escape>\$*)(?P<kind>file|credential):(?P<path>.+)", re.DOTALL)
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd says where a unit's credentials lie."""
_MAX_SECRET_FILE: Final = 65_536


class Expanded(msgspec.Struct, frozen=True):
    """A text with its references resolved. `secret` says that what it refers to must not be shown."""

    text: str
    referred: bool = False
    secret: bool = False


def expand(text: str, *, env: Mapping[str, str], base: Path, home: Path) -> Expanded:
    """Resolve the references of one value; relative files lie beside `base`. A `$` before a reference makes it stand for itself.

    Raises ConfigError for a variable that is not set and for a file that cannot be read.
    """
    whole = _FILE.fullmatch(text)
    if whole and whole["escape"]:
        return Expanded(text[1:])
    if whole and whole["kind"] == "credential":
        return Expanded(read_secret(_credential(whole["path"], env)), referred=True, secret=True)
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


def _credential(name: str, env: Mapping[str, str]) -> Path:
    directory = env.get(CREDENTIALS)
    if not directory:
        raise ConfigError(f"refers to the credential {name!r}, but ${CREDENTIALS} is not set; systemd's LoadCredential={name}:FILE sets it")
    if "/" in name or name in (".", ".."):
        raise ConfigError(f"expected the name of a credential, got {name!r}")
    return Path(directory) / name


def credentials(env: Mapping[str, str]) -> dict[str, str]:
    """The files of systemd's credentials that are named like variables, each as the variable `NAME_FILE` that would point to it."""
    directory = env.get(CREDENTIALS)
    if not directory:
        return {}
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return {}
    return {f"{name}_FILE": os.path.join(directory, name) for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)}


def escape(text: str) -> str:
    """The text, written so that `expand` gives it back."""
    if _FILE.fullmatch(text):
        return f"${text}"
    return _VARIABLE.sub(lambda found: f"${found[0]}", text)


def read_secret(path: Path) -> str:
    """The text of a file without its last line end. Raises ConfigError, which never quotes the contents."""
    try:
        return text_of(path, most=_MAX_SECRET_FILE).removesuffix("\n").removesuffix("\r")
    except Unreadable as why:
        raise ConfigError(f"refers to the file {path}, which {why}") from None


def place(text: str, *, base: Path, home: Path) -> Path:
    """An absolute path from what was written: `~` is `home`, relative ones lie beside `base`."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return Path(os.path.normpath(base / text))
