"""Why a task waits, and when it may start: the gate that holds it, its place, an estimate from measured service times. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from inferq.backend import BackendView, Notice, plain_name
from inferq.task import DRAIN, LOCAL, REMOTE, State, Task, is_paused, lane_parts

GateName = Literal[
    "paused",
    "held",
    "scheduled",
    "no_worker",
    "no_backend",
    "disabled",
    "draining",
    "backend_down",
    "breaker",
    "rate_limited",
    "tenant_limit",
    "behind",
    "slots",
    "starting",
]
"""What holds a task, the first that does in this order: `starting` says that nothing does, and a worker will take it at once."""

NEVER: Final = 2**52
"""Unix milliseconds from which on a due time means: not until somebody says so."""
LONGEST_WAIT: Final = 3600.0
UNKNOWN_WAIT: Final = 5.0
"""Seconds that a refused caller is told to wait while nothing was ever measured."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a task waits. `gate` is None for one that does not.

    `until` is when the gate opens by itself (Unix milliseconds), where that is known. `position` counts from 1 among the tasks of its
    lane, `in_flow` among those of its flow, `ahead` all tasks that compete for the same slots before it; with `more` these are least
    values, for counting stops at a bound. `estimate_seconds` and `estimated_start` (Unix milliseconds) are what measured service times
    say, None where nobody can know.
    """

    task_id: str
    state: State
    reason: str
    gate: GateName | None = None
    until: int | None = None
    position: int | None = None
    in_flow: int | None = None
    ahead: int | None = None
    more: bool = False
    estimate_seconds: float | None = None
    estimated_start: int | None = None
    backends: tuple[str, ...] = ()
    """Backends that serve it, in all processes."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a store when somebody asks. `now` is Unix milliseconds, `service` seconds an attempt takes, by lane."""

    now: int
    notices: tuple[Notice, ...] = ()
    paused: frozenset[str] = frozenset()
    running: Mapping[str, int] = {}
    """Attempts that run now, by backend."""
    service: Mapping[str, float] = {}
    in_flow: int = 0
    lanes: Mapping[str, int] = {}
    """Tasks before it, by lane."""
    more: bool = False
    tenant_full: int | None = None
    """The bound of running tasks that its tenant has reached."""


def explain(task: Task, facts: Facts) -> Waiting:
    """The first gate that holds the task, with its place and estimate."""
    if task.state is State.SCHEDULED:
        return _scheduled(task, facts)
    if task.state is not State.PENDING:
        return Waiting(task_id=task.id, state=task.state, reason=f"it does not wait: it is {task.state}")
    gate, reason, until = _gate(task, facts)
    serving = {view.name for _, view in _serving(task.flow.lane, facts.notices)}
    ahead = sum(facts.lanes.get(lane, 0) for lane in _competing(task.flow.lane, facts))
    position = facts.lanes.get(task.flow.lane, 0) + 1
    seconds = _estimate(task, facts, gate, until)
    if gate in ("behind", "slots") and seconds is not None:
        reason += f", about {span(seconds)}"
    return Waiting(
        task_id=task.id,
        state=task.state,
        gate=gate,
        reason=reason,
        until=until,
        position=position,
        in_flow=facts.in_flow + 1,
        ahead=ahead,
        more=facts.more,
        estimate_seconds=None if seconds is None else round(seconds, 3),
        estimated_start=None if seconds is None else facts.now + round(seconds * 1000),
        backends=tuple(sorted(serving)),
    )


def retry_after(facts: Facts, lane: str | None = None) -> float:
    """Seconds after which a place in the queue should be free: when the next task starts, by measured service times."""
    slots = _capacity(lane, facts)
    service = _typical(facts.service, lane)
    if service is None or not slots:
        return UNKNOWN_WAIT
    return min(LONGEST_WAIT, max(1.0, float(math.ceil(service / slots))))


# ── gates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _scheduled(task: Task, facts: Facts) -> Waiting:
    due = NEVER if task.due is None else task.due
    if due >= NEVER:
        return Waiting(task_id=task.id, state=task.state, gate="held", reason="held: its batch is paused; `inferq batch resume` lets it go")
    after = f" after {task.code}: {task.error}" if task.code else ""
    seconds = max(0.0, (due - facts.now) / 1000)
    return Waiting(
        task_id=task.id,
        state=task.state,
        gate="scheduled",
        reason=f"scheduled: not before {moment(due)}{after}",
        until=due,
        estimate_seconds=round(seconds, 3),
        estimated_start=due,
    )


