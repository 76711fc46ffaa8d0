"""From files, variables and arguments to entries: every name is checked here, unknown ones are errors with a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from inferq.config import legacy, remote_scheduling
from inferq.config.files import Document
from inferq.config.key import Path_, is_group, keys, lookup, quoted
from inferq.config.secret import looks_secret
from inferq.config.settings import DEFAULT_BACKENDS
from inferq.config.source import Entry, Source

PREFIX: Final = "INFERQ_"
_SECTIONS: Final = frozenset(key.path[0] for key in keys())
_BACKEND_NAME = re.compile(r"(?!.*__)[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")


def from_document(document: Document, problems: list[str]) -> list[Entry]:
    """What a file says. Relative paths in it start from its directory."""

    def source(path: Path_, *, written: str = "") -> Source:
        return Source("file", str(document.path), document.line_of(path), written)

    wrong: list[str] = []
    data = {name: value for name, value in document.data.items() if name != "$schema"}
    data = dict(legacy.listening(remote_scheduling.translated(_grouped(data), wrong), wrong))
    problems += [f"{document.path}: {problem}" for problem in wrong]
    return _from_tree(data, source, document.path.parent, problems)


def from_arguments(arguments: Mapping[str, Any], base: Path, problems: list[str]) -> list[Entry]:
    """What a program or a command line says: `{"worker.slots": 8}` or nested groups. None says nothing (the text `none` unsets)."""

    def source(path: Path_, *, written: str = "") -> Source:
        return Source("argument", written or ".".join(path))

    tree: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is not None:
            _plant(tree, name.split("."), value)
    tree = dict(legacy.listening(remote_scheduling.translated(tree, problems), problems))
    return [entry for entry in _from_tree(tree, source, base, problems) if entry.value is not None]


def _grouped(data: Mapping[Any, Any]) -> dict[str, Any]:
    """YAML and JSON know no dotted keys; `worker.slots: 8` says the same as the group."""
    tree: dict[str, Any] = {}
    for name, value in data.items():
        dotted = name.split(".")[0] in _SECTIONS if isinstance(name, str) else False
        _plant(tree, name.split(".") if dotted else [name], value)
    return tree


def _plant(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        below = tree.setdefault(part, {})
        tree = below if isinstance(below, dict) else {}
    if isinstance(value, Mapping) and isinstance(tree.get(parts[-1]), dict):
        for name, inner in value.items():
            _plant(tree[parts[-1]], [name], inner)
    else:
        tree[parts[-1]] = dict(value) if isinstance(value, Mapping) else value


# ── trees: files and arguments ──────────────────────────────────────────────────────────────────────────────────────


def _from_tree(data: Mapping[Any, Any], source: Any, base: Path, problems: list[str]) -> list[Entry]:
    entries: dict[Path_, Entry] = {}
    for path, value in _leaves(data, (), source, problems):
        row = legacy.row_of(path) if lookup(path) is None else None
        target = row.path if row else path
        written = ".".join(path) if row else ""
        if row is None and lookup(path) is None:
            problems.append(f"{source(path)}: {unknown(path)}")
            continue
        if target in entries:
            twice = entries[target].source.written or ".".join(target)
            problems.append(
                f"{source(path)}: {'.'.join(target)} is given twice, as {twice} and as {written or '.'.join(path)}; keep one of them"
            )
        entries[target] = Entry(target, value, source(path, written=written), base, row.convert if row else None)
    return list(entries.values())


def _leaves(data: Mapping[Any, Any], prefix: Path_, source: Any, problems: list[str]) -> Iterator[tuple[Path_, Any]]:
    for name, value in data.items():
        if not isinstance(name, str):
            problems.append(f"{source((*prefix, str(name)))}: expected a text as key, got {name!r}; put it in quotes")
            continue
        path = (*prefix, name)
        if path == ("backends",):
            value = _named(value, source, problems)
        if prefix == ("backends",) and not _is_name(name):
            problems.append(f"{source(path)}: a backend's name is letters, digits, '-' and single '_', got {name!r}")
        elif prefix == ("backends",) and not value:
            problems.append(f"{source(path)}: nothing is said about the backend {name!r}; give it an executor")
        elif isinstance(value, Mapping) and (_opens(path) or value):
            yield from _leaves(value, path, source, problems)
        elif _opens(path) and value is not None:
            problems.append(f"{source(path)}: expected {'.'.join(path)} to be a group of settings, got {quoted(path, value)}")
        elif not _opens(path):
            yield path, value


def _is_name(text: str) -> bool:
    return _BACKEND_NAME.fullmatch(text) is not None


def _opens(path: Path_) -> bool:
    """Whether a group is expected at this path; below an executor's own settings anything goes."""
    if path[:1] == ("backends",) and path[2:3] == ("settings",):
        return len(path) == 3
    return is_group(path) or legacy.is_group(path)


