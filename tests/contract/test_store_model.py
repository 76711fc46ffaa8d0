"""A random walk drives the store and a dict side by side: after each step both must say the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferq.archive import decoded
from inferq.batch import BatchLine, NewBatch
from inferq.errors import DuplicateKey, QueueFull, WrongState
from inferq.events import BatchFinished
from inferq.executor import Answer, Chunk
from inferq.query import Search
from inferq.store import Retention, Store
from inferq.stores import open_store
from inferq.task import FINAL, WAITING, Claim, FlowKey, NewTask, Outcome, State, new_id
from inferq.testing import FakeClock, Peer, new_task
from inferq.testing.store_model import Entry, Model

T = TypeVar("T")
LOST_LIMIT = 2
LEASE = 10.0**6
"""Seconds: longer than any walk's fake time, so that only the closing of a process makes orphans."""

index = st.integers(0, 10**6)
small = st.integers(1, 4)
priorities = st.sampled_from([-(2**63), 1, 5, 5, 10, 2**63 - 1])
models = st.sampled_from(["a", "b"])
ahead = st.none() | st.integers(0, 20)


async def archived(store: Store) -> bytes:
    return b"".join([piece async for piece in store.export()])


class Walk(RuleBasedStateMachine):
    """One process on a store in memory; `SharedWalk` adds a second one and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.model = Model(lost_limit=LOST_LIMIT)
        self.peers: list[Peer] = []
        self.claims: list[Claim] = []
        self.flow_ids: dict[FlowKey, int] = {}
        self.steps = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def open(self) -> Store:
        return await open_store("sqlite://:memory:", clock=self.clock, lease=LEASE, lost_limit=LOST_LIMIT)

    async def join(self) -> Peer:
        return Peer(await self.open(), self.clock)

    @initialize()
    def begin(self) -> None:
        self.peers.append(self.run(self.join()))

    def teardown(self) -> None:
        try:
            if self.peers:
                self.run(self._compare_histories())
                assert self.run(self.peers[0].store.check()) == []
                self.run(self._carry_over())
        finally:
            for peer in self.peers:
                self.run(peer.store.close())
            self.runner.close()

    def tick(self) -> int:
        """Each step has its own millisecond, so that nothing depends on how equals are ordered."""
        self.steps += 1
        return self.clock.advance(0.001).wall

    def one(self, which: int) -> Peer:
        return self.peers[which % len(self.peers)]

    def ids(self, picks: list[int]) -> list[str]:
        known = list(self.model.tasks)
        return list(dict.fromkeys(known[pick % len(known)] for pick in picks))

    # ── a task's way ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        peer=index,
        count=small,
        model=models,
        priority=priorities,
        tenant=st.sampled_from(["", "t"]),
        due=ahead,
        expires=ahead,
        once=st.booleans(),
    )
    def add(self, peer: int, count: int, model: str, priority: int, tenant: str, due: int | None, expires: int | None, once: bool) -> None:
        now = self.tick()
        new = [
            new_task(
                model,
                priority=priority,
                tenant=tenant,
                due=None if due is None else now + (due + 1) * 1000 + n,
                expires=None if expires is None else now + (expires + 1) * 1000,
                at_most_once=once,
            )
            for n in range(count)
        ]
        assert self.run(self._add(self.one(peer), new)) == [task.id for task in new]

    @rule(peer=index, picks=st.lists(st.tuples(st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=3))
    def add_with_keys(self, peer: int, picks: list[tuple[str, bool]]) -> None:
        self.tick()
        new = [new_task("a", key=key, payload={"prompt": "other" if other else "same"}) for key, other in picks]
        if self.model.conflicts(new):
            try:
                self.run(self.one(peer).add(*new))
            except DuplicateKey:
                return
            raise AssertionError(f"expected DuplicateKey for {picks}")
        self.run(self._add(self.one(peer), new))

    @rule(peer=index, count=small, limit=st.integers(0, 12))
    def add_within_a_limit(self, peer: int, count: int, limit: int) -> None:
        self.tick()
        new = [new_task("b") for _ in range(count)]
        if self.model.waiting() + count <= limit:
            self.run(self._add(self.one(peer), new, limit=limit))
            return
        try:
            self.run(self.one(peer).add(*new, limit=limit))
        except QueueFull:
            return
        raise AssertionError(f"expected QueueFull: {self.model.waiting()} wait, {count} more, limit {limit}")

    async def _add(self, peer: Peer, new: list[NewTask], *, limit: int | None = None) -> list[str]:
        ids = await peer.add(*new, limit=limit)
        stored = [await peer.store.get(task.id) for task in new]
        seqs = {task.id: task.seq for task in stored if task is not None}
        newest = max((task.seq for task in self.model.tasks.values()), default=0)
        assert list(seqs.values()) == sorted(seqs.values())
        assert all(seq > newest for seq in seqs.values())
        assert ids == self.model.add(new, seqs)
        return ids

    @rule(peer=index, limit=st.integers(1, 6), by_priority=st.booleans(), picks=st.lists(index, min_size=1, max_size=4))
    def claim(self, peer: int, limit: int, by_priority: bool, picks: list[int]) -> None:
        """From the heads as a worker would, or from any flows ever seen, in any order."""
        now = self.tick()
        known = list(self.flow_ids)
        if by_priority or not known:
            keys = [head.key for head in self.run(self.one(peer).heads())]
            order = sorted({key.priority for key in keys}, reverse=True)
            tiers = [[key for key in keys if key.priority == priority] for priority in order]
        else:
            tiers = [[known[pick % len(known)]] for pick in picks]
        claims = self.run(self.one(peer).take(*([self.flow_ids[key] for key in tier] for tier in tiers), limit=limit))
        holder = self.one(peer).store.instance
        assert [claim.task.id for claim in claims] == self.model.claim(tiers, limit, holder=holder, now=now)
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(peer=index, pick=index, texts=st.lists(st.sampled_from(["a", "\x00", "\U0001f600"]), min_size=1, max_size=3))
    def append(self, peer: int, pick: int, texts: list[str]) -> None:
        self.tick()
        claim = self.claims[pick % len(self.claims)]
        reasons = self.model.lost_reasons(claim)
        lost = self.run(self.one(peer).append(claim, *texts)) if self._mine(peer, claim) else None
        if not self._mine(peer, claim):
            return
        assert (lost is None) is (not reasons)
        if lost is None:
            self.model.tasks[claim.task.id].log += [f"text {text}" for text in texts]
        else:
            assert lost.reason in reasons

    def _mine(self, peer: int, claim: Claim) -> bool:
        """Claims are used by the process that made them."""
        return claim.worker == self.one(peer).store.instance

    @precondition(lambda self: self.claims)
    @rule(
        peer=index,
        pick=index,
        kind=st.sampled_from(["completed", "completed", "failed", "cancelled", "retry", "released", "released"]),
        delay=ahead,
    )
    def finish(self, peer: int, pick: int, kind: str, delay: int | None) -> None:
        now = self.tick()
        claim = self.claims[pick % len(self.claims)]
        if not self._mine(peer, claim):
            return
        at = None if delay is None else now + (delay + 1) * 1000
        match kind:
            case "completed":
                outcome = Outcome.completed(Answer(text="x"))
            case "failed":
                outcome = Outcome.failed("internal", "x")
            case "cancelled":
                outcome = Outcome.cancelled("x")
            case "retry":
                at = at or now + 1
                outcome = Outcome.retry(at, code="timeout", error="x")
            case _:
                outcome = Outcome.released(at=at)
        reasons = self.model.lost_reasons(claim)
        lost = self.run(self.one(peer).finish(claim, outcome))
        assert (lost is None) is (not reasons)
        if lost is None:
            self.model.finish(claim.task.id, kind, at=at, now=now)
        else:
            assert lost.reason in reasons

    # ── changes from outside ────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.model.tasks)
    @rule(peer=index, picks=st.lists(index, min_size=1, max_size=3))
    def cancel(self, peer: int, picks: list[int]) -> None:
        now, ids = self.tick(), self.ids(picks)
        got = self.run(self.one(peer).store.cancel(ids, self.clock.read()))
        assert [wrong is None for wrong in got] == [self.model.cancel(id, now=now) for id in ids]

    @precondition(lambda self: self.model.tasks)
    @rule(peer=index, picks=st.lists(index, min_size=1, max_size=3), priority=priorities)
    def reprioritize(self, peer: int, picks: list[int], priority: int) -> None:
        self.tick()
        ids = self.ids(picks)
        got = self.run(self.one(peer).store.reprioritize(ids, priority, self.clock.read()))
        assert [wrong is None for wrong in got] == [self.model.reprioritize(id, priority) for id in ids]

    @precondition(lambda self: self.model.tasks)
    @rule(peer=index, picks=st.lists(index, min_size=1, max_size=3))
    def retry(self, peer: int, picks: list[int]) -> None:
        now, ids = self.tick(), self.ids(picks)
        got = self.run(self.one(peer).store.retry(ids, self.clock.read()))
        assert [wrong is None for wrong in got] == [self.model.retry(id, now=now) for id in ids]

    @rule(peer=index, scope=st.sampled_from(["*", "echo/a"]), on=st.booleans())
    def pause_or_resume(self, peer: int, scope: str, on: bool) -> None:
        self.tick()
        store = self.one(peer).store
        self.run(store.pause(scope, self.clock.read()) if on else store.resume(scope, self.clock.read()))
        self.model.events += (scope not in self.model.paused) is on
        self.model.paused = self.model.paused | {scope} if on else self.model.paused - {scope}

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(peer=index, limit=st.integers(1, 5))
    def stage(self, peer: int, limit: int) -> None:
        now = self.tick()
        assert self.run(self.one(peer).store.stage(self.clock.read(), limit=limit)) == self.model.stage(limit, now=now)

    @rule(peer=index)
    def expire(self, peer: int) -> None:
        now = self.tick()
        assert self.run(self.one(peer).store.expire(self.clock.read())) == self.model.expire(now=now)

    @rule(peer=index)
    def rescue(self, peer: int) -> None:
        now = self.tick()
        alive = {peer.store.instance for peer in self.peers}
        assert self.run(self.one(peer).store.rescue(self.clock.read())) == self.model.rescue(alive, now=now)

    @rule(peer=index, state=st.sampled_from(sorted(FINAL)), age=st.sampled_from([0, 5, 30]))
    def prune(self, peer: int, state: State, age: int) -> None:
        now = self.tick()
        keep = dict.fromkeys(FINAL, Retention(age=None)) | {state: Retention(age=age)}
        removed = self.run(self.one(peer).store.prune(keep, self.clock.read(), chunks=10**6, events=10**6))
        assert removed == self.model.prune(state, age, now=now)

    # ── comparisons ─────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def both_say_the_same(self) -> None:
        for peer in self.peers:
            self.run(self._compare(peer))

    async def _compare(self, peer: Peer) -> None:
        heads, paused = await peer.store.heads()
        self.flow_ids.update((head.key, head.flow) for head in heads)
        assert {head.key: (head.seq, head.length) for head in heads} == self.model.flows()
        assert paused == self.model.paused
        counts = await peer.store.counts()
        assert {state: count for state, count in counts.states.items() if count} == self.model.counts()
        assert sum(counts.pending_by_lane.values()) == sum(length for _, length in self.model.flows().values())
        page = await peer.store.find(Search(), limit=10_000)
        stored = [(t.id, t.seq, t.state, t.flow, t.due, t.attempt, t.failures, t.lost, t.worker, t.finished) for t in reversed(page.tasks)]
        assert stored == [
            (t.id, t.seq, t.state, t.flow, t.due, t.attempt, t.failures, t.lost, t.holder, t.finished) for t in self.model.tasks.values()
        ]
        assert await peer.store.last_event() == self.model.events

    async def _carry_over(self) -> None:
        """Taken into an empty store, the archive of this one gives the same archive; taken once more it adds nothing."""
        first = await archived(self.peers[0].store)
        other = await open_store("sqlite://:memory:", clock=self.clock, lease=LEASE, lost_limit=LOST_LIMIT)
        try:
            items = [decoded(line) for line in first.splitlines()[1:-1]]
            for start in range(0, len(items), 7):
                bite: Any = items[start : start + 7]
                assert await other.restore(bite, self.clock.read()) == [True] * len(bite)
            assert await archived(other) == first
            assert await other.restore(items, self.clock.read()) == [False] * len(items)  # type: ignore[arg-type]  # no first, no last
            assert await archived(other) == first
            assert await other.check() == []
            # What ran waits here, or has failed: nothing else moved.
            assert (await other.counts()).total == len(self.model.tasks)
        finally:
            await other.close()

    async def _compare_histories(self) -> None:
        peer = self.peers[0]
        events = await peer.events()
        assert [event.position for event in events] == list(range(1, self.model.events + 1))
        for task in self.model.tasks.values():
            told = [event.type for event in events if getattr(event, "task_id", None) == task.id]
            assert told == task.told
            assert [record.outcome for record in await peer.store.attempts(task.id)] == task.records
            assert [_named(chunk) for chunk in await peer.log(task.id)] == task.whole_log
            assert (await peer.store.result(task.id) is not None) is (task.state is State.COMPLETED)


def _named(chunk: Chunk) -> str:
    return chunk.kind if chunk.kind == "reset" else f"{chunk.kind} {chunk.text}"


class SharedWalk(Walk):
    """Two processes on one file; either may end and come back under a new name."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="inferq-walk-"))

    async def open(self) -> Store:
        url = f"sqlite:///{self.folder / 'queue.db'}"
        return await open_store(url, durability="normal", clock=self.clock, lease=LEASE, lost_limit=LOST_LIMIT)

    @initialize()
    def begin(self) -> None:
        self.peers += [self.run(self.join()), self.run(self.join())]

    @rule(peer=index)
    def restart(self, peer: int) -> None:
        self.run(self.one(peer).store.close())
        self.peers[peer % len(self.peers)] = self.run(self.join())

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