def _gate(task: Task, facts: Facts) -> tuple[GateName, str, int | None]:
    lane = task.flow.lane
    if DRAIN in facts.paused:
        return "paused", "the queue is drained: no task starts until `inferq resume`", None
    if is_paused(lane, facts.paused):
        what = "all lanes" if "*" in facts.paused else f"lane {lane}" if lane in facts.paused else f"model {lane_parts(lane)[1]}"
        return "paused", f"paused: claims are stopped for {what}", None
    if not facts.notices:
        return "no_worker", "no worker is running on this store; start one with `inferq work`", None
    if lane_parts(lane)[0] == _DELIVERIES:
        if before := facts.lanes.get(lane, 0):
            return "behind", f"position {before + 1} of the messages to its receiver", None
        return "starting", "a message of a webhook: it is delivered now", None
    serving = _serving(lane, facts.notices)
    if not serving:
        return "no_backend", f"no backend here serves lane {lane}", None
    closed = [(view.name, found) for _, view in serving if (found := _closed(view, lane, facts.now)) is not None]
    if len(closed) == len(serving):
        first, (gate, reason, until) = min(closed, key=lambda one: (_ORDER[one[1][0]], one[1][2] or math.inf))
        others = sorted({name for name, _ in closed} - {first})
        return gate, reason + (f"; closed too: {', '.join(others)}" if others else ""), until
    if facts.tenant_full is not None:
        return "tenant_limit", f"tenant {task.flow.tenant!r} runs as many tasks as it may ({facts.tenant_full})", None
    return _in_line(lane, facts)


_DELIVERIES: Final = "webhook"
"""The executor of webhooks' messages, which every worker makes beside its backends."""
_ORDER: Final[dict[GateName, int]] = {"rate_limited": 0, "breaker": 1, "backend_down": 2, "draining": 3, "disabled": 4}
"""Of several closed backends, the one that is likely to open first speaks for all."""


def _closed(view: BackendView, lane: str, now: int) -> tuple[GateName, str, int | None] | None:
    because = f": {view.reason}" if view.reason else ""
    if view.state == "disabled":
        return "disabled", f"{view.name} is disabled{because}; `inferq backends enable {view.name}`", None
    if view.state == "draining":
        return "draining", f"{view.name} is draining{because}; `inferq backends enable {view.name}`", None
    if view.state == "down":
        return "backend_down", f"{view.name} is down since {moment(view.since)}{because}", None
    for gate in view.gates:
        if gate.lane == lane and gate.until > now:
            return "rate_limited", f"{view.name} asked to wait; it goes on in {span((gate.until - now) / 1000)}", gate.until
    model = lane_parts(lane)[1]
    for breaker in view.breakers:
        if breaker.model == model and breaker.open:
            wait = max(0.0, ((breaker.until or now) - now) / 1000)
            when = "is being tried now" if breaker.probing else f"is tried again in {span(wait)}"
            why = f" ({breaker.reason})" if breaker.reason else ""
            return "breaker", f"{view.name} failed {breaker.failures} times{why}; it {when}", breaker.until
    return None


def _in_line(lane: str, facts: Facts) -> tuple[GateName, str, int | None]:
    ahead = sum(facts.lanes.get(other, 0) for other in _competing(lane, facts))
    slots = _capacity(lane, facts)
    if ahead:
        least = "at least " if facts.more else ""
        return "behind", f"position {least}{ahead + 1}", None
    busy = sum(facts.running.values())
    if _free(lane, facts) > 0:
        return "starting", "a slot is free: a worker takes it now", None
    return "slots", f"next in line; {'the only slot is' if slots == 1 else f'all {slots} slots are'} busy ({busy} running)", None


# ── slots and times ─────────────────────────────────────────────────────────────────────────────────────────────────