def _named(value: Any, source: Any, problems: list[str]) -> Any:
    """Backends as a mapping by name, also when they were written as a list of groups with `name`."""
    if not isinstance(value, list | tuple):
        return value
    named: dict[str, Any] = {}
    for number, backend in enumerate(value, 1):
        name = backend.get("name") if isinstance(backend, Mapping) else None
        if not isinstance(name, str):
            problems.append(
                f"{source(('backends',))}: expected backend {number} of the list to be a group with a name, got {quoted((), backend)}"
            )
        elif name in named:
            problems.append(f"{source(('backends',))}: two backends are called {name!r}; rename one of them")
        else:
            named[name] = {key: inner for key, inner in backend.items() if key != "name"}
    return named


# ── environment ─────────────────────────────────────────────────────────────────────────────────────────────────────


def from_environment(env: Mapping[str, str], base: Path, known: set[str], problems: list[str]) -> list[Entry]:
    """What `INFERQ_*` variables say; empty ones say nothing. `known` are the backends' names that other sources mention.

    Names without `__` are left alone unless they are evidently a key written with single underscores: other parts have variables
    of their own, and Kubernetes invents some for every service.
    """
    backends = {_folded(name): name for name in known | {backend.name for backend in DEFAULT_BACKENDS}}
    entries: list[Entry] = []
    for name in sorted(env):
        text = env[name]
        if not name.startswith(PREFIX) or not text:
            continue
        if name == "INFERQ_URL":
            entries.insert(0, Entry(("store", "url"), text, Source("environment", name), base))
            continue
        path = _variable_path(name, backends)
        if path is None:
            problems += _misspelt(name)
            continue
        if path[-1].endswith("_file") and looks_secret(path[-1].removesuffix("_file")):
            path, text = (*path[:-1], path[-1].removesuffix("_file")), f"file:{text}"
        if lookup(path) is None or path[2:] == ("settings",) or (path[0] == "backends" and not _is_name(path[1])):
            problems.append(f"{name}: {unknown(path, environment=True)}")
            continue
        entries.append(Entry(path, text, Source("environment", name), base))
    return entries


def _variable_path(name: str, backends: Mapping[str, str]) -> Path_ | None:
    parts = name.removeprefix(PREFIX).lower().split("__")
    if len(parts) < 2 or parts[0] not in _SECTIONS:
        return None
    if parts[0] == "backends":
        parts[1] = backends.get(parts[1], parts[1])
    return tuple(parts)


def colliding(names: list[str]) -> list[str]:
    """Complaints about backends whose names no variable could tell apart."""
    first: dict[str, str] = {}
    return [
        f"the backends {first[_folded(name)]!r} and {name!r} have the same variables; rename one of them"
        for name in names
        if first.setdefault(_folded(name), name) != name
    ]


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _misspelt(name: str) -> list[str]:
    """A complaint about a variable that cannot be anything but a misspelt key, else none."""
    meant = next((key.env for key in keys() if key.env.replace("__", "_") == name.replace("__", "_")), None)
    if meant:
        return [f"{name}: unknown variable; groups are joined by two underscores: {meant}"]
    if name.removeprefix(PREFIX).lower() in _SECTIONS:
        return [f"{name}: names a group of settings; name one of them, such as {next(k.env for k in keys() if k.env.startswith(name))}"]
    if "__" in name:
        near = _nearest(name, [key.env for key in keys()])
        return [f"{name}: unknown variable{f'; did you mean {near}?' if near else ''}"]
    return []


# ── suggestions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def unknown(path: Path_, *, environment: bool = False) -> str:
    """What is wrong with a key that does not exist, and what may have been meant."""
    name = ".".join(path)
    if environment and path[2:] == ("settings",):
        return "names a group; add the executor's setting, as in INFERQ_BACKENDS__NAME__SETTINGS__BASE_URL"
    own = [key.name.replace("*", path[1] if path[0] == "backends" and len(path) > 1 else "NAME") for key in keys()]
    near = _nearest(name, own if environment else [*own, *legacy.names()])
    if near is None and (group := _nearest(path[0], sorted(_SECTIONS))) and group != path[0]:
        return f"the key {name!r} is not known; did you mean the group {group!r}?"
    if near is None:
        near = next((key for key in own if key.rpartition(".")[2] == path[-1]), None)
    beside = [key for key in own if key.rpartition(".")[0] == name.rpartition(".")[0]]
    if near:
        return f"the key {name!r} is not known; did you mean {near!r}?"
    return f"the key {name!r} is not known; " + (f"known here: {', '.join(beside)}" if beside else "`docs/configuration.md` lists all keys")


def _nearest(name: str, candidates: list[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)), None)
