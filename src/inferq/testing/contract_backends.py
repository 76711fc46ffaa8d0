"""The store contract, part eleven: where attempts are made is kept and counted, and a waiting task knows who stands before it."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import msgspec

from inferq.executor import Answer
from inferq.policy import Want
from inferq.store import Executed
from inferq.task import Claim, Outcome, State, Tried
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


async def claimed(here: Peer, backend: str, *, remote: bool, limit: int = 1) -> list[Claim]:
    """Claims of any waiting task for that backend."""
    heads, _ = await here.store.heads()
    want = Want(backend, (tuple(head.flow for head in heads),), limit, remote)
    (claims,) = await here.store.claim([want], here.now)
    return claims


class BackendContract(ContractBase):
    """What is kept of backends, and of places in the queue."""

    async def test_where_a_task_runs_and_ran_is_kept_with_it(self, here: Peer) -> None:
        await here.add(*(new_task() for _ in range(3)))
        (far,) = await claimed(here, "cloud", remote=True)
        (near,) = await claimed(here, "gpu", remote=False)
        running = await here.store.get(far.task.id)
        assert running is not None
        assert (running.backend, running.executed_on) == ("cloud", "cloud")
        await here.finish(far, Outcome.completed(Answer(text="a"), backend="cloud", remote=True))
        await here.finish(near, Outcome.failed("internal", "broke", backend="gpu"))
        task, result = await here.store.get(far.task.id), await here.store.result(far.task.id)
        assert task is not None
        assert result is not None
        assert task.executed_on == result.executed_on == "cloud"
        failed = await here.store.get(near.task.id)
        assert failed is not None
        assert (failed.backend, failed.executed_on) == ("gpu", "local")
        (attempt,) = await here.store.attempts(near.task.id)
        assert (attempt.backend, attempt.executed_on) == ("gpu", "local")

    async def test_what_an_attempt_tried_before_is_kept_with_it_however_it_ends(self, here: Peer) -> None:
        await here.add(new_task(), new_task())
        tried = (Tried("a", "connect", "refused"),)
        (one, two) = await claimed(here, "a", remote=False, limit=2)
        await here.finish(one, Outcome.completed(Answer(text="x"), backend="b", remote=True, tried=tried))
        failed = Outcome.failed("server_error", "500", backend="b")
        await here.finish(two, msgspec.structs.replace(failed, remote=True, tried=tried))
        for claim in (one, two):
            (attempt,) = await here.store.attempts(claim.task.id)
            assert (attempt.backend, attempt.remote, attempt.tried) == ("b", True, tried)
            task = await here.store.get(claim.task.id)
            assert task is not None
            assert (task.backend, task.remote) == ("b", True)

    async def test_lost_and_cancelled_attempts_name_their_backend(self, here: Peer) -> None:
        await here.add(new_task())
        (claim,) = await claimed(here, "gpu", remote=False)
        await here.cancel(claim.task.id)
        (attempt,) = await here.store.attempts(claim.task.id)
        assert (attempt.outcome, attempt.backend) == ("cancelled", "gpu")

    async def test_completed_and_running_tasks_are_counted_by_backend(self, here: Peer) -> None:
        await here.add(*(new_task() for _ in range(5)))
        for claim in await claimed(here, "near", remote=False, limit=2):
            await here.finish(claim, Outcome.completed(Answer(text="a"), backend="near"))
        (claim,) = await claimed(here, "far", remote=True)
        await here.finish(claim, Outcome.completed(Answer(text="a"), backend="far", remote=True))
        await claimed(here, "far", remote=True)
        assert await here.store.executed() == [Executed("far", True, 1, 1), Executed("near", False, 2, 0)]

    async def test_a_task_that_waits_again_may_move_to_another_lane_and_keeps_its_place(self, here: Peer) -> None:
        first, later = await here.add(new_task(), new_task())
        (claim,) = await here.claim(1)
        assert claim.task.id == first
        moved = msgspec.structs.replace(Outcome.released(error="not there"), lane="echo@:local/m")
        await here.finish(claim, moved)
        task = await here.store.get(first)
        assert task is not None
        assert (task.state, task.flow.lane, task.seq) == (State.PENDING, "echo@:local/m", claim.task.seq)
        (again,) = await here.claim(1, lanes=["echo@:local/m"])
        assert (again.task.id, again.attempt) == (first, 2)
        await here.finish(again, msgspec.structs.replace(Outcome.retry(here.now.wall + 1000, code="connect", error="x"), lane="echo/z"))
        here.clock.advance(2)
        await here.store.stage(here.now)
        (third,) = await here.claim(1, lanes=["echo/z"])
        assert third.task.id == first
        assert (await here.store.get(later)) is not None

    async def test_who_stands_before_a_task_is_counted_by_flow_and_lane(self, here: Peer) -> None:
        first = await here.add(*(new_task("a") for _ in range(3)))
        await here.add(new_task("b"), new_task("b", priority=10), new_task("b", priority=1), new_task("a", tenant="t2"))
        (last,) = await here.add(new_task("a"))
        lane_a, lane_b = new_task("a").flow.lane, new_task("b").flow.lane
        ahead = await here.store.ahead(last)
        assert ahead is not None
        assert (ahead.flow, ahead.lanes, ahead.more) == (3, {lane_a: 4, lane_b: 2}, False)
        head = await here.store.ahead(first[0])
        assert head is not None
        assert (head.flow, head.lanes) == (0, {lane_b: 1})
        bounded = await here.store.ahead(last, bound=2)
        assert bounded is not None
        assert bounded.flow == 2
        assert bounded.more

    async def test_who_does_not_wait_has_nobody_before_it(self, here: Peer) -> None:
        (id,) = await here.add(new_task())
        await here.claim(1)
        assert await here.store.ahead(id) is None
        assert await here.store.ahead("nothing") is None

    async def test_the_instances_are_named(self, here: Peer) -> None:
        stats = await here.store.stats()
        assert here.store.instance in stats.names
        assert len(stats.names) == stats.instances
