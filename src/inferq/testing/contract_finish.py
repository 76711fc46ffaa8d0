"""The store contract, part three: `finish` ends an attempt in exactly one way, and a claim that is lost changes nothing."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
import pytest

from inferq.errors import ClaimLost
from inferq.events import TERMINAL, TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRetrying
from inferq.executor import Answer, Chunk, Usage
from inferq.store import Retention
from inferq.task import Claim, Outcome, State, Timing
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task

LossReason = Literal["superseded", "cancelled", "finished", "gone"]
EVERY_OUTCOME = {
    "completed": Outcome.completed(Answer(text="late")),
    "failed": Outcome.failed("internal", "late"),
    "retry": Outcome.retry(2**45, code="timeout", error="late"),
    "cancelled": Outcome.cancelled("late"),
    "released": Outcome.released(),
    "released_until": Outcome.released(at=2**45),
}


async def lose(here: Peer, why: str) -> Claim:
    """A claim that was lost in that way."""
    await here.add(new_task("lost"))
    (claim,) = await here.claim(1, lanes=[new_task("lost").flow.lane])
    match why:
        case "cancelled while it ran":
            await here.cancel(claim.task.id)
        case "finished by itself":
            await here.complete(claim)
        case "failed by itself":
            await here.finish(claim, Outcome.failed("internal", "broke"))
        case "handed back":
            await here.finish(claim, Outcome.released())
        case "waiting for a retry":
            await here.finish(claim, Outcome.retry(here.now.wall + 60_000, code="timeout", error="slow"))
        case "claimed again":
            await here.finish(claim, Outcome.released())
            (other,) = await here.claim(1, lanes=[claim.task.flow.lane])
            assert other.attempt == 2
        case "retried by request":
            await here.cancel(claim.task.id)
            await here.retry(claim.task.id)
        case "pruned":
            await here.complete(claim)
            here.clock.advance(1)
            await here.store.prune({State.COMPLETED: Retention(age=0)}, here.now, chunks=0, events=10**6)
            assert await here.store.get(claim.task.id) is None
    return claim


LOSSES: dict[str, LossReason] = {
    "cancelled while it ran": "cancelled",
    "finished by itself": "finished",
    "failed by itself": "finished",
    "handed back": "superseded",
    "waiting for a retry": "superseded",
    "claimed again": "superseded",
    "retried by request": "superseded",
    "pruned": "gone",
}


class FinishContract(ContractBase):
    """Outcomes and fencing."""

    async def test_a_completed_task_has_its_whole_result(self, here: Peer) -> None:
        answer = Answer(
            text="Hi \x00 \U0001f600",
            message={"role": "assistant", "content": "Hi"},
            embeddings=[[0.5, -1.25]],
            data={"any": [1, None, True]},
            finish_reason="stop",
            model="m:1b",
            usage=Usage(input_tokens=11, output_tokens=3, cached_tokens=2),
            raw={"id": "x"},
        )
        id = await here.add_one()
        here.clock.advance(2)
        claim = await here.claim_one()
        here.clock.advance(3)
        assert await here.finish(claim, Outcome.completed(answer, backend="gpu-1")) is None
        task = await here.task(id)
        assert (task.state, task.code, task.error, task.worker) == (State.COMPLETED, None, "", None)
        assert task.finished == here.now.wall
        result = await here.store.result(id)
        assert result is not None
        for field in msgspec.structs.fields(Answer):
            assert getattr(result, field.name) == getattr(answer, field.name), field.name
        assert (result.task_id, result.backend, result.attempts, result.timing) == (id, "gpu-1", 1, Timing(2.0, 3.0))
        (record,) = await here.store.attempts(id)
        assert (record.number, record.outcome, record.worker, record.backend) == (1, "completed", here.store.instance, "gpu-1")
        assert (record.ended - record.started, record.input_tokens, record.output_tokens) == (3000, 11, 3)
        assert await here.log(id) == [Chunk("end", "completed")]
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskCompleted)
        assert (event.attempt, event.waited_ms, event.ran_ms, event.first_ms) == (1, 2000, 3000, None)
        assert (event.input_tokens, event.output_tokens, event.cached_tokens, event.estimate, event.priority) == (11, 3, 2, 7, 5)

    async def test_the_time_of_the_first_chunk_is_in_the_result_and_the_event(self, here: Peer) -> None:
        (id,) = await here.store.add([new_task(priority=9)], here.now)
        claim = await here.claim_one()
        here.clock.advance(0.25)
        first = here.now.wall
        here.clock.advance(1)
        assert await here.finish(claim, Outcome.completed(Answer(text="x"), backend="b", first=first)) is None
        result = await here.store.result(id)
        assert result is not None
        assert result.timing == Timing(0.0, 1.25, 0.25)
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskCompleted)
        assert (event.first_ms, event.ran_ms, event.priority, event.estimate) == (250, 1250, 9, None)

    async def test_a_failed_task_says_why_and_has_no_result(self, here: Peer) -> None:
        id = await here.add_one()
        assert await here.finish(await here.claim_one(), Outcome.failed("model_not_found", "no such model")) is None
        task = await here.task(id)
        assert (task.state, task.code, task.error) == (State.FAILED, "model_not_found", "no such model")
        assert await here.store.result(id) is None
        assert await here.log(id) == [Chunk("end", "failed")]
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskFailed)
        assert (event.attempt, event.code, event.error) == (1, "model_not_found", "no such model")
        assert event.backend is not None, "an attempt failed, not a task that waited"

    async def test_a_cancelled_outcome_ends_the_task_as_cancelled(self, here: Peer) -> None:
        id = await here.add_one()
        assert await here.finish(await here.claim_one(), Outcome.cancelled("caller left")) is None
        task = await here.task(id)
        assert (task.state, task.error) == (State.CANCELLED, "caller left")
        assert await here.log(id) == [Chunk("end", "cancelled")]
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskCancelled)
        assert (event.attempt, event.reason) == (1, "caller left")

    async def test_a_retry_waits_for_its_time_and_burns_one(self, here: Peer) -> None:
        id = await here.add_one()
        at = here.now.wall + 4000
        assert await here.finish(await here.claim_one(), Outcome.retry(at, code="connect", error="refused")) is None
        task = await here.task(id)
        assert (task.state, task.due, task.failures, task.attempt) == (State.SCHEDULED, at, 1, 1)
        assert (task.worker, task.finished) == (None, None)
        assert await here.flows() == {}
        assert await here.log(id) == []
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskRetrying)
        assert (event.attempt, event.code, event.error, event.due) == (1, "connect", "refused", at)
        (record,) = await here.store.attempts(id)
        assert (record.outcome, record.code, record.error) == ("retry", "connect", "refused")

    async def test_a_retried_task_is_the_first_of_its_flow_again(self, here: Peer) -> None:
        id, *rest = await here.add(*(new_task() for _ in range(3)))
        await here.finish(await here.claim_one(), Outcome.retry(here.now.wall + 1000, code="timeout", error="slow"))
        here.clock.advance(1)
        await here.store.stage(here.now)
        claims = await here.claim(3)
        assert [claim.task.id for claim in claims] == [id, *rest]
        assert [claim.attempt for claim in claims] == [2, 1, 1]

    async def test_a_released_task_waits_at_its_old_place_and_burns_nothing(self, here: Peer) -> None:
        first, second = await here.add(new_task(), new_task())
        seq = (await here.task(first)).seq
        claim = await here.claim_one()
        assert await here.finish(claim, Outcome.released()) is None
        task = await here.task(first)
        assert (task.state, task.failures, task.lost, task.seq, task.due) == (State.PENDING, 0, 0, seq, None)
        assert await here.flows() == {task.flow: (seq, 2)}
        assert [claim.task.id for claim in await here.claim(2)] == [first, second]
        (record,) = await here.store.attempts(first)
        assert record.outcome == "released"
        released = [event for event in await here.events(first) if isinstance(event, TaskReleased)]
        assert [(event.attempt, event.due) for event in released] == [(1, None)]

    async def test_a_task_released_until_a_time_is_scheduled_and_burns_nothing(self, here: Peer) -> None:
        id = await here.add_one()
        at = here.now.wall + 9000
        outcome = Outcome.released(at=at, code="rate_limited", error="slow down")
        assert await here.finish(await here.claim_one(), outcome) is None
        task = await here.task(id)
        assert (task.state, task.due, task.failures) == (State.SCHEDULED, at, 0)
        event = (await here.events(id))[-1]
        assert isinstance(event, TaskReleased)
        assert (event.code, event.error, event.due) == ("rate_limited", "slow down", at)
        assert await here.store.stage(here.now) == at
        here.clock.advance(9)
        await here.store.stage(here.now)
        assert (await here.claim_one()).task.id == id

    async def test_attempts_are_numbered_and_only_failures_burn_retries(self, here: Peer) -> None:
        id = await here.add_one()
        outcomes = [
            Outcome.released(),
            Outcome.retry(0, code="timeout", error="slow"),
            Outcome.released(at=0),
            Outcome.retry(0, code="connect", error="down"),
            Outcome.completed(Answer(text="at last")),
        ]
        for outcome in outcomes:
            await here.store.stage(here.now)
            await here.finish(await here.claim_one(), outcome)
        task = await here.task(id)
        assert (task.attempt, task.failures, task.retry_count) == (5, 2, 2)
        records = await here.store.attempts(id)
        assert [(record.number, record.outcome) for record in records] == [
            (1, "released"),
            (2, "retry"),
            (3, "released"),
            (4, "retry"),
            (5, "completed"),
        ]
        result = await here.store.result(id)
        assert result is not None
        assert result.attempts == 5

    async def test_a_completed_task_shows_no_error_of_an_earlier_attempt(self, here: Peer) -> None:
        id = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.retry(0, code="timeout", error="slow"))
        await here.store.stage(here.now)
        await here.complete(await here.claim_one())
        task = await here.task(id)
        assert (task.code, task.error) == (None, "")

    async def test_a_task_between_attempts_was_never_told_as_failed(self, here: Peer) -> None:
        id = await here.add_one()
        for _ in range(3):
            await here.finish(await here.claim_one(), Outcome.retry(0, code="timeout", error="slow"))
            await here.store.stage(here.now)
        assert not [event for event in await here.events(id) if isinstance(event, TERMINAL)]

    async def test_many_attempts_end_in_one_call_each_on_its_own(self, here: Peer) -> None:
        await here.add(*(new_task() for _ in range(4)))
        good, gone, twice, last = await here.claim(4)
        await here.cancel(gone.task.id)
        done = Outcome.completed(Answer(text="x"))
        items = [(good, done), (gone, done), (twice, done), (twice, done), (last, Outcome.failed("internal", "y"))]
        got = await here.store.finish(items, here.now)
        assert [None if lost is None else lost.reason for lost in got] == [None, "cancelled", None, "finished", None]
        states = [await here.state(claim.task.id) for claim in (good, gone, twice, last)]
        assert states == [State.COMPLETED, State.CANCELLED, State.COMPLETED, State.FAILED]

    # ── fencing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("why", LOSSES)
    async def test_a_lost_claim_ends_nothing(self, here: Peer, why: str) -> None:
        claim = await lose(here, why)
        before = await here.seen(), await here.log(claim.task.id), await here.store.attempts(claim.task.id)
        for outcome in EVERY_OUTCOME.values():
            lost = await here.finish(claim, outcome)
            assert isinstance(lost, ClaimLost)
            assert lost.reason == LOSSES[why]
        assert (await here.seen(), await here.log(claim.task.id), await here.store.attempts(claim.task.id)) == before

    @pytest.mark.parametrize("why", LOSSES)
    async def test_a_lost_claim_appends_nothing(self, here: Peer, why: str) -> None:
        claim = await lose(here, why)
        before = await here.log(claim.task.id)
        lost = await here.append(claim, "late")
        assert isinstance(lost, ClaimLost)
        assert lost.reason == LOSSES[why]
        assert await here.log(claim.task.id) == before

    async def test_a_lost_claim_does_not_stop_the_valid_one(self, here: Peer) -> None:
        stale = await lose(here, "handed back")
        claim = await here.claim_one()
        assert claim.token != stale.token
        assert await here.complete(stale, "stale") is not None
        assert await here.complete(claim, "valid") is None
        result = await here.store.result(claim.task.id)
        assert result is not None
        assert result.text == "valid"

    async def test_of_many_ends_at_the_same_time_one_counts(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        got = await asyncio.gather(
            *(here.complete(claim, f"answer {n}") for n in range(5)),
            here.finish(claim, Outcome.failed("internal", "broke")),
            *(here.complete(claim, f"answer {n}") for n in range(5, 10)),
        )
        assert got.count(None) == 1
        assert {lost.reason for lost in got if lost is not None} == {"finished"}
        result = await here.store.result(id)
        assert result is not None
        assert result.text == f"answer {got.index(None)}"
        assert len([event for event in await here.events(id) if isinstance(event, TERMINAL)]) == 1
        assert await here.log(id) == [Chunk("end", "completed")]
        assert len(await here.store.attempts(id)) == 1