@dataclass
class Sheet:
    """A batch as the contract sees it."""

    tasks: dict[str, Entry] = field(default_factory=dict)
    lines: int = 0
    sealed: bool = False
    cancelled: bool = False
    finished: int | None = None
    ends: int = 0

    def count(self, *states: State) -> int:
        return sum(task.state in states for task in self.tasks.values())


class BatchWalk(SharedWalk):
    """The same with batches: their counts, their one end and what retention leaves them follow from their tasks, whoever changes those."""

    def __init__(self) -> None:
        super().__init__()
        self.sheets: dict[str, Sheet] = {}
        self.model.kept = self._kept

    def _kept(self, task: Entry, cutoff: int) -> bool:
        """Whether retention must leave it: its batch has not ended, or not long enough ago."""
        sheets = [sheet for sheet in self.sheets.values() if task.id in sheet.tasks]
        return any(sheet.finished is None or sheet.finished >= cutoff for sheet in sheets)

    @precondition(lambda self: len(self.sheets) < 3)
    @rule(peer=index)
    def make_batch(self, peer: int) -> None:
        self.tick()
        batch = self.run(self.one(peer).store.create_batch(NewBatch(new_id()), self.clock.read()))
        self.sheets[batch.id] = Sheet()
        self.model.events += 1

    @precondition(lambda self: self.sheets)
    @rule(peer=index, pick=index, count=small, priority=priorities, again=st.booleans(), expires=ahead, once=st.booleans())
    def add_lines(self, peer: int, pick: int, count: int, priority: int, again: bool, expires: int | None, once: bool) -> None:
        now = self.tick()
        id, sheet = self._sheet(pick)
        late = None if expires is None else now + (expires + 1) * 1000
        new = [new_task("a", priority=priority, batch=id, expires=late, at_most_once=once) for _ in range(count)]
        lines = [BatchLine(sheet.lines + n, None, task) for n, task in enumerate(new, 1)]
        if again and sheet.lines:
            lines.insert(0, BatchLine(1, None, new_task("b", batch=id)))
        try:
            added = self.run(self.one(peer).store.add_lines(id, lines, self.clock.read()))
        except WrongState:
            assert sheet.sealed
            return
        assert (added, sheet.sealed) == (count, False)
        stored = [self.run(self.one(peer).store.get(task.id)) for task in new]
        self.model.add(new, {task.id: task.seq for task in stored if task is not None})
        sheet.tasks |= {task.id: self.model.tasks[task.id] for task in new}
        sheet.lines += count

    @precondition(lambda self: self.sheets)
    @rule(peer=index, pick=index, sealed=st.sampled_from([True, True, True, False]))
    def seal(self, peer: int, pick: int, sealed: bool) -> None:
        self.tick()
        id, sheet = self._sheet(pick)
        if sheet.cancelled and not sealed:
            return
        self.run(self.one(peer).store.seal_batch(id, self.clock.read(), sealed=sealed))
        if sealed is not sheet.sealed:
            sheet.sealed, sheet.finished = sealed, None
            self.model.events += sealed

    @precondition(lambda self: self.sheets)
    @rule(peer=index, other=index, pick=index)
    def cancel_batch(self, peer: int, other: int, pick: int) -> None:
        now = self.tick()
        id, sheet = self._sheet(pick)
        before = sheet.cancelled or sheet.finished is not None
        self.run(self.one(peer).store.cancel_batch(id, self.clock.read()))
        self.model.events += not before
        if not before:
            sheet.cancelled = sheet.sealed = True
            self._end(now)
            while self.run(self.one(other).store.settle_batches(self.clock.read(), limit=2)):
                pass
            for task in tuple(sheet.tasks):
                if task in self.model.tasks:
                    self.model.cancel(task, now=now)

    @precondition(lambda self: self.model.tasks)
    @rule(peer=index, picks=st.lists(index, min_size=1, max_size=3))
    def retry(self, peer: int, picks: list[int]) -> None:
        again = {id for id in self.ids(picks) if self.model.tasks[id].state in (State.FAILED, State.CANCELLED)}
        super().retry(peer, picks)
        for sheet in self.sheets.values():
            if again & set(sheet.tasks):
                # What is made again is wanted again.
                sheet.cancelled = False

    @precondition(lambda self: self.sheets)
    @rule(peer=index, pick=index)
    def end_what_is_left(self, peer: int, pick: int) -> None:
        """One by one: a walk of chance would seldom come to a batch's end."""
        sheet = self._sheet(pick)[1]
        for task in [task for task in sheet.tasks.values() if task.state not in FINAL]:
            now = self.tick()
            assert self.run(self.one(peer).store.cancel([task.id], self.clock.read())) == [None]
            assert self.model.cancel(task.id, now=now)
            self._end(now)

    @precondition(lambda self: self.sheets)
    @rule(peer=index, pick=index)
    def retry_what_ended_badly(self, peer: int, pick: int) -> None:
        now = self.tick()
        sheet = self._sheet(pick)[1]
        ids = [id for id, task in sheet.tasks.items() if task.state in (State.FAILED, State.CANCELLED) and id in self.model.tasks]
        if ids:
            assert self.run(self.one(peer).store.retry(ids, self.clock.read())) == [None] * len(ids)
            assert all(self.model.retry(id, now=now) for id in ids)
            sheet.cancelled = False

    def _sheet(self, pick: int) -> tuple[str, Sheet]:
        id = list(self.sheets)[pick % len(self.sheets)]
        return id, self.sheets[id]

    def _end(self, now: int) -> None:
        """What the last step meant for the ends of batches."""
        for sheet in self.sheets.values():
            if sheet.count(*WAITING, State.RUNNING) or not sheet.sealed:
                sheet.finished = None
            elif sheet.finished is None:
                sheet.finished = now
                sheet.ends += 1
                self.model.events += 1

    @invariant()
    def both_say_the_same(self) -> None:
        self._end(self.clock.read().wall)
        super().both_say_the_same()
        for peer in self.peers:
            for id, sheet in self.sheets.items():
                self.run(self._compare_batch(peer, id, sheet))

    async def _compare_batch(self, peer: Peer, id: str, sheet: Sheet) -> None:
        batch = await peer.store.batch(id)
        assert batch is not None
        gone = sum(task_id not in self.model.tasks for task_id in sheet.tasks)
        assert (batch.total, batch.lines, batch.pruned) == (len(sheet.tasks), sheet.lines, gone)
        assert (batch.waiting, batch.running) == (sheet.count(*WAITING), sheet.count(State.RUNNING))
        assert (batch.completed, batch.failed, batch.cancelled) == tuple(
            sheet.count(state) for state in (State.COMPLETED, State.FAILED, State.CANCELLED)
        )
        assert (batch.sealed is not None, batch.finished) == (sheet.sealed, sheet.finished)

    def teardown(self) -> None:
        try:
            if self.peers:
                ends = [event.batch_id for event in self.run(self.peers[0].events()) if isinstance(event, BatchFinished)]
                assert {id: ends.count(id) for id in self.sheets} == {id: sheet.ends for id, sheet in self.sheets.items()}
        finally:
            super().teardown()


# Shrinking a walk of real commits can take longer than a test may: the whole walk that failed is printed instead.
walks = settings(
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
Walk.TestCase.settings = settings(walks, max_examples=int(os.environ.get("INFERQ_WALKS", "30")))
SharedWalk.TestCase.settings = settings(walks, max_examples=int(os.environ.get("INFERQ_WALKS", "20")))


BatchWalk.TestCase.settings = settings(walks, max_examples=int(os.environ.get("INFERQ_WALKS", "20")))


class TestBatches(BatchWalk.TestCase):  # type: ignore[name-defined,misc] # made by hypothesis at run time
    """A walk of two, with batches."""


class TestMemory(Walk.TestCase):  # type: ignore[name-defined,misc] # made by hypothesis at run time
    """A walk of one process."""


class TestFile(SharedWalk.TestCase):  # type: ignore[name-defined,misc] # made by hypothesis at run time
    """A walk of two."""
