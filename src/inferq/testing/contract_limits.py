"""The store contract, part eleven: a tenant's limits hold over all processes, and a tenant at its limit holds up nobody else."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import random

import msgspec
import pytest

from inferq.access import TENANT, TenantLimits, limits_place
from inferq.errors import QueueFull, RateLimited
from inferq.executor import Answer
from inferq.policy import Want
from inferq.store import RecordPut
from inferq.task import Claim, Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


async def limit(peer: Peer, tenant: str, *, concurrency: int | None = None, max_queued: int | None = None) -> None:
    body = msgspec.json.encode(TenantLimits(concurrency, max_queued))
    await peer.store.put_record(RecordPut(TENANT, limits_place(tenant), body), peer.now)


def lengths(peer: Peer) -> dict[str, int]:
    """Tenant to length of its flows, as the changes told it."""
    return {head.key.tenant: head.length for head in peer.told()}


class LimitContract(ContractBase):
    """Concurrency and queue bounds of tenants, kept in records."""

    async def test_no_more_tasks_of_a_tenant_run_than_may(self, here: Peer) -> None:
        await limit(here, "a", concurrency=2)
        added = await here.add(*(new_task(tenant="a") for _ in range(5)))
        (head,) = await here.heads()
        claims = await here.take([head.flow], limit=5)
        assert [claim.task.id for claim in claims] == added[:2]
        assert await here.take([head.flow], limit=5) == []
        await here.complete(claims[0])
        assert [claim.task.id for claim in await here.take([head.flow], limit=5)] == [added[2]]

    async def test_the_limit_counts_over_flows_lanes_and_processes(self, here: Peer, there: Peer) -> None:
        await limit(here, "a", concurrency=3)
        await here.add(*(new_task(f"m{n % 4}", priority=n % 3, tenant="a") for n in range(24)))
        flows = [head.flow for head in await here.heads()]
        first = await here.take(flows, limit=2)
        second = await there.take(flows, limit=9)
        assert (len(first), len(second)) == (2, 1)
        assert await here.take(flows, limit=9) == await there.take(flows, limit=9) == []
        await there.complete(second[0])
        assert len(await here.take(flows, limit=9)) == 1

    async def test_tasks_without_a_tenant_have_limits_too_and_messages_of_webhooks_do_not_count(self, here: Peer) -> None:
        await limit(here, "", concurrency=1, max_queued=2)
        messages = await here.add(*(new_task("ops", executor="webhook") for _ in range(4)))
        added = await here.add(new_task(), new_task())
        with pytest.raises(RateLimited, match="at most 2 tasks of the default account"):
            await here.add(new_task())
        await here.add(new_task("ops", executor="webhook"), new_task(tenant="a"))
        flows = {head.key.lane: head.flow for head in await here.heads() if head.key.tenant == ""}
        mine = flows.pop("echo/m")
        (hooks,) = flows.values()
        (claim,) = await here.take([mine], limit=5)
        assert claim.task.id == added[0]
        assert await here.take([mine], limit=5) == []
        assert {head.flow for head in await here.heads() if head.key.tenant == ""} == {hooks}
        assert [claim.task.id for claim in await here.take([hooks], limit=4)] == messages
        await here.complete(claim)
        assert [claim.task.id for claim in await here.take([mine], limit=5)] == [added[1]]

    async def test_messages_of_webhooks_that_wait_are_counted_apart(self, here: Peer) -> None:
        await here.add(new_task(), new_task("ops", executor="webhook"), new_task("ops", executor="webhook", due=here.now.wall + 1000))
        await here.add(new_task("other", executor="webhook"), new_task(executor="webhooks"), new_task(due=here.now.wall + 1000))
        assert await here.store.waiting_deliveries() == 3
        await here.add(new_task(), limit=4)
        with pytest.raises(QueueFull, match="4 of at most 4"):
            await here.add(new_task(), limit=4)

    async def test_others_are_served_beside_a_tenant_at_its_limit(self, here: Peer) -> None:
        await limit(here, "a", concurrency=1)
        mine = await here.add(*(new_task(tenant="a") for _ in range(3)))
        others = await here.add(*(new_task(tenant=f"b{n % 2}") for n in range(6)), new_task())
        flows = [head.flow for head in await here.heads()]
        claims = await here.take(flows, limit=100)
        assert [claim.task.id for claim in claims] == [mine[0], *others]

    async def test_flows_of_a_tenant_at_its_limit_are_no_candidates_until_one_of_its_tasks_ends(self, here: Peer, there: Peer) -> None:
        await limit(here, "a", concurrency=1)
        await here.add(*(new_task(tenant="a") for _ in range(3)), new_task(tenant="b"), new_task(tenant="b"))
        await there.heard(lambda: lengths(there) == {"a": 3, "b": 2})
        (claim,) = await here.claim(1)
        assert claim.task.flow.tenant == "a"
        for peer in (here, there):
            assert {head.key.tenant for head in await peer.heads()} == {"b"}
        await there.heard(lambda: lengths(there) == {"b": 2})
        await here.complete(claim)
        await here.heard(lambda: lengths(here) == {"a": 2, "b": 2})
        await there.heard(lambda: lengths(there) == {"a": 2, "b": 2})
        assert {head.key.tenant for head in await there.heads()} == {"a", "b"}

    @pytest.mark.parametrize("ending", ["complete", "fail", "retry", "release", "cancel", "rescue"])
    async def test_however_a_task_ends_its_place_is_free_again(self, here: Peer, there: Peer, ending: str) -> None:
        await limit(there, "a", concurrency=1)
        await there.add(new_task(tenant="a"), new_task(tenant="a"))
        (claim,) = await here.claim(1)
        assert await there.heads() == []
        later = there.now.wall + 60_000
        if ending == "cancel":
            await there.cancel(claim.task.id)
        elif ending == "rescue":
            await here.store.close()
            assert await there.store.rescue(there.now) == 1
        else:
            outcomes = {
                "complete": Outcome.completed(Answer(text="done")),
                "fail": Outcome.failed("server_error", "broke"),
                "retry": Outcome.retry(later, code="timeout", error="slow"),
                "release": Outcome.released(at=later),
            }
            await here.finish(claim, outcomes[ending])
        (head,) = await there.heads()
        assert head.length == (2 if ending == "rescue" else 1)
        assert len(await there.claim(5)) == 1

    async def test_limits_can_be_changed_and_lifted_while_tasks_run(self, here: Peer, there: Peer) -> None:
        await here.add(*(new_task(tenant="a") for _ in range(9)))
        flows = [head.flow for head in await here.heads()]
        assert len(await here.take(flows, limit=2)) == 2
        await limit(there, "a", concurrency=1)
        assert await here.take(flows, limit=2) == []
        await here.heard(lambda: lengths(here) == {})
        await limit(there, "a", concurrency=4)
        assert len(await here.take(flows, limit=9)) == 2
        await there.store.drop_record(TENANT, "a", there.now)
        await here.heard(lambda: lengths(here) == {"a": 5})
        assert len(await here.take(flows, limit=9)) == 5

    async def test_a_task_added_and_claimed_in_one_commit_keeps_the_limit(self, here: Peer) -> None:
        await limit(here, "a", concurrency=1)
        first, second = new_task("fresh-1", tenant="a"), new_task("fresh-2", tenant="a")
        want = Want("slots", ((first.flow, second.flow),), 10)
        adding = here.store.add([first, second], here.now)
        claiming = here.store.claim([want, want], here.now)
        await adding
        claims = [claim for claims in await claiming for claim in claims]
        assert [claim.task.id for claim in claims] == [first.id]

    async def test_no_more_tasks_of_a_tenant_wait_than_may(self, here: Peer, there: Peer) -> None:
        await limit(here, "a", max_queued=3)
        later = there.now.wall + 60_000
        await there.add(new_task(tenant="a"), new_task(tenant="a", due=later))
        before = await there.seen()
        with pytest.raises(RateLimited, match="2 of at most 3 tasks of tenant 'a' wait"):
            await there.add(new_task(tenant="a"), new_task("other", tenant="a"))
        assert await there.seen() == before
        await there.add(new_task(tenant="b"), new_task(tenant="b"), new_task(tenant="b"), new_task(tenant="b"))
        await there.add(new_task(tenant="a", key="k"))
        await there.add(new_task(tenant="a", key="k"))
        (claim,) = await there.claim(1)
        assert claim.task.flow.tenant == "a"
        await there.add(new_task(tenant="a", due=later))
        with pytest.raises(RateLimited):
            await here.add(new_task("new-lane", tenant="a"))

    async def test_of_adds_in_one_commit_each_counts_those_before_it(self, here: Peer) -> None:
        await limit(here, "a", max_queued=4)
        later = here.now.wall + 60_000
        adds = [here.store.add([new_task(f"m{n}", tenant="a", due=later if n % 2 else None)], here.now) for n in range(7)]
        refused = 0
        for adding in adds:
            try:
                await adding
            except RateLimited:
                refused += 1
        assert refused == 3

    async def test_waiting_messages_of_webhooks_do_not_fill_the_queue_for_others(self, here: Peer) -> None:
        later = here.now.wall + 60_000
        await here.add(*(new_task("ops", executor="webhook", due=later if n % 2 else None) for n in range(10)))
        await here.add(new_task(), new_task(), limit=2)
        with pytest.raises(QueueFull, match="2 of at most 2"):
            await here.add(new_task(), limit=2)

    async def test_many_flows_of_tenants_without_limits_are_claimed_in_order_beside_one_with(self, here: Peer) -> None:
        await limit(here, "a", concurrency=1)
        added = await here.add(*(new_task(tenant=f"t{n % 9}") for n in range(36)), new_task(tenant="a"), new_task(tenant="a"))
        flows = [head.flow for head in await here.heads()]
        assert [claim.task.id for claim in await here.take(flows, limit=100)] == added[:37]

    async def test_unreadable_limits_are_no_limits(self, here: Peer) -> None:
        await here.store.put_record(RecordPut(TENANT, "a", b"nonsense"), here.now)
        await limit(here, "b", concurrency=1)
        await here.add(new_task(tenant="a"), new_task(tenant="a"), new_task(tenant="b"), new_task(tenant="b"))
        assert len(await here.claim(9)) == 3

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_random_walk_of_two_processes_never_exceeds_a_limit_and_runs_everything(
        self, here: Peer, there: Peer, seed: int
    ) -> None:
        rng = random.Random(seed)  # noqa: S311 - a walk, not a secret
        bounds = {"a": 1, "b": 2, "c": 5}
        for tenant, bound in bounds.items():
            await limit(here, tenant, concurrency=bound)
        peers, held, left = (here, there), dict[str, tuple[Peer, Claim]](), 120
        while left or held:
            peer = rng.choice(peers)
            step = rng.random()
            if left and step < 0.3:
                count = min(left, rng.randint(1, 8))
                left -= count
                names = [rng.choice(["a", "b", "c", "free"]) for _ in range(count)]
                await peer.add(*(new_task(f"m{rng.randint(0, 2)}", tenant=name, priority=rng.randint(1, 3)) for name in names))
            elif step < 0.65:
                for claim in await peer.claim(rng.randint(1, 6)):
                    held[claim.task.id] = (peer, claim)
            elif held:
                id = rng.choice(sorted(held))
                owner, claim = held.pop(id)
                again = rng.random() < 0.2
                await owner.finish(claim, Outcome.released() if again else Outcome.failed("internal", "walk"))
            for tenant, bound in bounds.items():
                assert sum(claim.task.flow.tenant == tenant for _, claim in held.values()) <= bound
        while claims := await here.claim(50) + await there.claim(50):
            for claim in claims:
                owner = here if claim.worker == here.store.instance else there
                await owner.finish(claim, Outcome.failed("internal", "walk"))
        counts = await here.store.counts()
        assert counts.states == {**dict.fromkeys(map(str, State), 0), "failed": 120}
