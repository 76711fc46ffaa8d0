"""The store contract, part seven: retention removes what is not to be kept, whole, and nothing that still waits or runs."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import pytest

from inferq.events import TasksPruned
from inferq.executor import Answer, Chunk
from inferq.query import Search
from inferq.store import Retention
from inferq.task import FINAL, Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task

FOREVER = 10**7
KEEP_ALL = dict.fromkeys(FINAL, Retention(age=None))


async def prune(here: Peer, keep: dict[State, Retention], *, chunks: float = FOREVER, events: float = FOREVER, limit: int = 500) -> int:
    return await here.store.prune(KEEP_ALL | keep, here.now, chunks=chunks, events=events, limit=limit)


class PruneContract(ContractBase):
    """Retention by age, count and bytes; stream logs and events by age."""

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_tasks_go_when_they_are_older_than_their_states_age(self, here: Peer, state: State) -> None:
        old = await here.ended(state)
        here.clock.advance(60)
        young = await here.ended(state)
        other = await here.ended(next(other for other in sorted(FINAL) if other is not state))
        here.clock.advance(50)
        assert await prune(here, {state: Retention(age=100)}) == 1
        assert await here.store.get(old) is None
        assert {young, other} == {task.id for task in (await here.store.find(Search())).tasks}
        assert await prune(here, {state: Retention(age=100)}) == 0

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_the_youngest_stay_when_there_are_more_than_the_count(self, here: Peer, state: State) -> None:
        ids = []
        for _ in range(5):
            ids.append(await here.ended(state))
            here.clock.advance(1)
        assert await prune(here, {state: Retention(age=None, count=2)}) == 3
        assert [await here.store.get(id) is not None for id in ids] == [False, False, False, True, True]
        assert (await here.store.counts()).states.get(state) == 2

    async def test_the_youngest_stay_when_there_are_more_bytes_than_allowed(self, here: Peer) -> None:
        ids = []
        for n in range(6):
            task = new_task(f"big-{n}", payload={"prompt": "x" * 10_000})
            ids.append(await here.ended(State.COMPLETED, task))
            here.clock.advance(1)
        removed = await prune(here, {State.COMPLETED: Retention(age=None, bytes=35_000)})
        assert removed == 3
        assert [await here.store.get(id) is not None for id in ids] == [False] * 3 + [True] * 3

    async def test_a_result_counts_among_the_bytes(self, here: Peer) -> None:
        for _ in range(3):
            await here.add_one()
            await here.finish(await here.claim_one(), Outcome.completed(Answer(text="y" * 10_000)))
            here.clock.advance(1)
        assert await prune(here, {State.COMPLETED: Retention(age=None, bytes=25_000)}) == 1

    async def test_what_waits_or_runs_is_never_removed(self, here: Peer) -> None:
        running = await here.add_one()
        await here.claim_one()
        pending, scheduled = await here.add(new_task(), new_task(due=here.now.wall + FOREVER * 1000 * 2))
        here.clock.advance(FOREVER)
        nothing = dict.fromkeys(FINAL, Retention(age=0, count=0, bytes=0))
        assert await prune(here, nothing, chunks=0, events=0) == 0
        states = [await here.state(id) for id in (running, pending, scheduled)]
        assert states == [State.RUNNING, State.PENDING, State.SCHEDULED]

    async def test_nothing_of_a_removed_task_is_left(self, here: Peer) -> None:
        id = await here.add_one(new_task(key="k"))
        claim = await here.claim_one()
        await here.append(claim, "a", "b")
        await here.complete(claim)
        here.clock.advance(1)
        assert await prune(here, {State.COMPLETED: Retention(age=0)}) == 1
        assert await here.store.get(id) is None
        assert await here.store.result(id) is None
        assert await here.store.attempts(id) == []
        assert await here.store.chunks(id) == []
        assert (await here.store.counts()).total == 0
        fresh = new_task(key="k", payload={"prompt": "another body"})
        assert await here.add(fresh) == [fresh.id], "its key is free again"
        assert await here.store.check() == []

    async def test_no_more_than_the_limit_are_removed_in_one_call(self, here: Peer) -> None:
        for _ in range(5):
            await here.ended(State.CANCELLED)
        here.clock.advance(1)
        keep = {State.CANCELLED: Retention(age=0)}
        assert [await prune(here, keep, limit=2) for _ in range(4)] == [2, 2, 1, 0]

    async def test_a_removal_is_told(self, here: Peer) -> None:
        await here.ended(State.FAILED)
        here.clock.advance(1)
        await prune(here, {State.FAILED: Retention(age=0)})
        event = (await here.events())[-1]
        assert isinstance(event, TasksPruned)
        assert event.count == 1

    async def test_stream_logs_of_ended_tasks_go_and_their_end_stays(self, here: Peer) -> None:
        old = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "a", "b")
        await here.complete(claim, "ab")
        here.clock.advance(60)
        young = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "c")
        await here.complete(claim, "c")
        running = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "d")
        here.clock.advance(50)
        await prune(here, {}, chunks=100)
        assert await here.log(old) == [Chunk("end", "completed")]
        assert await here.log(young) == [Chunk("text", "c"), Chunk("end", "completed")]
        assert await here.log(running) == [Chunk("text", "d")]
        result = await here.store.result(old)
        assert result is not None
        assert result.text == "ab"

    async def test_a_running_tasks_log_is_kept_however_old(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "a")
        here.clock.advance(1000)
        await prune(here, {}, chunks=1)
        await here.append(claim, "b")
        await here.complete(claim)
        assert [chunk.text for chunk in await here.log(id)] == ["a", "b", "completed"]

    async def test_old_events_go_and_positions_go_on(self, here: Peer) -> None:
        await here.add_one()
        here.clock.advance(60)
        young = await here.add_one()
        last = await here.store.last_event()
        here.clock.advance(50)
        await prune(here, {}, events=100)
        left = await here.events()
        assert [(event.position, getattr(event, "task_id", "")) for event in left] == [(last, young)]
        assert await here.store.last_event() == last
        await here.add_one()
        assert [event.position for event in await here.events()] == [last, last + 1]

    async def test_positions_go_on_when_every_event_is_gone(self, here: Peer) -> None:
        await here.add(new_task(), new_task())
        here.clock.advance(10)
        await prune(here, {}, events=1)
        assert await here.events() == []
        assert await here.store.last_event() == 2
        await here.add_one()
        assert [event.position for event in await here.events()] == [3]
