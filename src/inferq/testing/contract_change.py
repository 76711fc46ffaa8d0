"""The store contract, part five: changes from outside, each allowed in the states of the transition table and refused in the others."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from inferq.errors import TaskNotFound, WrongState
from inferq.events import TERMINAL, PriorityChanged, TaskCancelled
from inferq.executor import Chunk
from inferq.task import FINAL, Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


async def in_state(here: Peer, state: State) -> str:
    """The id of a task that stands in that state."""
    if state in FINAL:
        return await here.ended(state)
    task = new_task("standing", due=here.now.wall + 60_000 if state is State.SCHEDULED else None)
    await here.add(task)
    if state is State.RUNNING:
        await here.claim(1, lanes=[task.flow.lane])
    assert await here.state(task.id) is state
    return task.id


class ChangeContract(ContractBase):
    """Cancel, change the priority, retry."""

    async def test_paused_scopes_are_told_as_with_the_heads(self, here: Peer) -> None:
        await here.add(new_task())
        assert await here.store.paused() == frozenset()
        await here.store.pause("*", here.now)
        await here.store.pause("echo/m", here.now)
        assert await here.store.paused() == (await here.store.heads())[1] == {"*", "echo/m"}
        await here.store.resume("*", here.now)
        assert await here.store.paused() == {"echo/m"}

    # ── cancel ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.RUNNING])
    async def test_a_task_that_has_not_ended_is_cancelled_at_once(self, here: Peer, state: State) -> None:
        id = await in_state(here, state)
        here.clock.advance(1)
        assert await here.cancel(id, reason="not needed") is None
        task = await here.task(id)
        assert (task.state, task.error, task.finished) == (State.CANCELLED, "not needed", here.now.wall)
        assert (task.worker, task.due) == (None, None)
        assert await here.flows() == {}
        assert await here.log(id) == [Chunk("end", "cancelled")]
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskCancelled)
        assert event.reason == "not needed"
        assert await here.store.result(id) is None

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_an_ended_task_is_not_cancelled(self, here: Peer, state: State) -> None:
        id = await in_state(here, state)
        before = await here.seen()
        assert isinstance(await here.cancel(id), WrongState)
        assert await here.seen() == before

    async def test_a_cancelled_task_leaves_its_flow_in_order(self, here: Peer) -> None:
        ids = await here.add(*(new_task() for _ in range(5)))
        assert await here.store.cancel([ids[2], ids[0]], here.now) == [None, None]
        task = await here.task(ids[1])
        assert await here.flows() == {task.flow: (task.seq, 3)}
        await here.heard(lambda: [(head.seq, head.length) for head in here.told()] == [(task.seq, 3)])
        assert [claim.task.id for claim in await here.claim(5)] == [ids[1], ids[3], ids[4]]

    async def test_what_was_cancelled_is_never_claimed(self, here: Peer) -> None:
        ids = await here.add(new_task(), new_task(due=here.now.wall + 1000))
        await here.store.cancel(ids, here.now)
        here.clock.advance(5)
        assert await here.store.stage(here.now) is None
        assert await here.claim(5) == []

    async def test_cancelling_twice_in_one_call_is_once(self, here: Peer) -> None:
        id = await here.add_one()
        assert (await here.store.cancel([id, id], here.now))[0] is None
        assert len([event for event in await here.events(id) if isinstance(event, TERMINAL)]) == 1
        assert (await here.store.counts()).states.get("cancelled") == 1
        assert await here.store.check() == []

    # ── priority ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_task_moves_to_the_flow_of_its_new_priority_in_the_order_of_submission(self, here: Peer) -> None:
        moved, last = await here.add(new_task(priority=5), new_task(priority=5))
        (high,) = await here.add(new_task(priority=10))
        seq = (await here.task(moved)).seq
        assert await here.reprioritize(moved, 10) is None
        task = await here.task(moved)
        assert (task.state, task.priority, task.seq, task.flow.priority) == (State.PENDING, 10, seq, 10)
        assert await here.flows() == {task.flow: (seq, 2), new_task().flow: ((await here.task(last)).seq, 1)}
        assert [claim.task.id for claim in await here.claim(3)] == [moved, high, last]
        event = next(event for event in await here.events(moved) if isinstance(event, PriorityChanged))
        assert (event.before, event.after) == (5, 10)

    async def test_the_last_task_of_a_flow_takes_the_flow_with_it(self, here: Peer) -> None:
        id = await here.add_one()
        await here.reprioritize(id, -3)
        assert [key.priority for key in await here.flows()] == [-3]
        await here.heard(lambda: [head.key.priority for head in here.told()] == [-3])

    async def test_a_scheduled_task_keeps_its_time_and_its_new_priority(self, here: Peer) -> None:
        due = here.now.wall + 1000
        id = await here.add_one(new_task(due=due))
        assert await here.reprioritize(id, 15) is None
        assert await here.flows() == {}
        task = await here.task(id)
        assert (task.state, task.due, task.priority) == (State.SCHEDULED, due, 15)
        here.clock.advance(1)
        await here.store.stage(here.now)
        assert await here.flows() == {task.flow: (task.seq, 1)}

    async def test_the_same_priority_again_changes_no_order(self, here: Peer) -> None:
        ids = await here.add(new_task(), new_task())
        assert await here.reprioritize(ids[0], 5) is None
        assert [claim.task.id for claim in await here.claim(2)] == ids

    @pytest.mark.parametrize("state", [State.RUNNING, *sorted(FINAL)])
    async def test_a_task_that_does_not_wait_keeps_its_priority(self, here: Peer, state: State) -> None:
        id = await in_state(here, state)
        before = await here.seen()
        assert isinstance(await here.reprioritize(id, 10), WrongState)
        assert await here.seen() == before

    # ── retry ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
    async def test_a_task_without_result_waits_again_at_its_first_place(self, here: Peer, state: State) -> None:
        ended = new_task()
        id = await here.ended(state, ended)
        seq = (await here.task(id)).seq
        (younger,) = await here.add(new_task())
        assert await here.retry(id) is None
        task = await here.task(id)
        assert (task.state, task.seq, task.failures, task.lost) == (State.PENDING, seq, 0, 0)
        assert (task.code, task.error, task.finished) == (None, "", None)
        assert await here.flows() == {ended.flow: (seq, 2)}
        claims = await here.claim(2)
        assert [claim.task.id for claim in claims] == [id, younger]
        assert claims[0].attempt == 2, "attempt numbers go on: they name records and stretches of the log"
        assert "task.retried" in await here.event_types(id)

    async def test_a_retried_task_has_a_fresh_retry_budget(self, here: Peer) -> None:
        id = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.retry(0, code="timeout", error="slow"))
        await here.store.stage(here.now)
        await here.finish(await here.claim_one(), Outcome.failed("timeout", "slow"))
        await here.retry(id)
        assert (await here.task(id)).failures == 0

    async def test_a_task_cancelled_before_it_ran_can_be_retried(self, here: Peer) -> None:
        id = await here.add_one()
        await here.cancel(id)
        assert await here.retry(id) is None
        assert (await here.claim_one()).task.id == id

    @pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.RUNNING, State.COMPLETED])
    async def test_a_task_that_waits_runs_or_has_a_result_is_not_retried(self, here: Peer, state: State) -> None:
        id = await in_state(here, state)
        before = await here.seen()
        assert isinstance(await here.retry(id), WrongState)
        assert await here.seen() == before

    async def test_a_retried_task_may_go_on_at_another_priority_in_the_same_commit(self, here: Peer) -> None:
        first = await here.ended(State.FAILED, new_task())
        second = await here.add_one(new_task(priority=7))
        assert await here.store.retry([first], here.now, priority=9) == [None]
        assert (await here.task(first)).priority == 9
        assert [claim.task.id for claim in await here.claim(2)] == [first, second]
        assert await here.store.check() == []

    async def test_what_waits_for_its_time_is_due_at_once_when_asked_for(self, here: Peer) -> None:
        late = await here.add_one(new_task(due=here.now.wall + 60_000))
        again = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.retry(here.now.wall + 60_000, code="timeout", error="slow"))
        held = await in_state(here, State.PENDING)
        got = await here.store.retry([late, again, held], here.now, priority=9, due=True)
        assert got[:2] == [None, None]
        assert isinstance(got[2], WrongState)
        assert (await here.task(again)).failures == 1, "its budget goes on: it has not failed"
        assert {claim.task.id for claim in await here.claim(2)} == {late, again}
        assert await here.store.check() == []

    # ── many ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_each_of_many_gets_its_own_answer(self, here: Peer) -> None:
        done, waiting = await in_state(here, State.COMPLETED), await in_state(here, State.PENDING)
        for got in (
            await here.store.reprioritize([done, waiting], 9, here.now),
            await here.store.cancel([done, waiting], here.now),
            await here.store.retry([done, waiting], here.now),
        ):
            assert isinstance(got[0], WrongState)
            assert got[1] is None

    @pytest.mark.parametrize("verb", ["cancel", "reprioritize", "retry"])
    async def test_an_unknown_task_is_an_error_and_nothing_is_changed(self, here: Peer, verb: str) -> None:
        id = await in_state(here, State.FAILED if verb == "retry" else State.PENDING)
        before = await here.seen()
        ids = [id, "00000000-0000-7000-8000-000000000000"]
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "cancel": lambda: here.store.cancel(ids, here.now),
            "reprioritize": lambda: here.store.reprioritize(ids, 10, here.now),
            "retry": lambda: here.store.retry(ids, here.now),
        }
        with pytest.raises(TaskNotFound, match="00000000-0000-7000-8000-000000000000"):
            await changes[verb]()
        assert await here.seen() == before

    # ── delete ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("state", sorted(FINAL))
    async def test_a_deleted_task_is_gone_with_all_it_left(self, here: Peer, state: State) -> None:
        task = new_task("gone", key="k", tags=["t"])
        id = await here.ended(state, task)
        other = await here.ended(state)
        assert await here.store.delete([id, id], here.now) == [None, None]
        assert await here.store.get(id) is None
        assert await here.store.result(id) is None
        assert await here.store.attempts(id) == []
        assert await here.log(id) == []
        assert (await here.store.counts()).states[state] == 1
        assert await here.event_types(id) == ["task.submitted", "task.started", f"task.{state}", "task.deleted"]
        assert await here.add(new_task("gone", key="k", tags=["other"])) != [id], "its key is free again"
        assert await here.store.check() == []
        assert (await here.task(other)).state is state

    @pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.RUNNING])
    async def test_a_task_that_has_not_ended_is_not_deleted(self, here: Peer, state: State) -> None:
        id = await in_state(here, state)
        before = await here.seen()
        (wrong,) = await here.store.delete([id], here.now)
        assert isinstance(wrong, WrongState)
        assert await here.seen() == before

    async def test_an_unknown_id_among_others_deletes_nothing(self, here: Peer) -> None:
        id = await here.ended(State.FAILED)
        with pytest.raises(TaskNotFound, match="'nothing'"):
            await here.store.delete([id, "nothing"], here.now)
        assert await here.state(id) is State.FAILED
