"""`load`: defaults < files < environment < arguments, merged by one rule, with the source of every value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Final

import msgspec

from inferq.config import entries, files, legacy, references
from inferq.config.files import Places
from inferq.config.key import Key, Path_, coerce, free_value, keys, lookup, quoted
from inferq.config.secret import Secret, has_password, looks_secret, shown
from inferq.config.settings import (
    DEFAULT_BACKENDS,
    BackendSettings,
    BreakerSettings,
    HealthSettings,
    LogSettings,
    RemoteSettings,
    RetentionSettings,
    RetrySettings,
    ServerSettings,
    Settings,
    StateRetention,
    StoreSettings,
    WebhookSettings,
    WorkerSettings,
    default_url,
)
from inferq.config.source import DEFAULT, Entry, Source
from inferq.errors import ConfigError

_IN_MEMORY: Final = frozenset({":memory:", "sqlite://", "sqlite://:memory:", "sqlite:///:memory:"})
_BUILT_IN: Final = frozenset(backend.name for backend in DEFAULT_BACKENDS)


class Loaded(msgspec.Struct, frozen=True):
    """The settings and where each value came from. `files` were read, most important first; `notes` says what was left aside."""

    settings: Settings
    sources: dict[str, Source]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, Any, Source]]:
        """Key, value with secrets masked, source: for `config show --sources`."""
        values = _flatten(self.settings)
        return [(name, shown(values[name]), source) for name, source in self.sources.items()]


class _Value(msgspec.Struct, frozen=True):
    value: Any
    source: Source


def load(
    *,
    file: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    places: Places | None = None,
    search: bool = True,
) -> Loaded:
    """Read the configuration.

    `file` (else the variable INFERQ_CONFIG) is read alone and must exist; otherwise system, user and nearest project file
    are merged, unless `search` is off. `arguments` are `{"worker.slots": 8}` or nested; None among them means not given.
    `env` and `places` default to this process's own. Raises ConfigError that lists every mistake with its source.
    """
    env = os.environ if env is None else env
    places = places or Places.here()
    notes: list[str] = []
    problems: list[str] = []
    documents = files.gather(file or env.get("INFERQ_CONFIG") or None, places, notes, search=search)

    written = [entry for document in documents for entry in entries.from_document(document, problems)]
    given = entries.from_arguments(arguments or {}, places.cwd, problems)
    mentioned = {entry.path[1] for entry in written + given if entry.path[0] == "backends"}
    own = entries.from_environment(env, places.cwd, mentioned, problems)
    foreign = list(legacy.from_environment(env, places.cwd))
    handed = references.credentials(env)
    own = [*_named_so(entries.from_environment(handed, places.cwd, mentioned, problems)), *own]
    everything = [*written, *_named_so(legacy.from_environment(handed, places.cwd)), *foreign, *own, *given]

    present = _present([*written, *own, *given])
    problems += entries.colliding(present)
    ranked = [entry for entry in [*legacy.implied(everything), *everything] if entry.path[0] != "backends" or entry.path[1] in present]
    values = _Resolver(env, places, problems).merge(_defaults(places, present), ranked)
    _refuse(problems)
    settings = _build(_fitting(values), present, problems)
    _refuse(problems)

    read = tuple(document.path for document in reversed(documents))
    return Loaded(settings, _sources(settings, values), read, tuple(notes))


def _named_so(handed: Iterable[Entry]) -> list[Entry]:
    """Secrets that systemd hands over under the name of their variable: they say so. The variable itself ranks higher."""
    return [msgspec.structs.replace(e, source=Source("environment", f"credential {e.source.name.removesuffix('_FILE')}")) for e in handed]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems))


def _present(own: list[Entry]) -> list[str]:
    """The names of the backends that exist.

    While nobody states an executor or a name of their own, the built-in ones; afterwards, exactly those that are mentioned. The
    variables of other programs (OLLAMA_HOST, OPENAI_API_KEY) adjust a backend of their name, they never make one.
    """
    mentioned = list(dict.fromkeys(entry.path[1] for entry in own if entry.path[0] == "backends"))
    listed = any(entry.path[2:] == ("executor",) for entry in own if entry.path[0] == "backends")
    if listed or not _BUILT_IN.issuperset(mentioned):
        return mentioned
    return [backend.name for backend in DEFAULT_BACKENDS]


# ── one value ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Resolver:
    """Turns entries into typed values and lets the later one win. Mistakes are collected, not raised."""

    def __init__(self, env: Mapping[str, str], places: Places, problems: list[str]) -> None:
        self._env = env
        self._places = places
        self._problems = problems

    def merge(self, values: dict[Path_, _Value], ranked: list[Entry]) -> dict[Path_, _Value]:
        values = dict(values)
        for entry in ranked:
            key = lookup(entry.path)
            if key is None:
                continue
            try:
                value = self._free(entry) if key.kind == "mapping" else self._typed(key, entry)
            except (ConfigError, ValueError) as error:
                self._problems.append(f"{entry.source}: {'.'.join(entry.path)}: {error}")
                continue
            for other in [other for other in values if _contains(other, entry.path) or _contains(entry.path, other)]:
                del values[other]
            values[entry.path] = _Value(value, entry.source)
            if entry.path == ("store", "data_dir") and _layer(values["store", "url"].source) != _layer(entry.source):
                values["store", "url"] = _Value("", DEFAULT)
        return values

    def _typed(self, key: Key, entry: Entry) -> Any:
        value, from_text = entry.value, entry.source.kind != "file"
        if isinstance(value, str):
            expanded = self._expand(value, entry)
            value, from_text = expanded.text, from_text or expanded.referred
        elif key.kind == "list" and isinstance(value, list | tuple):
            value = [self._expand(item, entry).text if isinstance(item, str) else item for item in value]
        if entry.convert is not None:
            value = _converted(key, entry, value)
        typed = coerce(key, value, from_text=from_text)
        if key.kind == "path" and typed is not None:
            return str(references.place(typed, base=entry.base, home=self._places.home))
        return _store_url(typed, entry.base, self._places.home) if key.kind == "store url" else typed

    def _free(self, entry: Entry) -> Any:
        value = entry.value
        secret = any(looks_secret(part) for part in entry.path[3:])
        expanded = self._expand(value, entry) if isinstance(value, str) else None
        if entry.convert is not None:
            value = _converted(None, entry, expanded.text if expanded else value)
            expanded = references.Expanded(value, secret=expanded.secret if expanded else False)
        if expanded is None:
            return self._json(value, entry, secret=secret)
        if secret or expanded.secret or has_password(expanded.text):
            return Secret(expanded.text, value if expanded.referred else None)
        if entry.source.kind == "environment" and entry.convert is None:
            return free_value(entry.path, expanded.text)
        return expanded.text

    def _json(self, value: Any, entry: Entry, *, secret: bool) -> Any:
        """A value inside an executor's settings: JSON only; texts in lists are expanded and masked like others."""
        match value:
            case None | bool() | int() | float() | Secret():
                return value
            case str():
                expanded = self._expand(value, entry)
                hide = secret or expanded.secret or has_password(expanded.text)
                return Secret(expanded.text, value if expanded.referred else None) if hide else expanded.text
            case list() | tuple():
                return [self._json(item, entry, secret=secret) for item in value]
            case dict():
                return {str(name): self._json(item, entry, secret=secret or looks_secret(str(name))) for name, item in value.items()}
            case date() | time():
                return value.isoformat()
            case _:
                raise ValueError(f"expected a JSON value, got a {type(value).__name__}")

    def _expand(self, text: str, entry: Entry) -> references.Expanded:
        return references.expand(text, env=self._env, base=entry.base, home=self._places.home)


