"""The store contract, part nine: processes that share a store stay correct and hear of one another; what was committed is there again."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from inferq.errors import DuplicateKey, QueueFull
from inferq.executor import Answer, Chunk
from inferq.query import Search
from inferq.task import Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, by_state, new_task


def told_of(id: str, peer: Peer) -> bool:
    """Whether the peer heard that this log, or any, may have grown."""
    return any(grown.task_id in (id, "") for change in peer.changes for grown in change.streams)


def lengths_are(peer: Peer, lengths: list[int]) -> bool:
    """Whether these are the lengths of the flows that the peer was told of."""
    return [head.length for head in peer.told()] == lengths


class SharedContract(ContractBase):
    """Two processes on one truth, and one after the other."""

    async def test_two_processes_never_claim_the_same_task(self, here: Peer, there: Peer) -> None:
        added = await here.add(*(new_task(tenant=f"t{n % 3}") for n in range(120)))
        claimed: list[str] = []

        async def work(peer: Peer) -> None:
            while claims := await peer.claim(4):
                claimed.extend(claim.task.id for claim in claims)
                assert await asyncio.gather(*(peer.complete(claim) for claim in claims)) == [None] * len(claims)

        await asyncio.gather(work(here), work(there), work(here), work(there))
        assert sorted(claimed) == sorted(added)
        states = by_state((await here.store.find(Search(), limit=1000)).tasks)
        assert states == {"completed": 120}
        assert {state: n for state, n in (await there.store.counts()).states.items() if n} == states
        assert await there.store.check() == []

    async def test_two_processes_on_one_flow_take_it_in_order(self, here: Peer, there: Peer) -> None:
        added = await here.add(*(new_task() for _ in range(10)))
        got = [(await (here, there)[n % 2].claim_one()).task.id for n in range(10)]
        assert got == added

    async def test_one_sequence_serves_both(self, here: Peer, there: Peer) -> None:
        added = [await (here, there)[n % 2].add_one() for n in range(10)]
        seqs = [(await here.task(id)).seq for id in added]
        assert seqs == sorted(set(seqs))
        assert await here.flows() == await there.flows() == {new_task().flow: (seqs[0], 10)}
        positions = [event.position for event in await there.events()]
        assert positions == list(range(1, 11))

    async def test_work_added_here_is_told_there(self, here: Peer, there: Peer) -> None:
        await there.heads()
        there.changes.clear()
        id = await here.add_one()
        await there.heard(lambda: any(head.length == 1 for change in there.changes for head in change.heads))
        await there.heard(lambda: any(event.type == "task.submitted" for change in there.changes for event in change.events))
        assert not any(change.own for change in there.changes)
        assert (await there.claim_one()).task.id == id

    async def test_each_hears_the_events_of_both_once_and_in_order(self, here: Peer, there: Peer) -> None:
        for n in range(12):
            await (here, there)[n % 2].add(new_task(), new_task())

        def positions(peer: Peer) -> list[int]:
            return [event.position for change in peer.changes for event in change.events]

        await here.heard(lambda: len(positions(here)) >= 24)
        await there.heard(lambda: len(positions(there)) >= 24)
        assert positions(here) == positions(there) == list(range(1, 25))

    async def test_heads_told_to_both_are_the_heads(self, here: Peer, there: Peer) -> None:
        await here.add(*(new_task(tenant=f"t{n % 3}", priority=n % 2) for n in range(30)))
        for n in range(12):
            peer = (here, there)[n % 2]
            for claim in await peer.claim(2):
                if n % 3 == 0:
                    await peer.finish(claim, Outcome.released())
        expected = await here.flows()

        def told(peer: Peer) -> bool:
            return {head.key: (head.seq, head.length) for head in peer.told()} == expected

        await here.heard(lambda: told(here))
        await there.heard(lambda: told(there))

    async def test_news_from_there_are_not_lost_on_a_command_that_fails_here(self, here: Peer, there: Peer) -> None:
        for n in range(1, 6):
            await there.add_one()
            await asyncio.gather(here.cancel("\ud800"), return_exceptions=True)  # no text that can be stored
            await here.heard(partial(lengths_are, here, [n]))

    async def test_a_stream_written_here_is_read_there(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "a")
        await there.heard(lambda: told_of(id, there))
        assert await there.log(id) == [Chunk("text", "a")]
        there.changes.clear()
        await here.complete(claim)
        await there.heard(lambda: told_of(id, there))
        assert await there.log(id) == [Chunk("text", "a"), Chunk("end", "completed")]

    async def test_a_task_cancelled_there_is_fenced_and_told_here(self, here: Peer, there: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        assert await there.cancel(id) is None
        await here.heard(lambda: any(e.type == "task.cancelled" for change in here.changes for e in change.events))
        lost = await here.complete(claim)
        assert lost is not None
        assert lost.reason == "cancelled"

    async def test_a_pause_there_holds_here(self, here: Peer, there: Peer) -> None:
        await here.add_one()
        (head,) = await here.heads()
        await there.store.pause("*", there.now)
        assert await here.take([head.flow], limit=1) == []
        await here.heard(lambda: any(change.paused == frozenset({"*"}) for change in here.changes))
        assert (await here.store.heads())[1] == {"*"}
        await there.store.resume("*", there.now)
        await here.heard(lambda: any(change.paused == frozenset() for change in here.changes))
        assert len(await here.take([head.flow], limit=1)) == 1

    async def test_keys_and_limits_hold_over_both(self, here: Peer, there: Peer) -> None:
        id = await here.add_one(new_task(key="k"))
        assert await there.add(new_task(key="k")) == [id]
        with pytest.raises(DuplicateKey):
            await there.add(new_task(key="k", payload={"prompt": "other"}))
        with pytest.raises(QueueFull):
            await there.add(new_task(), limit=1)

    async def test_changes_from_there_reach_what_waits_here(self, here: Peer, there: Peer) -> None:
        first, second, third = await here.add(new_task(), new_task(), new_task())
        await there.reprioritize(third, 10)
        await there.cancel(first)
        assert [claim.task.id for claim in await here.claim(3)] == [third, second]

    async def test_what_was_committed_is_there_after_a_new_opening(self, here: Peer) -> None:
        if not self.shared:
            pytest.skip("this store lives and dies with its process")
        done = await here.add_one(new_task(key="k"))
        claim = await here.claim_one()
        await here.append(claim, "a")
        await here.finish(claim, Outcome.completed(Answer(text="a")))
        ids = await here.add(new_task(), new_task(priority=10), new_task(due=here.now.wall + 1000))
        await here.store.pause("elsewhere/m", here.now)
        tasks, events = [await here.task(id) for id in (done, *ids)], await here.events()
        heads, counts = await here.store.heads(), await here.store.counts()
        await here.store.close()
        again = await self.peer()
        try:
            assert again.store.instance != here.store.instance
            assert [await again.task(id) for id in (done, *ids)] == tasks
            assert await again.events() == events
            assert await again.store.heads() == heads
            assert await again.store.counts() == counts
            assert await again.log(done) == [Chunk("text", "a"), Chunk("end", "completed")]
            assert await again.add(new_task(key="k")) == [done]
            assert (await again.task(await again.add_one())).seq > max(task.seq for task in tasks)
            assert [claim.task.id for claim in await again.claim(2)] == [ids[1], ids[0]]
            assert await again.state(done) is State.COMPLETED
        finally:
            await again.store.close()
