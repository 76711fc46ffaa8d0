"""What makes waiting tasks alike for the scheduler: priority, size class, lane, tenant; and the head that stands for a flow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec

PRIORITIES: Final[Mapping[str, int]] = {"low": 1, "normal": 5, "high": 10, "critical": 15}
_INT64 = 2**63


def priority_number(value: int | str) -> int:
    """A priority from its name or number; any integer of 64 bits is valid, higher goes first. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected an integer or one of {', '.join(PRIORITIES)}, got {value!r}")
    if isinstance(value, str):
        text = value.strip().lower()
        if text in PRIORITIES:
            return PRIORITIES[text]
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"expected an integer or one of {', '.join(PRIORITIES)}, got {value!r}") from None
    if not -_INT64 <= value < _INT64:
        raise ValueError(f"expected an integer of 64 bits, got {value}")
    return value


def priority_name(value: int) -> str:
    """The name of a named priority, else the number as text."""
    return next((name for name, number in PRIORITIES.items() if number == value), str(value))


Size = Literal["low", "medium", "long"]
SIZES: Final[tuple[Size, ...]] = ("low", "medium", "long")


class FlowKey(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What makes waiting tasks alike for the scheduler; inside a flow the order is strictly first in, first out."""

    lane: str
    priority: int
    size: Size
    tenant: str


class Head(msgspec.Struct, frozen=True, gc=False):
    """The first task of a flow: all that the scheduler looks at. `length` 0 says that the flow is empty now."""

    flow: int
    key: FlowKey
    seq: int
    length: int


REMOTE: Final = ":remote"
LOCAL: Final = ":local"
"""In the place of a backend's name in a lane: any remote backend, any local one."""

DRAIN: Final = "drain"
"""The scope, beside `*`, that is paused while the whole queue is drained. No lane is called so: lanes have a slash."""


def lane_of(executor: str, model: str, backend: str | None = None, *, remote: bool | None = None) -> str:
    """What a task needs to run: executor and model, or one named backend and model; without a name, `remote` says of which sort."""
    if backend is None and remote is not None:
        backend = REMOTE if remote else LOCAL
    return f"{executor}@{backend}/{model}" if backend else f"{executor}/{model}"


def lane_parts(lane: str) -> tuple[str, str, str | None]:
    """`(executor, model, backend)` of a lane, where backend may be REMOTE or LOCAL; the inverse of `lane_of`."""
    target, _, model = lane.partition("/")
    executor, _, backend = target.partition("@")
    return executor, model, backend or None


def is_paused(lane: str, paused: Collection[str]) -> bool:
    """Whether one of these scopes keeps the lane's tasks from starting: `*`, the lane itself, or `*/MODEL` for its model in any lane."""
    return bool(paused) and ("*" in paused or lane in paused or f"*/{lane.partition('/')[2]}" in paused)
