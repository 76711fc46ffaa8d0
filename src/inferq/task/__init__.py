"""The words of the queue: a task with its states, the flow it waits in, what a client says of it, how attempts end. No clock, no I/O."""

from __future__ import annotations

from inferq.task.flow import (
    DRAIN,
    LOCAL,
    PRIORITIES,
    REMOTE,
    SIZES,
    FlowKey,
    Head,
    Size,
    is_paused,
    lane_of,
    lane_parts,
    priority_name,
    priority_number,
)
from inferq.task.id import new_id
from inferq.task.outcome import AttemptRecord, Outcome, OutcomeKind, ShownAttempt, ShownResult, TaskResult, Timing, Tried, executed_on
from inferq.task.state import FINAL, TRANSITIONS, WAITING, State, Verb
from inferq.task.submission import LAST_MOMENT, NewTask, Submission, labels_of
from inferq.task.task import Claim, Task

__all__ = [
    "DRAIN",
    "FINAL",
    "LAST_MOMENT",
    "LOCAL",
    "PRIORITIES",
    "REMOTE",
    "SIZES",
    "TRANSITIONS",
    "WAITING",
    "AttemptRecord",
    "Claim",
    "FlowKey",
    "Head",
    "NewTask",
    "Outcome",
    "OutcomeKind",
    "ShownAttempt",
    "ShownResult",
    "Size",
    "State",
    "Submission",
    "Task",
    "TaskResult",
    "Timing",
    "Tried",
    "Verb",
    "executed_on",
    "is_paused",
    "labels_of",
    "lane_of",
    "lane_parts",
    "new_id",
    "priority_name",
    "priority_number",
]
