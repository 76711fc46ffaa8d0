"""The store contract, part eleven: batches count what becomes of their tasks, end once, and can be held, cancelled and removed."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from inferq.batch import Batch, BatchLine, BatchState, NewBatch
from inferq.errors import BatchExists, BatchNotFound, QueueFull, WrongState
from inferq.events import BatchFinished, BatchPaused, BatchResumed, TaskFailed
from inferq.executor import Answer, Usage
from inferq.store import BatchFilter, Retention
from inferq.task import Outcome, State, new_id
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


async def make(peer: Peer, lines: int = 0, *, name: str | None = None, seal: bool = False, **task: object) -> str:
    """A batch with so many lines, keyed by their numbers."""
    batch = await peer.store.create_batch(NewBatch(new_id(), name), peer.now)
    if lines:
        await put(peer, batch.id, range(1, lines + 1), **task)
    if seal:
        await peer.store.seal_batch(batch.id, peer.now)
    return batch.id


async def put(peer: Peer, id: str, numbers: Sequence[int], **task: object) -> int:
    lines = [BatchLine(n, f"k{n}", new_task(f"model-{n % 2}", batch=id, **task)) for n in numbers]  # type: ignore[arg-type]
    return await peer.store.add_lines(id, lines, peer.now)


async def look(peer: Peer, id: str) -> Batch:
    batch = await peer.store.batch(id)
    assert batch is not None
    return batch


async def settle(peer: Peer, *, limit: int = 2) -> None:
    while await peer.store.settle_batches(peer.now, limit=limit):
        pass


async def finishes(peer: Peer, id: str) -> list[tuple[int, int, int]]:
    """What was told of the batch's ends."""
    told = [event for event in await peer.store.events(limit=10_000) if isinstance(event, BatchFinished) and event.batch_id == id]
    return [(event.completed, event.failed, event.cancelled) for event in told]


async def ids_of(peer: Peer, id: str) -> list[str]:
    return [item.task_id for item in await peer.store.batch_items(id, limit=10_000)]