def _converted(key: Key | None, entry: Entry, value: Any) -> Any:
    """What a forerunner's value means here. Raises ValueError with what was expected and what came."""
    if entry.convert is None:
        return value
    try:
        return entry.convert(value)
    except (ValueError, OverflowError) as error:
        expected = f"expected {key.expected}" if key is not None else str(error)
        raise ValueError(f"{expected}, got {quoted(entry.path, value)}") from None


def _layer(source: Source) -> tuple[str, str]:
    """Where something was said, to tell what was said together: a directory overrides a url from a place that ranks lower."""
    return source.kind, source.name if source.kind == "file" else ""


def _contains(outer: Path_, inner: Path_) -> bool:
    return len(outer) <= len(inner) and inner[: len(outer)] == outer


def _store_url(text: str, base: Path, home: Path) -> str:
    """A store's URL with an absolute path (`sqlite:///` and then the path); a bare path means a SQLite file. Raises ValueError."""
    if text in _IN_MEMORY:
        return "sqlite://:memory:"
    scheme, mark, rest = text.partition("://")
    if mark and scheme != "sqlite":
        return text
    path = rest[1:] if mark and rest.startswith("/") else "" if mark else text
    if not path:
        raise ValueError(f"expected a url such as sqlite:///inferq.db, sqlite:////data/inferq.db or sqlite://:memory:, got {text!r}")
    return f"sqlite:///{references.place(path, base=base, home=home)}"