def serves(view: BackendView, lane: str) -> bool:
    """Whether that backend may run the lane's tasks."""
    executor, model, backend = lane_parts(lane)
    if executor != view.executor and executor not in view.serves:
        return False
    if backend not in (None, view.name, REMOTE, LOCAL) or (backend == LOCAL and view.remote):
        return False
    return not view.listed or model in view.models


def _serving(lane: str, notices: Iterable[Notice]) -> list[tuple[Notice, BackendView]]:
    """Those that each worker would choose among: where some are known to have the model, none that listed others only."""
    model, wish = plain_name(lane_parts(lane)[1]), lane_parts(lane)[2]
    found: list[tuple[Notice, BackendView]] = []
    for notice in notices:
        able = [view for view in notice.backends if serves(view, lane) and (view.remote or wish != REMOTE or notice.fallback)]
        having = [view for view in able if view.listed or model in view.models]
        found += [(notice, view) for view in able if not having or view in having or not view.models]
    return found


def _usable(lane: str, facts: Facts) -> list[tuple[Notice, BackendView]]:
    """Those that serve the lane and whose slots its tasks may count on: not remote ones that only some tasks may go to."""
    found = _serving(lane, facts.notices)
    if lane_parts(lane)[2] is not None or all(notice.overflows for notice, _ in found):
        return found
    near = {notice.worker for notice, view in found if not view.remote and _closed(view, lane, facts.now) is None}
    return [(notice, view) for notice, view in found if not view.remote or notice.overflows or notice.worker not in near]


def _capacity(lane: str | None, facts: Facts) -> int:
    """Slots of all workers together that the lane's tasks (None: any task) may use."""
    total = 0
    usable = [(notice, view) for notice in facts.notices for view in notice.backends] if lane is None else _usable(lane, facts)
    for notice in facts.notices:
        views = [view for owner, view in usable if owner is notice and view.state == "up"]
        if views:
            total += min(notice.slots, sum(notice.slots if view.slots is None else view.slots for view in views))
    return total


def _free(lane: str, facts: Facts) -> int:
    """Slots that should be free for the lane now; what runs where is known by backend, not by worker."""
    room = sum(notice.slots for notice in facts.notices) - sum(facts.running.values())
    slots: dict[str, int] = {}
    for notice, view in _usable(lane, facts):
        if _closed(view, lane, facts.now) is None:
            slots[view.name] = slots.get(view.name, 0) + (notice.slots if view.slots is None else view.slots)
    return min(room, sum(max(0, count - facts.running.get(name, 0)) for name, count in slots.items()))


def _competing(lane: str, facts: Facts) -> Sequence[str]:
    """Lanes whose tasks take slots that this lane's could have, itself among them."""
    mine = {view.name for _, view in _serving(lane, facts.notices)}
    shared = any(view.slots is None for _, view in _serving(lane, facts.notices))
    found = []
    for other in facts.lanes:
        if other != lane and is_paused(other, facts.paused):
            continue
        theirs = {view.name for _, view in _serving(other, facts.notices)}
        if other == lane or (theirs if shared else mine & theirs):
            found.append(other)
    return found


def _typical(service: Mapping[str, float], lane: str | None) -> float | None:
    """Seconds of one attempt in that lane; of a middling lane where it was never measured."""
    if lane is not None and lane in service:
        return service[lane]
    known = sorted(service.values())
    return known[len(known) // 2] if known else None


def _estimate(task: Task, facts: Facts, gate: GateName, until: int | None) -> float | None:
    if gate == "starting":
        return 0.0
    if until is None and gate not in ("behind", "slots", "tenant_limit"):
        return None
    lane = task.flow.lane
    closed_for = 0.0 if until is None else max(0.0, (until - facts.now) / 1000)
    slots, own = _capacity(lane, facts), _typical(facts.service, lane)
    if own is None or not slots:
        return closed_for if until is not None else None
    work = sum(facts.lanes.get(other, 0) * (_typical(facts.service, other) or own) for other in _competing(lane, facts))
    # Those that run now are, on average, half done.
    return closed_for + (work + own / 2) / slots


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def moment(ms: int) -> str:
    """An instant for people: RFC 3339 to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A duration for people: `8 s`, `3 min`, `2 h`."""
    if seconds < 1:
        return "1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
