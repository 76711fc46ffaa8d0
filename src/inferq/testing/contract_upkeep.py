"""The store contract, part six: due tasks are staged, late ones expire, and tasks whose process vanished come back."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

from inferq.events import TaskFailed, TaskRescued
from inferq.executor import Chunk
from inferq.task import Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


class UpkeepContract(ContractBase):
    """Stage, expire, rescue, renew."""

    # ── stage ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_task_waits_for_its_time_and_not_longer(self, here: Peer) -> None:
        due = here.now.wall + 5000
        id = await here.add_one(new_task(due=due))
        here.clock.advance(4.999)
        assert await here.store.stage(here.now) == due
        assert await here.state(id) is State.SCHEDULED
        here.clock.advance(0.001)
        assert await here.store.stage(here.now) is None
        task = await here.task(id)
        assert (task.state, task.due) == (State.PENDING, None)
        assert await here.flows() == {task.flow: (task.seq, 1)}
        assert await here.event_types(id) == ["task.submitted", "task.staged"]
        await here.heard(lambda: [head.seq for head in here.told()] == [task.seq])

    async def test_the_oldest_due_are_staged_first_and_no_more_than_the_limit(self, here: Peer) -> None:
        start = here.now.wall
        ids = await here.add(*(new_task(due=start + ms) for ms in (3000, 1000, 4000, 2000)))
        here.clock.advance(3.5)
        await here.store.stage(here.now, limit=2)
        states = [await here.state(id) for id in ids]
        assert states == [State.SCHEDULED, State.PENDING, State.SCHEDULED, State.PENDING]
        assert await here.store.stage(here.now, limit=2) == start + 4000
        assert await here.state(ids[0]) is State.PENDING

    async def test_a_staged_task_keeps_the_sequence_number_of_its_submission(self, here: Peer) -> None:
        later = await here.add_one(new_task(due=here.now.wall + 1000))
        at_once = await here.add_one()
        here.clock.advance(1)
        await here.store.stage(here.now)
        assert [claim.task.id for claim in await here.claim(2)] == [later, at_once]

    async def test_a_retry_is_due_when_the_wall_clock_was_set_back_past_its_delay(self, here: Peer) -> None:
        retried, scheduled = await here.add(new_task(), new_task(due=here.now.wall + 60_000))
        await here.finish(await here.claim_one(), Outcome.retry(here.now.wall + 10_000, code="timeout", error="slow"))
        here.clock.step(-3600)
        await here.store.stage(here.now)
        assert await here.state(retried) is State.SCHEDULED, "only a stepped clock makes it due early"
        await here.store.stage(here.now, stepped=True)
        assert await here.state(retried) is State.PENDING
        assert await here.state(scheduled) is State.SCHEDULED, "a person's time means the wall clock"

    async def test_a_retry_within_its_own_delay_is_not_due_after_a_step(self, here: Peer) -> None:
        id = await here.add_one()
        at = here.now.wall + 10_000
        await here.finish(await here.claim_one(), Outcome.released(at=at, code="rate_limited"))
        here.clock.advance(4)
        assert await here.store.stage(here.now, stepped=True) == at
        assert await here.state(id) is State.SCHEDULED

    # ── expire ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_waiting_task_past_its_deadline_fails_as_expired(self, here: Peer) -> None:
        expires = here.now.wall + 5000
        pending, scheduled = new_task(expires=expires), new_task(expires=expires, due=here.now.wall + 60_000)
        await here.add(pending, scheduled, new_task())
        here.clock.advance(4.9)
        assert await here.store.expire(here.now) == 0
        here.clock.advance(0.2)
        assert await here.store.expire(here.now) == 2
        for new in (pending, scheduled):
            task = await here.task(new.id)
            assert (task.state, task.code, task.finished) == (State.FAILED, "expired", here.now.wall)
            assert await here.log(new.id) == [Chunk("end", "failed")]
            event = (await here.events(new.id))[-1]
            assert isinstance(event, TaskFailed)
            assert event.code == "expired"
        assert [length for _, length in (await here.flows()).values()] == [1]
        assert await here.store.expire(here.now) == 0

    async def test_a_running_task_does_not_expire_but_its_return_to_waiting_does(self, here: Peer) -> None:
        id = await here.add_one(new_task(expires=here.now.wall + 5000))
        claim = await here.claim_one()
        here.clock.advance(10)
        assert await here.store.expire(here.now) == 0
        assert await here.finish(claim, Outcome.released()) is None
        assert await here.store.expire(here.now) == 1
        assert (await here.task(id)).code == "expired"

    async def test_no_more_than_the_limit_expire_in_one_call(self, here: Peer) -> None:
        await here.add(*(new_task(expires=here.now.wall + 1000) for _ in range(5)))
        here.clock.advance(2)
        assert [await here.store.expire(here.now, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert (await here.store.counts()).states.get("failed") == 5

    # ── rescue ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_what_a_silent_process_held_is_taken_back_when_its_lease_ran_out(self, here: Peer, there: Peer) -> None:
        id, younger = await here.add(new_task(), new_task())
        claim = await here.claim_one()
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        assert await there.store.rescue(there.now) == 1
        task = await there.task(id)
        assert (task.state, task.lost, task.failures, task.worker) == (State.PENDING, 1, 0, None)
        assert [claim.task.id for claim in await there.claim(2)] == [id, younger], "it keeps its place"
        (record,) = await there.store.attempts(id)
        assert (record.number, record.outcome, record.worker) == (1, "lost", claim.worker)
        event = next(event for event in await there.events(id) if isinstance(event, TaskRescued))
        assert (event.attempt, event.worker) == (1, claim.worker)
        for lost in (await here.append(claim, "late"), await here.complete(claim)):
            assert lost is not None
            assert lost.reason == "superseded"

    async def test_who_lost_its_claims_is_told(self, here: Peer, there: Peer) -> None:
        await here.add_one()
        await here.claim_one()
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        await there.store.rescue(there.now)
        await here.heard(lambda: any(change.lost for change in here.changes))
        assert not any(change.lost for change in there.changes)

    async def test_a_process_that_renews_keeps_its_claims(self, here: Peer, there: Peer) -> None:
        await here.add_one()
        claim = await here.claim_one()
        for _ in range(4):
            there.clock.advance(self.lease * 0.7)
            here.clock.advance(self.lease * 0.7)
            await here.store.renew(here.now)
            assert await there.store.rescue(there.now) == 0
        assert await here.complete(claim) is None

    async def test_a_late_end_counts_when_nobody_took_the_task(self, here: Peer) -> None:
        await here.add_one()
        claim = await here.claim_one()
        here.clock.advance(self.lease * 3)
        assert await here.complete(claim) is None

    async def test_leases_know_nothing_of_the_wall_clock(self, here: Peer, there: Peer) -> None:
        await here.add_one()
        claim = await here.claim_one()
        for hours in (1, -2, 1):
            there.clock.step(hours * 3600)
            assert await there.store.rescue(there.now) == 0
        assert await here.complete(claim) is None

    async def test_a_task_that_must_not_run_twice_fails_as_lost(self, here: Peer, there: Peer) -> None:
        id = await here.add_one(new_task(at_most_once=True))
        claim = await here.claim_one()
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        assert await there.store.rescue(there.now) == 1
        task = await there.task(id)
        assert (task.state, task.code, task.lost) == (State.FAILED, "lost", 1)
        assert await there.claim(1) == []
        assert await there.log(id) == [Chunk("end", "failed")]
        late = await here.complete(claim)
        assert late is not None
        assert late.reason == "finished"

    async def test_a_task_that_vanishes_too_often_fails_as_lost(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        for time in range(1, self.lost_limit + 1):
            await here.claim_one()
            there.clock.advance(self.lease * 2)
            await there.store.renew(there.now)
            assert await there.store.rescue(there.now) == 1
            task = await there.task(id)
            assert (task.lost, task.failures) == (time, 0)
            assert task.state is (State.FAILED if time == self.lost_limit else State.PENDING)
            here.clock.advance(there.now.mono / 1000 - here.now.mono / 1000)
            await here.heard(lambda: any(change.lost for change in here.changes))
            here.changes.clear()
            await here.store.renew(here.now)
        assert (await there.task(id)).code == "lost"

    async def test_no_more_than_the_limit_are_rescued_in_one_call(self, here: Peer, there: Peer) -> None:
        ids = await here.add(*(new_task() for _ in range(5)))
        await here.claim(5)
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        assert [await there.store.rescue(there.now, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert [claim.task.id for claim in await there.claim(5)] == ids

    async def test_what_a_closed_process_held_is_taken_back_at_once(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        await here.claim_one()
        await here.store.close()
        assert await there.store.rescue(there.now) == 1
        assert (await there.claim_one()).task.id == id

    async def test_a_claim_made_before_its_process_knew_of_the_loss_is_not_stranded(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        await here.claim_one()
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        await there.store.rescue(there.now)
        unaware = await here.claim(1)
        await here.store.renew(here.now)
        await here.heard(lambda: any(change.lost for change in here.changes))
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        await there.store.rescue(there.now)
        await there.claim(1)
        task = await there.task(id)
        assert task.worker != here.store.instance, "what a process claims after it was taken for dead can be taken back, too"
        assert all([await here.complete(claim) is not None for claim in unaware])

    async def test_a_process_that_lost_its_claims_can_go_on_working(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        await here.claim_one()
        there.clock.advance(self.lease + 1)
        await there.store.renew(there.now)
        await there.store.rescue(there.now)
        here.clock.advance(self.lease + 1)
        await here.heard(lambda: any(change.lost for change in here.changes))
        await here.store.renew(here.now)
        claim = await here.claim_one()
        assert (claim.task.id, claim.attempt) == (id, 2)
        assert await there.store.rescue(there.now) == 0
        assert await here.complete(claim) is None