# ── the tree ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _defaults(places: Places, present: list[str]) -> dict[Path_, _Value]:
    made = {key.path: _Value(key.default, DEFAULT) for key in keys() if key.path[0] != "backends"}
    made["store", "data_dir"] = _Value(str(places.data), DEFAULT)
    for backend in DEFAULT_BACKENDS:
        if backend.name in present:
            made["backends", backend.name, "executor"] = _Value(backend.executor, DEFAULT)
            made |= {("backends", backend.name, "settings", name): _Value(value, DEFAULT) for name, value in backend.settings.items()}
    return made


def _fitting(values: dict[Path_, _Value]) -> dict[Path_, _Value]:
    """Without a built-in backend's default settings where another executor was put under its name."""
    foreign = {
        backend.name
        for backend in DEFAULT_BACKENDS
        if (found := values.get(("backends", backend.name, "executor"))) and found.value != backend.executor
    }
    return {
        path: found
        for path, found in values.items()
        if not (path[0] == "backends" and path[1] in foreign and path[2] == "settings" and found.source == DEFAULT)
    }


def _build(values: dict[Path_, _Value], present: list[str], problems: list[str]) -> Settings:
    def section(*prefix: str) -> dict[str, Any]:
        size = len(prefix)
        return {path[size]: found.value for path, found in values.items() if path[:size] == prefix and len(path) == size + 1}

    def kept(state: str) -> StateRetention:
        return StateRetention(**section("store", "retention", state))

    retention = RetentionSettings(
        completed=kept("completed"),
        failed=kept("failed"),
        cancelled=kept("cancelled"),
        **section("store", "retention"),
    )
    store = section("store")
    store["url"] = store["url"] or default_url(store["data_dir"])
    return Settings(
        store=StoreSettings(**store, retention=retention),
        worker=WorkerSettings(**section("worker")),
        retry=RetrySettings(**section("retry")),
        health=HealthSettings(**section("health")),
        breaker=BreakerSettings(**section("breaker")),
        remote=RemoteSettings(**section("remote")),
        backends=tuple(_backend(name, section("backends", name), values, problems) for name in present),
        log=LogSettings(**section("log")),
        server=ServerSettings(**section("server")),
        webhooks=WebhookSettings(**section("webhooks")),
    )


def _backend(name: str, fields: dict[str, Any], values: dict[Path_, _Value], problems: list[str]) -> BackendSettings:
    tree: dict[str, Any] = {}
    prefix = ("backends", name, "settings")
    for path, found in values.items():
        if path[:3] == prefix:
            inside = tree
            for part in path[3:-1]:
                inside = inside.setdefault(part, {})
            inside[path[-1]] = found.value
    if not fields.get("executor"):
        known = ", ".join(sorted(_BUILT_IN))
        problems.append(f"backends.{name}: executor is missing; expected one of {known}, or a plugin's name")
    return BackendSettings(**{"name": name, "executor": "", **fields, "settings": tree})


def _sources(settings: Settings, values: dict[Path_, _Value]) -> dict[str, Source]:
    """The source of every leaf; a url that follows from the data directory has that one's source."""
    sources = {".".join(path): found.source for path, found in values.items()}
    if not values["store", "url"].value:
        sources["store.url"] = sources["store.data_dir"]
    return {name: sources.get(name, DEFAULT) for name in _flatten(settings)}


def _flatten(settings: Settings) -> dict[str, Any]:
    """Every leaf of the tree by its dotted name."""

    def walk(value: Any, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, inner in value.items():
            path = f"{prefix}{name}"
            if isinstance(inner, msgspec.Struct):
                found |= walk(msgspec.structs.asdict(inner), f"{path}.")
            elif isinstance(inner, dict):
                found |= walk(inner, f"{path}.")
            else:
                found[path] = inner
        return found

    plain = msgspec.structs.asdict(settings)
    backends = {backend.name: {k: v for k, v in msgspec.structs.asdict(backend).items() if k != "name"} for backend in settings.backends}
    return walk(plain | {"backends": backends}, "")
