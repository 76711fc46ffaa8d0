"""The store in a dict: what the contract says must be true after each verb, with nothing of how a store does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inferq.task import FINAL, TRANSITIONS, WAITING, Claim, FlowKey, NewTask, State, Verb


@dataclass
class Entry:
    """One task as the contract sees it."""

    id: str
    seq: int
    state: State
    flow: FlowKey
    at_most_once: bool
    due: int | None = None
    expires: int | None = None
    finished: int | None = None
    attempt: int = 0
    failures: int = 0
    lost: int = 0
    holder: str | None = None
    told: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def whole_log(self) -> list[str]:
        """Its chunks, and the end where it has one."""
        return [*self.log, f"end {self.state}"] if self.state in FINAL else self.log

    def go(self, verb: Verb, event: str, *, now: int) -> None:
        """Take a transition of the table, or fail the test."""
        self.state = TRANSITIONS[self.state, verb]
        self.told.append(event)
        self.due = self.due if self.state is State.SCHEDULED else None
        self.finished = now if self.state in FINAL else None
        if self.state is not State.RUNNING:
            self.holder = None


class Model:
    """Every task by id, in the order of submission."""

    def __init__(self, *, lost_limit: int) -> None:
        self.tasks: dict[str, Entry] = {}
        self.keys: dict[str, tuple[bytes | None, str]] = {}
        self.paused: set[str] = set()
        self.events = 0
        self.lost_limit = lost_limit
        self.kept: Callable[[Entry, int], bool] = lambda task, cutoff: False  # noqa: ARG005 - only batches keep tasks
        """Whether retention must leave a task although it ended before the cutoff."""

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def pending(self, flows: Iterable[FlowKey]) -> list[Entry]:
        wanted = set(flows)
        return [task for task in self.tasks.values() if task.state is State.PENDING and task.flow in wanted]

    def flows(self) -> dict[FlowKey, tuple[int, int]]:
        found: dict[FlowKey, tuple[int, int]] = {}
        for task in self.tasks.values():
            if task.state is State.PENDING:
                seq, length = found.get(task.flow, (task.seq, 0))
                found[task.flow] = (min(seq, task.seq), length + 1)
        return found

    def counts(self) -> dict[str, int]:
        return dict(Counter(str(task.state) for task in self.tasks.values()))

    def waiting(self) -> int:
        return sum(task.state in WAITING for task in self.tasks.values())

    def lost_reasons(self, claim: Claim) -> set[str]:
        """What a write with this claim may be refused with; empty when it is valid."""
        task = self.tasks.get(claim.task.id)
        if task is None:
            return {"gone"}
        if task.state is State.RUNNING and task.attempt == claim.attempt:
            return set()
        reasons = {State.CANCELLED: {"cancelled"}, State.COMPLETED: {"finished"}, State.FAILED: {"finished"}}.get(task.state, set())
        return reasons | {"superseded"} if task.attempt != claim.attempt else reasons or {"superseded"}

    # ── verbs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def conflicts(self, new: Sequence[NewTask]) -> bool:
        """Whether a key of these was or is used with another body."""
        seen = {key: digest for key, (digest, _) in self.keys.items()}
        return any(task.key is not None and seen.setdefault(task.key, task.digest) != task.digest for task in new)

    def add(self, new: Sequence[NewTask], seqs: dict[str, int]) -> list[str]:
        ids: list[str] = []
        for task in new:
            if task.key is not None and task.key in self.keys:
                ids.append(self.keys[task.key][1])
                continue
            state = TRANSITIONS[None, "submit" if task.due is None else "delay"]
            entry = Entry(task.id, seqs[task.id], state, task.flow, task.at_most_once, task.due, task.expires)
            entry.told.append("task.submitted")
            self.events += 1
            self.tasks[task.id] = entry
            if task.key is not None:
                self.keys[task.key] = (task.digest, task.id)
            ids.append(task.id)
        return ids

    def claim(self, tiers: Sequence[Sequence[FlowKey]], limit: int, *, holder: str, now: int) -> list[str]:
        got: list[str] = []
        for tier in tiers:
            open_flows = [flow for flow in tier if not {"*", flow.lane, f"*/{flow.lane.split('/', 1)[1]}"} & self.paused]
            first = sorted(self.pending(open_flows), key=lambda task: task.seq)[: limit - len(got)]
            got += [self._start(task, holder, now) for task in first]
        return got

    def _start(self, task: Entry, holder: str, now: int) -> str:
        self._go(task, "claim", "task.started", now=now)
        task.attempt += 1
        task.holder = holder
        if task.attempt > 1 and task.log:
            task.log.append("reset")
        return task.id

    def finish(self, id: str, kind: str, *, at: int | None, now: int) -> None:
        task = self.tasks[id]
        task.records.append(kind)
        match kind:
            case "completed":
                self._go(task, "complete", "task.completed", now=now)
            case "failed":
                self._go(task, "fail", "task.failed", now=now)
            case "cancelled":
                self._go(task, "cancel", "task.cancelled", now=now)
            case "retry":
                task.due = at
                task.failures += 1
                self._go(task, "back_off", "task.retrying", now=now)
            case "released":
                task.due = at
                self._go(task, "release" if at is None else "back_off", "task.released", now=now)

    def cancel(self, id: str, *, now: int) -> bool:
        task = self.tasks[id]
        if task.state in FINAL:
            return False
        if task.state is State.RUNNING:
            task.records.append("cancelled")
        self._go(task, "cancel", "task.cancelled", now=now)
        return True

    def reprioritize(self, id: str, priority: int) -> bool:
        task = self.tasks[id]
        if task.state not in WAITING:
            return False
        if task.flow.priority != priority:
            task.flow = FlowKey(task.flow.lane, priority, task.flow.size, task.flow.tenant)
            task.told.append("task.priority")
            self.events += 1
        return True

    def retry(self, id: str, *, now: int) -> bool:
        task = self.tasks[id]
        if task.state not in {State.FAILED, State.CANCELLED}:
            return False
        task.failures = task.lost = 0
        task.expires = None
        task.log.append("reset")
        self._go(task, "retry", "task.retried", now=now)
        return True

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def stage(self, limit: int, *, now: int) -> int | None:
        scheduled = sorted((task for task in self.tasks.values() if task.state is State.SCHEDULED), key=lambda task: task.due or 0)
        due = [task for task in scheduled if (task.due or 0) <= now][:limit]
        left = scheduled[len(due) :]
        upcoming = left[0].due if left else None
        for task in due:
            self._go(task, "stage", "task.staged", now=now)
        return upcoming

    def expire(self, *, now: int) -> int:
        late = [task for task in self.tasks.values() if task.state in WAITING and task.expires is not None and task.expires <= now]
        for task in late:
            self._go(task, "expire", "task.failed", now=now)
        return len(late)

    def rescue(self, alive: set[str], *, now: int) -> int:
        orphans = [task for task in self.tasks.values() if task.state is State.RUNNING and task.holder not in alive]
        for task in orphans:
            task.lost += 1
            task.records.append("lost")
            if task.at_most_once or task.lost >= self.lost_limit:
                self._go(task, "fail", "task.failed", now=now)
            else:
                self._go(task, "rescue", "task.rescued", now=now)
        return len(orphans)

    def prune(self, state: State, age: int, *, now: int) -> int:
        cutoff = now - age * 1000
        old = [
            task for task in self.tasks.values() if task.state is state and (task.finished or 0) < cutoff and not self.kept(task, cutoff)
        ]
        for task in old:
            del self.tasks[task.id]
            self.keys = {key: kept for key, kept in self.keys.items() if kept[1] != task.id}
        self.events += bool(old)
        return len(old)

    def _go(self, task: Entry, verb: Verb, event: str, *, now: int) -> None:
        task.go(verb, event, now=now)
        self.events += 1
