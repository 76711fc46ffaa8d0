"""What is said of backends between processes and to people: how one stands, the switch that people set, a worker's notice. Values."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

BackendState = Literal["up", "down", "draining", "disabled"]

SWITCH: Final = "backend"
"""Kind of the records that hold switches, by the backend's name."""
NOTICE: Final = "worker"
"""Kind of the records that hold workers' notices, by the instance's name."""


def plain_name(model: str) -> str:
    """A model's name as lists are compared: Ollama's `:latest` is what no tag means."""
    return model.removesuffix(":latest")


class Switch(msgspec.Struct, frozen=True):
    """What people ordered of a backend, obeyed by every process until it is enabled again. `at` is Unix milliseconds."""

    state: Literal["draining", "disabled"]
    reason: str = ""
    at: int = 0


class BreakerView(msgspec.Struct, frozen=True):
    """A breaker that is not closed and calm: `failures` in a row; while it is open, `until` (Unix milliseconds) the next probe."""

    model: str
    failures: int
    open: bool = False
    probing: bool = False
    until: int | None = None
    reason: str = ""


class GateView(msgspec.Struct, frozen=True):
    """A lane that the backend asked to leave alone until a time (Unix milliseconds)."""

    lane: str
    until: int


class BackendView(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as one worker sees it. `since` is Unix milliseconds; `slots` None is as many as the worker runs."""

    name: str
    executor: str
    address: str | None = None
    remote: bool = False
    state: BackendState = "up"
    reason: str = ""
    since: int = 0
    enabled: bool = True
    """Whether its settings let it run tasks; a switch is another thing."""
    slots: int | None = None
    busy: int = 0
    priority: int = 0
    weight: float = 1.0
    serves: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    listed: bool = False
    """Whether `models` are all it serves (from the settings) or what it last said itself."""
    breakers: tuple[BreakerView, ...] = ()
    gates: tuple[GateView, ...] = ()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself when that changes: its slots and its backends. `busy` in it is of that moment."""

    worker: str
    slots: int
    backends: tuple[BackendView, ...] = ()
    overflows: bool = True
    """Whether remote backends take whatever local ones have no free slot for."""
    fallback: bool = True
    """Whether local backends take what asked for a remote one while none is open."""


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A backend over all processes: as the settings and the workers' notices tell it, with the store's counters.

    `state` is the best that a worker reports (one that can reach it can use it); `slots` are those of all workers together, None
    where one has no bound of its own; `completed` counts since the store was made.
    """

    name: str
    executor: str
    address: str | None = None
    remote: bool = False
    state: BackendState = "up"
    reason: str = ""
    since: int = 0
    slots: int | None = None
    busy: int = 0
    completed: int = 0
    priority: int = 0
    weight: float = 1.0
    serves: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    breakers: tuple[BreakerView, ...] = ()
    gates: tuple[GateView, ...] = ()
    workers: tuple[str, ...] = ()
    """Instances that have it; empty: it is configured here, but nobody works with it now."""
    unaware: tuple[str, ...] = ()
    """Those of them that have not yet heard of the last switch; for some milliseconds."""
