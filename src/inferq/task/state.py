"""Where a task stands, and the one table of legal transitions, which code, documentation and property tests read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal


class State(StrEnum):
    """Where a task stands."""

    SCHEDULED = "scheduled"
    """Not before a time: delayed by its submitter, or waiting for a retry."""
    PENDING = "pending"
    """Waiting in its flow for a slot."""
    RUNNING = "running"
    """One valid claim is out."""
    COMPLETED = "completed"
    """Ended with a result."""
    FAILED = "failed"
    """Ended without one; carries a failure code."""
    CANCELLED = "cancelled"
    """Ended by request."""

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
WAITING: Final = frozenset({State.SCHEDULED, State.PENDING})

Verb = Literal[
    "submit", "delay", "stage", "hold", "claim", "complete", "back_off", "fail", "expire", "release", "rescue", "cancel", "retry"
]  # fmt: skip

TRANSITIONS: Final[Mapping[tuple[State | None, Verb], State]] = {
    (None, "submit"): State.PENDING,
    (None, "delay"): State.SCHEDULED,
    (State.SCHEDULED, "stage"): State.PENDING,
    (State.PENDING, "hold"): State.SCHEDULED,
    (State.PENDING, "claim"): State.RUNNING,
    (State.RUNNING, "complete"): State.COMPLETED,
    (State.RUNNING, "back_off"): State.SCHEDULED,
    (State.RUNNING, "fail"): State.FAILED,
    (State.RUNNING, "release"): State.PENDING,
    (State.RUNNING, "rescue"): State.PENDING,
    (State.PENDING, "expire"): State.FAILED,
    (State.SCHEDULED, "expire"): State.FAILED,
    (State.SCHEDULED, "cancel"): State.CANCELLED,
    (State.PENDING, "cancel"): State.CANCELLED,
    (State.RUNNING, "cancel"): State.CANCELLED,
    (State.FAILED, "retry"): State.PENDING,
    (State.CANCELLED, "retry"): State.PENDING,
}
"""Every legal transition; what is not here cannot happen. A rescue of an `at_most_once` or poisonous task is a `fail`; a task of
a paused batch is held (scheduled, due never) until its batch goes on."""
