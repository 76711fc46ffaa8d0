"""The store contract, part two: `claim` takes tasks first in, first out, tier after tier, within its limit, each only once."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio

from inferq.events import TaskStarted
from inferq.policy import Want
from inferq.task import Claim, Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


def ids(claims: list[Claim]) -> list[str]:
    return [claim.task.id for claim in claims]


class ClaimContract(ContractBase):
    """Claiming, and the heads that it leaves."""

    async def test_a_flow_is_claimed_first_in_first_out(self, here: Peer) -> None:
        added = await here.add(*(new_task() for _ in range(7)))
        got = ids(await here.claim(3)) + ids(await here.claim(1)) + ids(await here.claim(10))
        assert got == added

    async def test_flows_of_one_tier_are_served_as_one_line(self, here: Peer) -> None:
        added = await here.add(*(new_task(tenant=f"tenant-{n % 3}") for n in range(12)))
        assert ids(await here.claim(5)) == added[:5]
        assert ids(await here.claim(7)) == added[5:]

    async def test_a_tier_goes_before_the_next_one(self, here: Peer) -> None:
        low = await here.add(*(new_task(priority=1) for _ in range(3)))
        high = await here.add(*(new_task(priority=10) for _ in range(3)))
        assert ids(await here.claim(4)) == [*high, low[0]]
        assert ids(await here.claim(4)) == low[1:]

    async def test_the_order_of_tiers_is_the_callers(self, here: Peer) -> None:
        low, high = new_task(priority=1), new_task(priority=10)
        await here.add(high, low)
        flows = {head.key.priority: head.flow for head in await here.heads()}
        assert ids(await here.take([flows[1]], [flows[10]], limit=1)) == [low.id]

    async def test_any_integer_of_64_bits_is_a_priority(self, here: Peer) -> None:
        priorities = [0, -(2**63), 2**63 - 1, -1]
        added = await here.add(*(new_task(priority=priority) for priority in priorities))
        assert ids(await here.claim(4)) == [added[2], added[0], added[3], added[1]]

    async def test_the_limit_is_kept(self, here: Peer) -> None:
        await here.add(*(new_task(tenant=f"t{n % 2}") for n in range(10)))
        (first, second) = (head.flow for head in await here.heads())
        assert len(await here.take([first, second], limit=4)) == 4
        assert len(await here.take([first], [second], limit=4)) == 4
        assert len(await here.take([first], [second], limit=4)) == 2

    async def test_a_claim_is_an_attempt_with_a_new_token(self, here: Peer) -> None:
        id = await here.add_one()
        added = here.now
        here.clock.advance(5)
        claim = await here.claim_one()
        assert (claim.attempt, claim.worker) == (1, here.store.instance)
        task = await here.task(id)
        assert claim.task == task
        assert (task.state, task.attempt, task.worker) == (State.RUNNING, 1, here.store.instance)
        assert (task.created, task.started) == (added.wall, added.wall + 5000)

    async def test_every_claim_of_a_task_has_a_new_token(self, here: Peer) -> None:
        await here.add_one()
        tokens = []
        for _ in range(5):
            claim = await here.claim_one()
            tokens.append(claim.token)
            await here.finish(claim, Outcome.released())
        assert len(set(tokens)) == 5

    async def test_heads_and_lengths_follow_the_claims(self, here: Peer) -> None:
        added = await here.add(*(new_task() for _ in range(3)), new_task(priority=1))
        seqs = [(await here.task(id)).seq for id in added]
        flow, other = (new_task().flow, new_task(priority=1).flow)
        await here.claim(1)
        assert await here.flows() == {flow: (seqs[1], 2), other: (seqs[3], 1)}
        await here.claim(2)
        assert await here.flows() == {other: (seqs[3], 1)}
        await here.heard(lambda: {head.key: head.length for head in here.told()} == {other: 1})

    async def test_an_emptied_flow_is_told_with_length_zero_and_comes_back(self, here: Peer) -> None:
        await here.add(new_task())
        await here.claim(1)
        await here.heard(lambda: [head.length for change in here.changes for head in change.heads][-1:] == [0])
        again = new_task()
        await here.add(again)
        assert ids(await here.claim(1)) == [again.id]

    async def test_a_lost_race_gives_fewer_claims_and_no_error(self, here: Peer) -> None:
        await here.add(new_task(), new_task())
        (head,) = await here.heads()
        assert len(await here.take([head.flow], limit=2)) == 2
        assert await here.take([head.flow], limit=2) == []
        assert await here.take([head.flow + 1_000_000], limit=2) == []

    async def test_a_task_that_moved_is_not_claimed_from_its_old_flow(self, here: Peer) -> None:
        id = await here.add_one()
        (old,) = await here.heads()
        await here.reprioritize(id, 10)
        assert await here.take([old.flow], limit=1) == []
        assert ids(await here.claim(1)) == [id]

    async def test_each_want_gets_its_own_claims(self, here: Peer) -> None:
        chats, embeds = [new_task("a") for _ in range(3)], [new_task("b") for _ in range(3)]
        await here.add(*chats, *embeds)
        flows = {head.key.lane: head.flow for head in await here.heads()}
        a, b = flows[chats[0].flow.lane], flows[embeds[0].flow.lane]
        wants = [Want("x", ((b,),), 2), Want("y", ((a,), (b,)), 5), Want("z", ((a,),), 1)]
        first, second, third = await here.store.claim(wants, here.now)
        assert ids(first) == [task.id for task in embeds[:2]]
        assert ids(second) == [*(task.id for task in chats), embeds[2].id]
        assert third == []

    async def test_claims_at_the_same_time_never_share_a_task(self, here: Peer) -> None:
        added = await here.add(*(new_task(tenant=f"t{n % 4}") for n in range(60)))
        tier = [head.flow for head in await here.heads()]
        got = await asyncio.gather(*(here.take(tier, limit=3) for _ in range(25)))
        claimed = [id for claims in got for id in ids(claims)]
        assert sorted(claimed) == sorted(added)
        assert len(claimed) == len(set(claimed))

    async def test_every_claim_has_its_event(self, here: Peer) -> None:
        id = await here.add_one()
        await here.claim_one()
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskStarted)
        assert (event.attempt, event.worker) == (1, here.store.instance)

    # ── pause ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_paused_lane_is_not_claimed_and_keeps_its_place(self, here: Peer) -> None:
        paused, free = [new_task("paused") for _ in range(2)], new_task("free")
        await here.add(*paused, free)
        await here.store.pause(paused[0].flow.lane, here.now)
        heads, scopes = await here.store.heads()
        assert scopes == {paused[0].flow.lane}
        assert {head.key.lane for head in heads} == {paused[0].flow.lane, free.flow.lane}
        assert ids(await here.take([head.flow for head in heads], limit=5)) == [free.id]
        await here.store.resume(paused[0].flow.lane, here.now)
        assert ids(await here.claim(5)) == [task.id for task in paused]

    async def test_a_paused_model_is_not_claimed_in_any_lane(self, here: Peer) -> None:
        first, second, free = new_task("a"), new_task("a", executor="other"), new_task("b")
        await here.add(first, second, free)
        await here.store.pause("*/a", here.now)
        assert ids(await here.claim(5)) == [free.id]
        await here.store.resume("*/a", here.now)
        assert ids(await here.claim(5)) == [first.id, second.id]

    async def test_a_star_pauses_every_lane_and_not_what_runs(self, here: Peer) -> None:
        await here.add(new_task("a"), new_task("b"))
        running = await here.claim_one()
        await here.store.pause("*", here.now)
        assert await here.claim(5) == []
        assert await here.complete(running) is None
        await here.store.resume("*", here.now)
        assert len(await here.claim(5)) == 1

    async def test_a_lane_stays_paused_when_the_star_is_lifted(self, here: Peer) -> None:
        await here.add(new_task("a"), new_task("b"))
        await here.store.pause("*", here.now)
        await here.store.pause(new_task("a").flow.lane, here.now)
        await here.store.resume("*", here.now)
        assert [claim.task.model for claim in await here.claim(5)] == ["b"]

    async def test_pause_and_resume_are_idempotent_and_told_once(self, here: Peer) -> None:
        for _ in range(2):
            await here.store.pause("*", here.now)
        for _ in range(2):
            await here.store.resume("*", here.now)
        assert [event.type for event in await here.events()] == ["queue.paused", "queue.resumed"]
        await here.heard(lambda: [c.paused for c in here.changes if c.paused is not None][-1:] == [frozenset()])
        assert frozenset({"*"}) in [change.paused for change in here.changes]
