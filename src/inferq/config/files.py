"""Configuration files: which ones count, and what they hold. Reads files and nothing else; knows no key but the forerunners' marks."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from inferq.config import legacy, references
from inferq.config.lines import key_lines
from inferq.config.text import Unreadable, text_of
from inferq.errors import ConfigError

NAMES: Final = ("inferq.toml", "inferq.yaml", "inferq.yml", "inferq.json")
FORERUNNER_NAMES: Final = ("config.yaml", "config.yml", "config.json")
SUFFIXES: Final = (".toml", ".yaml", ".yml", ".json")
_MAX_BYTES: Final = 1_000_000


class Places(msgspec.Struct, frozen=True):
    """Directories that configuration is looked for in, as arguments, so that nothing depends on who runs the program."""

    cwd: Path
    home: Path
    user: Path
    system: tuple[Path, ...]
    data: Path

    @classmethod
    def here(cls) -> Places:
        """This process's own, by the platform's rules."""
        import platformdirs

        return cls(
            cwd=Path.cwd(),
            home=Path.home(),
            user=Path(platformdirs.user_config_dir("inferq", appauthor=False)),
            system=(Path(platformdirs.site_config_dir("inferq", appauthor=False)), Path("/etc/inferq")),
            data=Path(platformdirs.user_data_dir("inferq", appauthor=False)),
        )


class Document(msgspec.Struct, frozen=True):
    """A file's contents. `text` is kept to say in which line a key stands."""

    path: Path
    data: dict[str, Any]
    text: str = ""

    def line_of(self, path: tuple[str, ...]) -> int | None:
        """The line (from 1) that sets a key: its own or, of what stands inside a value, that value's. Of a key that a forerunner's name
        was translated to, the line with its last name, when exactly one could be it."""
        places = key_lines(self.text, self.path.suffix.lower())
        whole = ("tool", "inferq", *path) if self.path.name == "pyproject.toml" else path
        for end in range(len(whole), len(whole) - len(path), -1):
            if line := places.get(whole[:end]):
                return line
        name = re.escape(path[-1])
        setting = re.compile(rf"""(?:^|[\s{{,.\["'])["']?{name}["']?\s*[=:\].]""")
        lines = [number for number, line in enumerate(self.text.splitlines(), 1) if setting.search(line.split("#", 1)[0])]
        return lines[0] if len(lines) == 1 else None


def gather(file: str | Path | None, places: Places, notes: list[str], *, search: bool = True) -> list[Document]:
    """The files that count, least important first: an explicit one alone, else system, user and the nearest project file.

    `notes` receives a line for each file that was found and left aside. Raises ConfigError.
    """
    if file is not None:
        path = references.place(str(file), base=places.cwd, home=places.home)
        if not path.exists():
            raise ConfigError(f"the configuration file {path} does not exist; check the path given by --config or INFERQ_CONFIG")
        return [read(path)]
    if not search:
        return []
    found = [_first_in(places.system), _users(places, notes), _nearest(places, notes)]
    unique = {document.path: document for document in found if document is not None}

    return list(unique.values())


def _first_in(directories: tuple[Path, ...]) -> Document | None:
    path = next((directory / name for directory in directories for name in NAMES if os.path.isfile(directory / name)), None)
    return read(path) if path else None


def _users(places: Places, notes: list[str]) -> Document | None:
    return _first_in((places.user,)) or _forerunners(places.home / ".ollama-queue", notes)


def _nearest(places: Places, notes: list[str]) -> Document | None:
    for directory in (places.cwd, *places.cwd.parents):
        present = [directory / name for name in NAMES if os.path.isfile(directory / name)]
        if present and directory != places.cwd and not _trusted(present[0]):
            notes.append(
                f"{present[0]} was not read: it lies above the working directory and belongs to another user; name it with --config"
            )
            continue
        if len(present) > 1:
            notes.append(f"{', '.join(path.name for path in present[1:])} in {directory} not read: {present[0].name} comes first")
        document = read(present[0]) if present else _project(directory / "pyproject.toml", notes, own=directory == places.cwd)
        if document is None and directory == places.cwd:
            document = _forerunners(directory, notes)
        if document is not None:
            return document
    return None


