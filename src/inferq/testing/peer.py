"""One process among a store's users, as tests see it: the store, its clock, and shorthands that keep a test to what it says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from inferq.clock import Now
from inferq.errors import ClaimLost, WrongState
from inferq.events import Event
from inferq.executor import Answer, Chunk
from inferq.policy import Heads, Want
from inferq.query import Search
from inferq.store import Change, LoggedChunk, Store
from inferq.task import Claim, FlowKey, Head, NewTask, Outcome, Size, State, Submission, Task, lane_of, new_id
from inferq.testing.clock import FakeClock
from inferq.testing.waiting import wait_until


def new_task(
    model: str = "m",
    *,
    executor: str = "echo",
    action: str = "chat",
    payload: dict[str, Any] | None = None,
    priority: int = 5,
    size: Size = "low",
    tenant: str = "",
    key: str | None = None,
    tags: Sequence[str] = (),
    due: int | None = None,
    expires: int | None = None,
    at_most_once: bool = False,
    estimate: int = 7,
    batch: str | None = None,
) -> NewTask:
    """A small valid task; `due` and `expires` are Unix milliseconds. Equal arguments give equal digests."""
    spec = msgspec.json.encode(
        Submission(
            executor=executor,
            action=action,
            model=model,
            payload={"messages": [{"role": "user", "content": "hello"}]} if payload is None else payload,
            priority=priority,
            tenant=tenant,
            key=key,
            tags=list(tags),
            scheduled_at=due,
            deadline=expires,
            at_most_once=at_most_once,
            batch=batch,
        )
    )
    return NewTask(
        id=new_id(),
        flow=FlowKey(lane_of(executor, model), priority, size, tenant),
        action=action,
        spec=spec,
        estimate=estimate,
        key=key,
        digest=hashlib.sha256(spec).digest() if key is not None else None,
        due=due,
        expires=expires,
        at_most_once=at_most_once,
        batch=batch,
        labels=tuple(("tag", tag) for tag in tags),
    )


class Peer:
    """A store and a clock of its own, so that a test can let one process fall behind in time while another goes on."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.changes: list[Change] = []
        store.listen(self.changes.append)

    @property
    def now(self) -> Now:
        return self.clock.read()

    # ── verbs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def add(self, *tasks: NewTask, limit: int | None = None) -> list[str]:
        return await self.store.add(tasks, self.now, limit=limit)

    async def add_one(self, task: NewTask | None = None) -> str:
        (id,) = await self.add(task or new_task())
        return id

    async def claim(self, limit: int = 1, *, lanes: Sequence[str] | None = None) -> list[Claim]:
        """Claim by strict priority, as a worker does whose backends serve these lanes (all of them when None)."""
        heads = [head for head in await self.heads() if lanes is None or head.key.lane in lanes]
        priorities = sorted({head.key.priority for head in heads}, reverse=True)
        tiers = [[head.flow for head in heads if head.key.priority == priority] for priority in priorities]
        return await self.take(*tiers, limit=limit)

    async def claim_one(self) -> Claim:
        (claim,) = await self.claim()
        return claim

    async def take(self, *tiers: Sequence[int], limit: int) -> list[Claim]:
        """Claim from these flows, tier after tier."""
        (claims,) = await self.store.claim([Want("slots", tuple(tuple(tier) for tier in tiers), limit)], self.now)
        return claims

    async def finish(self, claim: Claim, outcome: Outcome) -> ClaimLost | None:
        (lost,) = await self.store.finish([(claim, outcome)], self.now)
        return lost

    async def complete(self, claim: Claim, text: str = "done") -> ClaimLost | None:
        return await self.finish(claim, Outcome.completed(Answer(text=text)))

    async def append(self, claim: Claim, *texts: str) -> ClaimLost | None:
        (lost,) = await self.store.append([(claim, [Chunk("text", text) for text in texts])], self.now)
        return lost

    async def cancel(self, id: str, *, reason: str = "") -> WrongState | None:
        (wrong,) = await self.store.cancel([id], self.now, reason=reason)
        return wrong

    async def retry(self, id: str) -> WrongState | None:
        (wrong,) = await self.store.retry([id], self.now)
        return wrong

    async def reprioritize(self, id: str, priority: int) -> WrongState | None:
        (wrong,) = await self.store.reprioritize([id], priority, self.now)
        return wrong

    async def ended(self, state: State, task: NewTask | None = None) -> str:
        """The id of a fresh task that ended in `state`; nothing else may be waiting in its lane."""
        task = task or new_task(f"ended-{new_id()}")
        await self.add(task)
        (claim,) = await self.claim(lanes=[task.flow.lane])
        outcomes = {
            State.COMPLETED: Outcome.completed(Answer(text="done")),
            State.FAILED: Outcome.failed("server_error", "broke"),
            State.CANCELLED: Outcome.cancelled("not needed"),
        }
        lost = await self.finish(claim, outcomes[state])
        if lost is not None:
            raise lost
        return task.id

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def heads(self) -> list[Head]:
        return (await self.store.heads())[0]

    async def flows(self) -> dict[FlowKey, tuple[int, int]]:
        """Every non-empty flow: its head's sequence number and its length."""
        heads = await self.heads()
        found = {head.key: (head.seq, head.length) for head in heads}
        if len(found) != len(heads):
            raise AssertionError(f"expected one head a flow, got {heads!r}")
        return found

    async def task(self, id: str) -> Task:
        task = await self.store.get(id)
        if task is None:
            raise AssertionError(f"expected task {id} to be stored, got None")
        return task

    async def state(self, id: str) -> State:
        return (await self.task(id)).state

    async def log(self, id: str) -> list[Chunk]:
        return [logged.chunk for logged in await self.logged(id)]

    async def logged(self, id: str) -> list[LoggedChunk]:
        return await self.store.chunks(id)

    async def events(self, id: str | None = None) -> list[Event]:
        """All events, or those of one task."""
        events = await self.store.events(limit=1_000_000)
        return [event for event in events if id is None or getattr(event, "task_id", None) == id]

    async def event_types(self, id: str) -> list[str]:
        return [event.type for event in await self.events(id)]

    async def seen(self) -> tuple[object, ...]:
        """All that a refused command must leave as it was: heads, counters, events and tasks."""
        page = await self.store.find(_EVERYTHING, limit=1000)
        return (await self.flows(), await self.store.counts(), await self.store.last_event(), page.tasks)

    async def heard(self, condition: Callable[[], bool]) -> None:
        """Wait for what a listener must be told."""
        await wait_until(condition, what=f"the listener to be told; it heard {self.changes!r}")

    def told(self) -> Heads:
        """The heads as the changes told them, from the beginning."""
        heads = Heads()
        for change in self.changes:
            heads.update(change.heads)
        return heads


_EVERYTHING = Search()


def by_state(tasks: Iterable[Task]) -> dict[str, int]:
    """How many of these tasks are in each state that occurs."""
    return dict(Counter(str(task.state) for task in tasks))
