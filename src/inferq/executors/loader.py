"""Finds executors by entry point, built-in ones like everybody else's, and checks that they keep the contract."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from inferq.errors import PluginError, UnknownExecutor
from inferq.executor import Executor

GROUP = "inferq.executors"
"""The entry-point group: the entry's name is the executor's name, its value `package.module:Class`."""

_OURS = "inferq"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an executor comes from; nothing of it was imported. `rivals` are other packages that claim the name."""

    name: str
    target: str
    package: str
    version: str
    rivals: tuple[str, ...] = ()

    @property
    def builtin(self) -> bool:
        return self.package == _OURS


def found() -> dict[str, Entry]:
    """Every executor installed here by name, in order of names, without importing any of them."""
    entries: dict[str, list[Entry]] = {}
    for point in metadata.entry_points(group=GROUP):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
        entries.setdefault(point.name, []).append(Entry(point.name, point.value, package, version))
    return {name: _pick(entries[name]) for name in sorted(entries)}


def _pick(claims: list[Entry]) -> Entry:
    # A built-in name cannot be taken over by installing something: that would redirect existing work without a word.
    first, *others = sorted(claims, key=lambda entry: (not entry.builtin, entry.package))
    return Entry(first.name, first.target, first.package, first.version, tuple(entry.package for entry in others))


@cache
def load(name: str) -> type[Executor]:
    """The executor's class. Raises `UnknownExecutor` (with near names) or `PluginError` (with the cause)."""
    entry = found().get(name)
    if entry is None:
        raise unknown(name, list(found()))
    if entry.rivals and not entry.builtin:
        packages = ", ".join((entry.package, *entry.rivals))
        raise PluginError(f"executor {name!r} is declared by more than one package ({packages}): uninstall all but one")
    return checked(_imported(entry), where=f"executor {name!r} ({entry.target} of {entry.package} {entry.version})")


def unknown(name: str, known: list[str]) -> UnknownExecutor:
    """The error for a name that nobody has, with the names that come near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known) or 'none'}"
    return UnknownExecutor(f"no executor is called {name!r}; {hint}", field="executor")


def _imported(entry: Entry) -> object:
    module, _, path = entry.target.partition(":")
    try:
        made: object = metadata.EntryPoint(entry.name, entry.target, GROUP).load()
    except Exception as error:  # a foreign module may raise anything while it is imported
        cause = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"executor {entry.name!r} could not be imported: {cause}; {entry.package} {entry.version} "
            f"declares it as {path or 'a whole module'} in {module}"
        ) from error
    return made


def checked(candidate: object, *, where: str) -> type[Executor]:
    """The candidate itself when it keeps the executor contract. Raises `PluginError` that says what is missing."""
    if not (isinstance(candidate, type) and issubclass(candidate, Executor)):
        raise PluginError(f"{where} must be a class derived from inferq.executor.Executor, got {candidate!r}")
    actions: object = candidate.actions  # a plugin's own words: they may be anything
    if not isinstance(actions, tuple | list) or not actions or not all(isinstance(a, str) and a for a in actions):
        raise PluginError(f"{where} must list its actions as a tuple of names such as ('shout',), got {actions!r}")
    if candidate.run is Executor.run:
        raise PluginError(f"{where} must define run(call)")
    if strangers := sorted(set(candidate.required) - set(actions)):
        raise PluginError(f"{where} requires fields for {', '.join(strangers)}, which its actions do not list")
    return candidate