class BatchContract(ContractBase):
    """Many tasks under one name."""

    async def test_a_batch_is_found_by_id_and_name_and_a_name_is_taken_once_per_tenant(self, here: Peer) -> None:
        first = await here.store.create_batch(NewBatch(new_id(), "nightly", source="f.jsonl", digest="d", metadata={"a": 1}), here.now)
        assert (first.state, first.total, first.metadata, first.created) == (BatchState.OPEN, 0, {"a": 1}, here.now.wall)
        assert await look(here, first.id) == first
        with pytest.raises(BatchExists, match="nightly"):
            await here.store.create_batch(NewBatch(new_id(), "nightly"), here.now)
        other = await here.store.create_batch(NewBatch(new_id(), "nightly", tenant="t"), here.now)
        unnamed = await here.store.create_batch(NewBatch(new_id()), here.now)
        assert await here.store.batches(BatchFilter(name="nightly", tenant="t")) == [other]
        assert await here.store.batches(BatchFilter(source="f.jsonl")) == [first]
        assert await here.store.batches(BatchFilter(prefix=unnamed.id[:-1])) == [unnamed]
        newest = await here.store.batches(BatchFilter(), limit=2)
        assert newest == [unnamed, other]
        assert await here.store.batches(BatchFilter(), after=other.id) == [first]

    async def test_what_happens_to_a_task_of_a_batch_names_the_batch(self, here: Peer) -> None:
        id = await make(here)
        await put(here, id, range(1, 7), expires=here.now.wall + 10_000)
        claims = await here.claim(5)
        late = here.now.wall + 1000
        for claim, outcome in zip(
            claims,
            (
                Outcome.completed(Answer(text="x")),
                Outcome.failed("auth", "no"),
                Outcome.retry(late, code="timeout", error="slow"),
                Outcome.released(at=late),
                None,
            ),
            strict=True,
        ):
            if outcome is None:
                await here.store.cancel([claim.task.id], here.now)
            else:
                assert await here.finish(claim, outcome) is None
        here.clock.advance(11)
        assert await here.store.expire(here.now) == 3
        told = [event for event in await here.store.events() if event.type.startswith("task.")]
        assert {event.type for event in told} == {
            *("task.submitted", "task.started", "task.completed", "task.failed", "task.retrying", "task.released", "task.cancelled")
        }
        assert {getattr(event, "batch_id", id) for event in told} == {id}
        assert [event.backend for event in told if isinstance(event, TaskFailed) and event.code == "expired"] == [None] * 3

    async def test_batches_are_counted_by_the_state_that_they_show(self, here: Peer) -> None:
        assert set((await here.store.batch_counts()).values()) == {0}
        ids = [(await here.store.create_batch(NewBatch(new_id()), here.now)).id for _ in range(6)]
        for line, id in enumerate(ids[:5], 1):
            await here.store.add_lines(id, [BatchLine(line, None, new_task())], here.now)
        await here.store.seal_batch(ids[0], here.now)
        await here.store.hold_batch(ids[1], here.now)
        await here.store.cancel_batch(ids[2], here.now, reason="enough")
        await here.store.seal_batch(ids[5], here.now)
        shown = Counter(batch.state for batch in await here.store.batches(BatchFilter()))
        assert shown == {BatchState.RUNNING: 1, BatchState.PAUSED: 1, BatchState.CANCELLED: 1, BatchState.OPEN: 2, BatchState.FINISHED: 1}
        assert await here.store.batch_counts() == shown
        await here.store.drop_batch(ids[5], here.now)
        assert (await here.store.batch_counts())[BatchState.FINISHED] == 0

    async def test_what_names_no_batch_is_refused(self, here: Peer) -> None:
        assert await here.store.batch("none") is None
        for call in (
            here.store.add_lines("none", [BatchLine(1, None, new_task())], here.now),
            here.store.seal_batch("none", here.now),
            here.store.hold_batch("none", here.now),
            here.store.cancel_batch("none", here.now),
            here.store.drop_batch("none", here.now),
        ):
            with pytest.raises(BatchNotFound, match="none"):
                await call
        assert await here.store.batch_items("none") == []
        assert (await here.store.counts()).total == 0

    async def test_lines_that_come_again_are_kept_once(self, here: Peer, there: Peer) -> None:
        id = await make(here, 3)
        assert await put(there, id, range(2, 6)) == 2
        assert await put(here, id, range(1, 6)) == 0
        again = BatchLine(77, "k1", new_task(batch=id))
        twins = [BatchLine(8, "twin", new_task(batch=id)), BatchLine(9, "twin", new_task(batch=id))]
        assert await here.store.add_lines(id, [again, *twins], here.now) == 1
        assert [(item.line, item.key) for item in await here.store.batch_items(id)] == [
            (1, "k1"), (2, "k2"), (3, "k3"), (4, "k4"), (5, "k5"), (8, "twin"),
        ]  # fmt: skip
        batch = await look(here, id)
        assert (batch.total, batch.waiting, batch.lines) == (6, 6, 8)
        assert await here.store.batch_keys(id, ["k1", "k9", "twin"]) == {"k1", "twin"}
        assert (await here.store.counts()).states["pending"] == 6

    async def test_lines_without_room_are_refused_together(self, here: Peer) -> None:
        id = await make(here, 2)
        lines = [BatchLine(n, None, new_task(batch=id)) for n in (3, 4)]
        with pytest.raises(QueueFull):
            await here.store.add_lines(id, lines, here.now, limit=3)
        assert (await look(here, id)).total == 2

    async def test_a_sealed_batch_takes_no_more_until_it_is_opened_again(self, here: Peer) -> None:
        id = await make(here, 1, seal=True)
        with pytest.raises(WrongState, match="sealed"):
            await put(here, id, [2])
        sealed = await here.store.seal_batch(id, here.now)
        assert sealed.state is BatchState.RUNNING
        assert (await here.store.seal_batch(id, here.now, sealed=False)).state is BatchState.OPEN
        assert await put(here, id, [2]) == 1

    async def test_counts_move_with_every_transition_of_a_task(self, here: Peer) -> None:
        id = await make(here, 6, seal=True)
        plain = await here.add_one()
        a, b, c, d, e, _f, _ = await here.claim(7)
        usage = Usage(input_tokens=3, output_tokens=4)
        assert (await look(here, id)).running == 6
        await here.finish(a, Outcome.completed(Answer(text="x", usage=usage)))
        await here.finish(b, Outcome.completed(Answer(text="y", usage=usage)))
        await here.finish(c, Outcome.failed("timeout", "late"))
        await here.finish(d, Outcome.retry(here.now.wall + 1000, code="connect", error="refused"))
        await here.finish(e, Outcome.released())
        batch = await look(here, id)
        assert (batch.waiting, batch.running, batch.completed, batch.failed, batch.cancelled) == (2, 1, 2, 1, 0)
        assert (batch.input_tokens, batch.output_tokens) == (6, 8)
        await here.store.cancel([e.task.id], here.now)
        await here.store.retry([c.task.id], here.now)
        here.clock.advance(2)
        await here.store.stage(here.now)
        batch = await look(here, id)
        assert (batch.waiting, batch.running, batch.completed, batch.failed, batch.cancelled) == (2, 1, 2, 0, 1)
        assert (batch.total, batch.done) == (6, 3)
        assert await here.store.get(plain) is not None
        assert await here.store.check() == []

    async def test_a_batch_ends_once_with_its_last_task_and_again_after_a_retry(self, here: Peer, there: Peer) -> None:
        id = await make(here, 3, seal=True)
        first, second, third = await here.claim(3)
        await here.store.finish([(first, Outcome.completed(Answer())), (second, Outcome.failed("timeout", "late"))], here.now)
        assert await finishes(here, id) == []
        assert not (await look(here, id)).ended
        await there.cancel(third.task.id)
        assert await finishes(here, id) == [(1, 1, 1)]
        batch = await look(here, id)
        assert (batch.state, batch.finished) == (BatchState.FINISHED, there.now.wall)
        await here.store.retry([second.task.id], here.now)
        assert (await look(here, id)).state is BatchState.RUNNING
        await here.complete(await here.claim_one())
        assert await finishes(here, id) == [(1, 1, 1), (2, 0, 1)]

    async def test_an_open_batch_ends_when_it_is_sealed_and_an_empty_one_too(self, here: Peer) -> None:
        id = await make(here, 1)
        await here.complete(await here.claim_one())
        assert await finishes(here, id) == []
        await here.store.seal_batch(id, here.now)
        assert await finishes(here, id) == [(1, 0, 0)]
        empty = await make(here, seal=True)
        assert await finishes(here, empty) == [(0, 0, 0)]
        await here.store.seal_batch(empty, here.now)
        assert await finishes(here, empty) == [(0, 0, 0)]

    async def test_deadlines_and_vanished_workers_end_a_batch_too(self, here: Peer, there: Peer) -> None:
        late = await make(here, 1, seal=True, expires=here.now.wall + 1000)
        here.clock.advance(5)
        await here.store.expire(here.now)
        assert await finishes(here, late) == [(0, 1, 0)]
        lost = await make(here, 1, seal=True, at_most_once=True)
        await there.claim_one()
        await there.store.close()
        here.clock.advance(60)
        assert await here.store.rescue(here.now) == 1
        assert await finishes(here, lost) == [(0, 1, 0)]

    async def test_items_come_in_input_order_with_their_results_and_errors(self, here: Peer) -> None:
        id = await make(here, 4)
        for claim in await here.claim(3):
            await (here.finish(claim, Outcome.failed("timeout", "late")) if claim.task.seq % 2 == 0 else here.complete(claim, "done"))
        items = await here.store.batch_items(id)
        assert [item.line for item in items] == [1, 2, 3, 4]
        assert {item.state for item in items} == {State.COMPLETED, State.FAILED, State.PENDING}
        for item in items:
            assert (item.result is not None) == (item.state is State.COMPLETED)
            assert item.code == ("timeout" if item.state is State.FAILED else None)
        page = await here.store.batch_items(id, after=1, limit=2, results=False)
        assert [(item.line, item.result) for item in page] == [(2, None), (3, None)]
        failed = await here.store.batch_items(id, states=[State.FAILED])
        assert [item.line for item in failed] == [item.line for item in items if item.state is State.FAILED]
        (failures,) = await here.store.batch_failures(id)
        assert (failures.code, failures.count, failures.example) == ("timeout", len(failed), "late")
        found = await here.store.batch_tasks(id, State.FAILED)
        assert [task_id for _, task_id in found] == [item.task_id for item in failed]
        assert await here.store.batch_tasks(id, State.FAILED, codes=["connect"]) == []
        assert await here.store.batch_tasks(id, State.FAILED, after=found[-1][0]) == []

    async def test_a_held_batch_gives_out_nothing_and_goes_on_where_it_stood(self, here: Peer, there: Peer) -> None:
        id = await make(here, 5)
        behind = await here.add_one(new_task("model-1"))
        order = await ids_of(here, id)
        assert (await here.store.hold_batch(id, here.now)).state is BatchState.PAUSED
        await settle(here)
        assert [claim.task.id for claim in await there.claim(10)] == [behind]
        counts = (await here.store.counts()).states
        assert (counts["scheduled"], counts["pending"]) == (5, 0)
        here.clock.advance(10_000_000)
        assert await here.store.stage(here.now) is None
        assert (await here.store.counts()).states["scheduled"] == 5
        await there.store.hold_batch(id, there.now, held=False)
        await settle(there)
        ahead = await here.add_one(new_task("model-1"))
        assert [claim.task.id for claim in await here.claim(10)] == sorted([*order, ahead], key=[*order, ahead].index)
        told = [type(event) for event in await here.store.events(limit=1000) if isinstance(event, BatchPaused | BatchResumed)]
        assert told == [BatchPaused, BatchResumed]
        assert await here.store.check() == []

    async def test_what_comes_to_a_held_batch_or_back_to_it_is_held_too(self, here: Peer, there: Peer) -> None:
        id = await make(here, 5)
        a, b, c, d = await here.claim(4)
        lost = await there.claim_one()
        await here.finish(d, Outcome.failed("timeout", "late"))
        await here.store.hold_batch(id, here.now)
        await here.finish(a, Outcome.retry(here.now.wall, code="connect", error="refused"))
        await here.finish(b, Outcome.released())
        await here.complete(c)
        await here.store.retry([d.task.id], here.now)
        await there.store.close()
        here.clock.advance(60)
        assert await here.store.rescue(here.now) == 1
        assert await put(here, id, [6]) == 1
        await settle(here)
        await here.store.stage(here.now)
        assert await here.claim(10) == []
        batch = await look(here, id)
        assert (batch.waiting, batch.running, batch.completed) == (5, 0, 1)
        await here.store.hold_batch(id, here.now, held=False)
        await settle(here)
        assert {claim.task.id for claim in await here.claim(10)} >= {a.task.id, b.task.id, d.task.id, lost.task.id}
        assert await here.store.check() == []

    async def test_a_task_submitted_for_later_is_not_early_after_a_pause(self, here: Peer) -> None:
        due = here.now.wall + 60_000
        id = await make(here, 2, due=due)
        await here.store.hold_batch(id, here.now)
        await settle(here)
        await here.store.hold_batch(id, here.now, held=False)
        await settle(here)
        assert await here.claim(10) == []
        assert await here.store.stage(here.now) == due
        here.clock.advance(61)
        await here.store.stage(here.now)
        assert len(await here.claim(10)) == 2

    async def test_a_cancelled_batch_ends_every_task_and_once(self, here: Peer, there: Peer) -> None:
        id = await make(here, 7)
        waiting_for_later = await put(here, id, [8], due=here.now.wall + 60_000)
        held = await there.claim_one()
        done = await there.claim_one()
        await there.complete(done)
        assert waiting_for_later == 1
        assert (await here.store.cancel_batch(id, here.now, reason="enough")).state is BatchState.CANCELLED
        with pytest.raises(WrongState, match="cancelled"):
            await put(here, id, [9])
        await settle(here)
        assert (await there.complete(held)) is not None
        batch = await look(here, id)
        assert (batch.waiting, batch.running, batch.completed, batch.cancelled) == (0, 0, 1, 7)
        assert await finishes(here, id) == [(1, 0, 7)]
        assert (await here.task(held.task.id)).error == "enough"
        await here.store.retry([held.task.id], here.now)
        assert (await look(here, id)).state is BatchState.RUNNING

    async def test_a_batch_is_removed_with_its_tasks_when_it_has_ended(self, here: Peer, there: Peer) -> None:
        id = await make(here, 5, name="old", seal=True)
        plain = await here.add_one()
        with pytest.raises(WrongState, match="cancel it first"):
            await here.store.drop_batch(id, here.now)
        await here.store.cancel_batch(id, here.now)
        await settle(here)
        tasks = await ids_of(here, id)
        await here.store.drop_batch(id, here.now)
        assert await there.store.batch(id) is None
        await make(there, name="old")
        await settle(here)
        assert [await here.store.get(task) for task in tasks] == [None] * 5
        assert await here.store.get(plain) is not None
        assert (await here.store.counts()).states["cancelled"] == 0
        assert await here.store.check() == []

    async def test_a_finished_batch_stays_what_it_is_when_it_is_cancelled(self, here: Peer) -> None:
        id = await make(here, 1, seal=True)
        await here.complete(await here.claim_one())
        assert (await here.store.cancel_batch(id, here.now, reason="too late")).state is BatchState.FINISHED
        await settle(here)
        assert await finishes(here, id) == [(1, 0, 0)]

    async def test_what_is_made_again_while_its_batch_is_being_removed_is_removed_too(self, here: Peer) -> None:
        id = await make(here, 3, seal=True)
        await here.store.cancel_batch(id, here.now)
        await settle(here)
        tasks = await ids_of(here, id)
        await here.store.drop_batch(id, here.now)
        await here.store.retry(tasks, here.now)
        await here.claim_one()
        await settle(here)
        assert [await here.store.get(task) for task in tasks] == [None] * 3
        assert (await here.store.counts()).total == 0
        assert await here.heads() == []
        assert await here.store.check() == []

    async def test_retention_leaves_a_batch_alone_until_it_has_ended(self, here: Peer) -> None:
        keep = {State.COMPLETED: Retention(age=100.0, count=0)}
        id = await make(here, 3, seal=True)
        await here.complete(await here.claim_one())
        other = new_task("other")
        plain = await here.add_one(other)
        await here.complete((await here.claim(1, lanes=[other.flow.lane]))[0])
        here.clock.advance(1000)
        for _ in range(3):
            await here.store.prune(keep, here.now, chunks=1e9, events=1e9, limit=1)
        assert await here.store.get(plain) is None
        assert (await look(here, id)).pruned == 0
        for claim in await here.claim(2):
            await here.complete(claim)
        by_age = {State.COMPLETED: Retention(age=100.0)}
        await here.store.prune(by_age, here.now, chunks=1e9, events=1e9)
        assert (await look(here, id)).pruned == 0, "ages from the end of the batch"
        here.clock.advance(200)
        assert await here.store.prune(by_age, here.now, chunks=1e9, events=1e9) == 3
        batch = await look(here, id)
        assert (batch.completed, batch.pruned, batch.state) == (3, 3, BatchState.FINISHED)
        assert [item.state for item in await here.store.batch_items(id)] == [None] * 3
        assert await here.store.batch_keys(id, ["k1"]) == {"k1"}
        here.clock.advance(1000)
        await here.store.prune(by_age, here.now, chunks=1e9, events=100.0)
        await settle(here)
        assert await here.store.batch(id) is None
        assert await here.store.check() == []