def _trusted(path: Path) -> bool:
    """Whether a file above the working directory may configure this process: anybody can put one into /tmp."""
    return not hasattr(os, "getuid") or path.stat().st_uid in (0, os.getuid())


def _project(path: Path, notes: list[str], *, own: bool) -> Document | None:
    if not os.path.isfile(path):
        return None
    try:
        text = path.read_text("utf-8")
        if "inferq" not in text:
            return None
        data = _tool_table(tomllib.loads(text))
    except (OSError, ValueError) as error:
        notes.append(f"{path} was not read: {error}")
        return None
    if data is None:
        return None
    if not own and not _trusted(path):
        notes.append(f"[tool.inferq] in {path} was not read: the file belongs to another user; name it with --config")
        return None
    return Document(path, _group(data, path, "[tool.inferq]"), text)


def _tool_table(data: dict[str, Any]) -> Any:
    tool = data.get("tool")
    return tool.get("inferq") if isinstance(tool, dict) else None


def _forerunners(directory: Path, notes: list[str]) -> Document | None:
    """A file under one of the names that half of all programs use: only read when it is evidently meant."""
    for path in (directory / name for name in FORERUNNER_NAMES):
        if not os.path.isfile(path):
            continue
        try:
            document = read(path)
        except ConfigError as error:
            notes.append(f"{path} was ignored: {error}")
            continue
        if legacy.recognisable(document.data):
            return document
        notes.append(f"{path} was ignored: it holds no setting of the queue; name it with --config if it should")
    return None


# ── reading one ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> Document:
    """The contents of a TOML, YAML or JSON file. Raises ConfigError with the place of what is wrong."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot tell the format of {path}: expected a name that ends in {', '.join(SUFFIXES)}")
    text = _text(path)
    try:
        data = _decode(path, text)
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    if path.name == "pyproject.toml":
        data = _tool_table(data)
    return Document(path, _group(data, path, "the file"), text)


def _text(path: Path) -> str:
    try:
        return text_of(path, most=_MAX_BYTES)
    except Unreadable as why:
        raise ConfigError(f"the configuration file {path} {why}") from None


def _decode(path: Path, text: str) -> Any:
    match path.suffix.lower():
        case ".toml":
            try:
                return tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{path} is not valid TOML: {error}") from None
        case ".json":
            try:
                return json.loads(text, object_pairs_hook=_unique_pairs) if text.strip() else {}
            except json.JSONDecodeError as error:
                raise ConfigError(f"{path}:{error.lineno} is not valid JSON: {error.msg} (column {error.colno})") from None
            except ValueError as error:
                raise ConfigError(f"{path}: {error}") from None
        case _:
            return _decode_yaml(path, text)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value] # add() is wanted for its effect
        raise ValueError(f"the key {twice!r} is given twice in one group; keep one of them")
    return made


def _decode_yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _refuse_doubles(root, path, set())
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        at = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{at} is not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


def _refuse_doubles(node: Any, path: Path, visited: set[int]) -> None:
    """YAML lets the last of two equal keys win in silence; here that is a mistake."""
    if id(node) in visited or isinstance(node.value, str):
        return
    visited.add(id(node))
    seen: set[str] = set()
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            _refuse_doubles(part, path, visited)
        if isinstance(item, tuple) and isinstance(item[0].value, str) and item[0].value != "<<":
            if item[0].value in seen:
                raise ConfigError(
                    f"{path}:{item[0].start_mark.line + 1}: the key {item[0].value!r} is given twice in one group; keep one of them"
                )
            seen.add(item[0].value)


def _group(data: Any, path: Path, what: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected {what} to hold settings such as worker.slots, got a {type(data).__name__}")
    return dict(data)
