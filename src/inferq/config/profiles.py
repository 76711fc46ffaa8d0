"""Profiles: named addresses of queues with their keys, in one file of the user's, `profiles.toml` beside the configuration.

A key is kept as a reference (`${NAME}`, `file:PATH`) where it was given so; a key that was written out goes to a file of its own that
only the user can read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from inferq.config.secret import Secret
from inferq.errors import ConfigError

FILE: Final = "profiles.toml"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An address and the reference to its key: `${NAME}`, `file:PATH`, or empty for none."""

    url: str
    api_key: str = ""


class Profiles(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All profiles by name, and which one is used where none is named."""

    use: str = ""
    profiles: dict[str, Profile] = {}

    def named(self, name: str) -> Profile:
        """Raises ConfigError."""
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none yet; make one with `inferq profile add NAME --url URL`"
            raise ConfigError(f"expected the name of a profile ({known}), got {name!r}")
        return self.profiles[name]


def path_of(directory: Path) -> Path:
    """The file that holds the profiles."""
    return directory / FILE


def read(directory: Path) -> Profiles:
    """The profiles in the user's directory of configuration; none when there is no file. Raises ConfigError."""
    path = path_of(directory)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Profiles()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the profiles in {path}: {error}") from None
    import tomllib

    try:
        return msgspec.convert(tomllib.loads(text), Profiles)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}; correct it, or remove it to begin anew") from None


def key_of(profile: Profile, directory: Path, *, env: Mapping[str, str]) -> Secret | None:
    """The profile's key, its reference resolved. Raises ConfigError."""
    if not profile.api_key:
        return None
    from inferq.config import references

    found = references.expand(profile.api_key, env=env, base=directory, home=Path.home())
    return Secret(found.text, profile.api_key)


def add(directory: Path, name: str, url: str, key: str = "") -> Profiles:
    """Make or replace a profile. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"expected a name of letters, digits, dots, dashes and underscores, got {name!r}")
    if key and not _is_reference(key):
        file = directory / "keys" / f"{name}.key"
        _write_private(file, key)
        key = f"file:{file}"
    before = read(directory)
    made = Profiles(before.use or name, {**before.profiles, name: Profile(url, key)})
    _write(directory, made)
    return made


def use(directory: Path, name: str) -> Profiles:
    """Take this one where none is named; the empty name for none. Raises ConfigError."""
    before = read(directory)
    if name:
        before.named(name)
    made = msgspec.structs.replace(before, use=name)
    _write(directory, made)
    return made


def remove(directory: Path, name: str) -> Profiles:
    """Forget a profile, and its key where we keep it. Raises ConfigError."""
    before = read(directory)
    before.named(name)
    left = {other: profile for other, profile in before.profiles.items() if other != name}
    made = Profiles("" if before.use == name else before.use, left)
    _write(directory, made)
    (directory / "keys" / f"{name}.key").unlink(missing_ok=True)
    return made


def _is_reference(key: str) -> bool:
    return key.startswith(("file:", "credential:")) or "${" in key


def _write(directory: Path, profiles: Profiles) -> None:
    lines = [f"use = {_text(profiles.use)}\n"] if profiles.use else []
    for name, profile in sorted(profiles.profiles.items()):
        lines.append(f"\n[profiles.{_text(name)}]\nurl = {_text(profile.url)}\n")
        if profile.api_key:
            lines.append(f"api_key = {_text(profile.api_key)}\n")
    _write_private(path_of(directory), "".join(lines).lstrip("\n"))


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")  # a JSON text is a TOML text but for DEL


def _write_private(path: Path, text: str) -> None:
    """In one step, readable by its owner only."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
