"""Replays the event log over a model of the queue: legal lives, one valid attempt at a time, first in first out in each flow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from inferq.events import (
    Event,
    PriorityChanged,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReleased,
    TaskRescued,
    TaskRetried,
    TaskRetrying,
    TaskStaged,
    TaskStarted,
    TaskSubmitted,
)
from inferq.task import FlowKey, State, Task

WAITING = ("scheduled", "pending")
FINAL = ("completed", "failed", "cancelled")


@dataclass
class Life:
    """A task as its events tell it."""

    state: str = ""
    priority: int = 5
    attempt: int = 0
    workers: dict[int, str] = field(default_factory=dict)
    """By attempt, the instance that claimed it."""
    ends: int = 0
    retried: int = 0
    failures: int = 0
    lost: int = 0


@dataclass
class Replay:
    """`lives` and `complaints` are the outcome."""

    tasks: Mapping[str, Task]
    lives: dict[str, Life] = field(default_factory=lambda: defaultdict(Life))
    complaints: list[str] = field(default_factory=list)
    _waiting: dict[FlowKey, set[int]] = field(default_factory=lambda: defaultdict(set))

    def run(self, events: Sequence[Event]) -> Replay:
        for place, event in enumerate(events, 1):
            if event.position != place:
                self.complaints.append(f"the log has a gap: event {place} has position {event.position}")
                return self
            id = getattr(event, "task_id", None)
            if id is not None:
                if id not in self.tasks:
                    self.complaints.append(f"event {place}: {event.type} of task {id}, which the store does not hold")
                    continue
                self._happen(event, id, self.lives[id])
        return self

    def _happen(self, event: Event, id: str, life: Life) -> None:
        before = life.state
        allowed, after = self._transition(event, life)
        if before not in allowed:
            self.complaints.append(f"event {event.position}: {event.type} of task {id} while it was {before or 'unknown'}")
        attempt = getattr(event, "attempt", None)
        if isinstance(event, TaskStarted):
            self._start(event, id, life)
        elif attempt is not None and attempt != life.attempt:
            self.complaints.append(f"event {event.position}: {event.type} of task {id} tells of attempt {attempt}, valid is {life.attempt}")
        if before == "pending":
            self._waiting[self._flow(id, life)].discard(self.tasks[id].seq)
        if isinstance(event, TaskSubmitted):
            life.priority = event.priority
        elif isinstance(event, PriorityChanged):
            life.priority = event.after
        self._count(event, life)
        life.state = after
        if after == "pending":
            self._waiting[self._flow(id, life)].add(self.tasks[id].seq)

    def _transition(self, event: Event, life: Life) -> tuple[tuple[str, ...], str]:
        match event:
            case TaskSubmitted():
                return ("",), event.state
            case TaskStaged():
                return ("scheduled",), "pending"
            case TaskStarted():
                return ("pending",), "running"
            case TaskRetrying():
                return ("running",), "scheduled"
            case TaskReleased():
                return ("running",), "pending" if event.due is None else "scheduled"
            case TaskRescued():
                return ("running",), "pending"
            case TaskCompleted():
                return ("running",), "completed"
            case TaskFailed():
                return (*WAITING, "running"), "failed"
            case TaskCancelled():
                return (*WAITING, "running"), "cancelled"
            case TaskRetried():
                return ("failed", "cancelled"), "pending"
            case _:
                return WAITING, life.state

    def _start(self, event: TaskStarted, id: str, life: Life) -> None:
        if event.attempt != life.attempt + 1:
            self.complaints.append(f"event {event.position}: attempt {event.attempt} of task {id} follows attempt {life.attempt}")
        first = min(self._waiting[self._flow(id, life)], default=None)
        seq = self.tasks[id].seq
        if first is not None and first < seq:
            self.complaints.append(f"event {event.position}: task {id} (seq {seq}) was claimed before seq {first} of its flow")
        life.attempt = event.attempt
        life.workers[event.attempt] = event.worker

    @staticmethod
    def _count(event: Event, life: Life) -> None:
        match event:
            case TaskCompleted() | TaskFailed() | TaskCancelled():
                life.ends += 1
                # Lost once too often, or an at-most-once task lost at all: its end is its rescue. What a backend lost is not counted.
                life.lost += isinstance(event, TaskFailed) and event.code == "lost" and "vanished" in event.error
            case TaskRetried():
                life.retried += 1
                life.failures = life.lost = 0
            case TaskRetrying():
                life.failures += 1
            case TaskRescued():
                life.lost += 1

    def _flow(self, id: str, life: Life) -> FlowKey:
        return msgspec.structs.replace(self.tasks[id].flow, priority=life.priority)


def disagreements(tasks: Mapping[str, Task], lives: Mapping[str, Life]) -> list[str]:
    """Where the tasks are not what their events made of them."""
    found = []
    for id, task in tasks.items():
        life = lives.get(id, Life())
        told = (life.state, life.attempt, life.priority, life.failures, life.lost)
        holds = (str(task.state), task.attempt, task.priority, task.failures, task.lost)
        if told != holds:
            found.append(f"task {id}: the log makes it (state, attempt, priority, failures, lost) {told}, the store holds {holds}")
        if task.state in (State.COMPLETED, State.FAILED, State.CANCELLED) and life.ends != life.retried + 1:
            found.append(f"task {id}: {life.ends} ends for {life.retried} requests to make it again")
    return found
