"""The store contract, part one: `add` keeps all tasks or none, once a key, in order and within bounds."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio

import msgspec
import pytest

from inferq.errors import DuplicateKey, QueueFull
from inferq.events import TaskSubmitted
from inferq.task import State, Submission
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


class AddContract(ContractBase):
    """Submitting."""

    async def test_an_added_task_is_found_as_it_was_given(self, here: Peer) -> None:
        new = new_task("model", priority=10, size="medium", tenant="acme", tags=["a", "b"], estimate=20_000)
        assert await here.add(new) == [new.id]
        task = await here.task(new.id)
        assert task.state is State.PENDING
        assert (task.flow, task.estimate) == (new.flow, 20_000)
        assert task.spec == msgspec.json.decode(new.spec, type=Submission)
        assert (task.attempt, task.failures, task.lost, task.worker, task.due) == (0, 0, 0, None, None)
        assert (task.created, task.started, task.finished) == (here.now.wall, None, None)

    async def test_any_text_in_a_payload_is_kept(self, here: Peer) -> None:
        payload = {"prompt": "NUL \x00, quote ', comma, emoji \U0001f600, right-to-left \u202e, newline \r\n", "n": 2**53, "x": None}
        new = new_task(action="generate", payload=payload)
        await here.add(new)
        assert (await here.task(new.id)).spec.payload == payload

    async def test_ids_come_in_the_order_of_the_tasks_and_sequence_numbers_rise(self, here: Peer) -> None:
        first, second = [new_task() for _ in range(5)], [new_task("other") for _ in range(5)]
        ids = await here.add(*first) + await here.add(*second)
        assert ids == [task.id for task in (*first, *second)]
        numbers = [(await here.task(id)).seq for id in ids]
        assert numbers == sorted(set(numbers))

    async def test_adding_nothing_is_allowed(self, here: Peer) -> None:
        before = await here.seen()
        assert await here.add() == []
        assert await here.seen() == before

    async def test_each_flow_shows_its_first_task_and_its_length(self, here: Peer) -> None:
        tasks = [new_task(), new_task(priority=10), new_task(), new_task(tenant="t"), new_task(size="long"), new_task("x")]
        await here.add(*tasks)
        seqs = [(await here.task(task.id)).seq for task in tasks]
        assert await here.flows() == {
            tasks[0].flow: (seqs[0], 2),
            tasks[1].flow: (seqs[1], 1),
            tasks[3].flow: (seqs[3], 1),
            tasks[4].flow: (seqs[4], 1),
            tasks[5].flow: (seqs[5], 1),
        }

    async def test_a_task_with_a_time_is_scheduled_and_in_no_flow(self, here: Peer) -> None:
        due = here.now.wall + 60_000
        id = await here.add_one(new_task(due=due))
        task = await here.task(id)
        assert (task.state, task.due) == (State.SCHEDULED, due)
        assert await here.flows() == {}
        assert await here.claim() == []

    async def test_every_added_task_has_its_event(self, here: Peer) -> None:
        now, later = new_task(priority=7), new_task(due=here.now.wall + 1000)
        await here.add(now, later)
        first, second = await here.events()
        assert isinstance(first, TaskSubmitted)
        assert isinstance(second, TaskSubmitted)
        assert (first.task_id, first.state, first.lane, first.priority) == (now.id, "pending", now.flow.lane, 7)
        assert (second.task_id, second.state, second.due) == (later.id, "scheduled", later.due)
        assert first.at == second.at == here.now.wall

    # ── idempotency keys ────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_known_key_with_the_same_digest_gives_the_first_task(self, here: Peer) -> None:
        first, again = new_task(key="k"), new_task(key="k")
        await here.add(first)
        before = await here.seen()
        assert await here.add(again) == [first.id]
        assert await here.seen() == before
        assert await here.store.get(again.id) is None

    async def test_a_key_is_known_after_its_task_ended(self, here: Peer) -> None:
        id = await here.ended(State.COMPLETED, new_task(key="k"))
        assert await here.add(new_task(key="k")) == [id]
        assert await here.state(id) is State.COMPLETED

    async def test_a_key_twice_in_one_call_is_one_task(self, here: Peer) -> None:
        first, between, again = new_task(key="k"), new_task(), new_task(key="k")
        assert await here.add(first, between, again) == [first.id, between.id, first.id]
        assert (await here.store.counts()).total == 2

    async def test_a_known_key_with_another_digest_is_refused(self, here: Peer) -> None:
        id = await here.add_one(new_task(key="k"))
        before = await here.seen()
        with pytest.raises(DuplicateKey):
            await here.add(new_task(key="k", payload={"prompt": "other"}))
        assert await here.seen() == before
        assert await here.state(id) is State.PENDING

    async def test_one_refused_key_refuses_the_whole_batch(self, here: Peer) -> None:
        await here.add(new_task(key="k"))
        before = await here.seen()
        with pytest.raises(DuplicateKey):
            await here.add(new_task(), new_task(key="new"), new_task(key="k", payload={"prompt": "other"}), new_task("other"))
        assert await here.seen() == before
        fresh = new_task(key="new")
        assert await here.add(fresh) == [fresh.id], "a refused batch must not keep its keys either"

    async def test_two_bodies_for_one_new_key_in_one_call_are_refused(self, here: Peer) -> None:
        before = await here.seen()
        with pytest.raises(DuplicateKey):
            await here.add(new_task(key="k"), new_task(key="k", payload={"prompt": "other"}))
        assert await here.seen() == before

    async def test_a_refused_command_does_not_harm_those_beside_it(self, here: Peer) -> None:
        await here.add(new_task(key="k"))
        good = [new_task() for _ in range(6)]
        bad = [new_task(key="k", payload={"prompt": str(n)}) for n in range(3)]
        got = await asyncio.gather(*(here.add(task) for task in (*good[:3], *bad, *good[3:])), return_exceptions=True)
        assert [got[0], got[1], got[2], got[6], got[7], got[8]] == [[task.id] for task in good]
        assert all(isinstance(error, DuplicateKey) for error in got[3:6])
        assert (await here.store.counts()).states.get("pending") == 7

    async def test_a_question_that_cannot_be_asked_does_not_harm_an_add_beside_it(self, here: Peer) -> None:
        task = new_task()
        got = await asyncio.gather(here.add(task), here.store.get("\ud800"), return_exceptions=True)
        assert got[0] == [task.id]
        assert (await here.store.counts()).total == 1

    async def test_the_same_key_added_at_once_many_times_is_one_task(self, here: Peer) -> None:
        ids = await asyncio.gather(*(here.add(new_task(key="k")) for _ in range(20)))
        assert len({id for (id,) in ids}) == 1
        assert (await here.store.counts()).total == 1

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_no_more_than_the_limit_may_wait(self, here: Peer) -> None:
        await here.add(new_task(), new_task(due=here.now.wall + 1000), limit=3)
        before = await here.seen()
        with pytest.raises(QueueFull):
            await here.add(new_task(), new_task(), limit=3)
        assert await here.seen() == before
        await here.add(new_task(), limit=3)
        assert (await here.store.counts()).total == 3

    async def test_running_and_ended_tasks_do_not_fill_the_queue(self, here: Peer) -> None:
        await here.ended(State.COMPLETED)
        await here.add(new_task())
        await here.claim_one()
        await here.add(new_task(), limit=1)
        with pytest.raises(QueueFull):
            await here.add(new_task(), limit=1)

    async def test_a_known_key_is_answered_by_a_full_queue(self, here: Peer) -> None:
        id = await here.add_one(new_task(key="k"))
        assert await here.add(new_task(key="k"), limit=1) == [id]

    async def test_the_limit_holds_against_adds_at_the_same_time(self, here: Peer) -> None:
        got = await asyncio.gather(*(here.add(new_task(), limit=5) for _ in range(12)), return_exceptions=True)
        assert sum(isinstance(error, QueueFull) for error in got) == 7
        assert (await here.store.counts()).total == 5

    # ── what listeners hear ─────────────────────────────────────────────────────────────────────────────────────────

    async def test_listeners_hear_of_new_heads_and_events(self, here: Peer) -> None:
        tasks = [new_task(), new_task(), new_task(priority=10)]
        await here.add(*tasks)
        await here.heard(lambda: len(here.told()) == 2)
        told = {head.key: (head.seq, head.length) for head in here.told()}
        assert told == await here.flows()
        assert all(change.own for change in here.changes)
        assert [event.position for change in here.changes for event in change.events] == [1, 2, 3]

    async def test_a_listener_that_stopped_hears_nothing_more(self, here: Peer) -> None:
        heard: list[object] = []
        stop = here.store.listen(heard.append)
        await here.add(new_task())
        await here.heard(lambda: bool(heard))
        stop()
        count = len(heard)
        here.changes.clear()
        await here.add(new_task())
        await here.heard(lambda: bool(here.changes))
        assert len(heard) == count
