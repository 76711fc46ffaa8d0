"""The store contract, part fifteen: a store is carried to another place as lines: whole, once, and without what must not leave."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

from typing import Any

import msgspec

from inferq.archive import Item, KeptBatch, KeptRecord, KeptTask, decoded
from inferq.backend import NOTICE, SWITCH
from inferq.batch import BatchState
from inferq.errors import DuplicateKey
from inferq.events import RecordChanged
from inferq.query import Search
from inferq.store import RecordPut
from inferq.task import FINAL, Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.contract_batch import finishes, look, make, settle
from inferq.testing.peer import Peer, new_task


async def archived(peer: Peer, *, keys: bool = False) -> list[Any]:
    """What stands between the first and the last line of the archive."""
    lines = b"".join([piece async for piece in peer.store.export(keys=keys)]).splitlines()
    return [decoded(line) for line in lines[1:-1]]


async def emptied(peer: Peer) -> None:
    """Remove all tasks."""
    tasks = (await peer.store.find(Search(), limit=1000)).tasks
    await peer.store.cancel([task.id for task in tasks if task.state not in FINAL], peer.now)
    await peer.store.delete([task.id for task in tasks], peer.now)


async def restored(peer: Peer, items: list[Item], *, dry_run: bool = False) -> list[bool | str]:
    return await peer.store.restore(items, peer.now, dry_run=dry_run)


class ArchiveContract(ContractBase):
    """`export` and `restore`."""

    async def test_what_was_removed_comes_back_with_states_order_results_and_attempts(self, here: Peer) -> None:
        done, failed = await here.add(new_task(tags=["a"]), new_task(priority=9))
        by_id = {claim.task.id: claim for claim in await here.claim(2)}
        await here.complete(by_id[done], "answer")
        await here.finish(by_id[failed], Outcome.failed("timeout", "too slow", backend="b"))
        first, second = await here.add(new_task("x"), new_task("x"))
        (late,) = await here.add(new_task(due=here.now.wall + 60_000))
        items = await archived(here)
        before = {id: await here.store.get(id) for id in (done, failed, first, second, late)}
        tried = await here.store.attempts(failed)
        await emptied(here)

        assert await restored(here, items) == [True] * 5
        assert await restored(here, items) == [False] * 5

        for id, task in before.items():
            assert task is not None
            assert await here.store.get(id) == msgspec.structs.replace(task, seq=(await self._task(here, id)).seq)
        result = await here.store.result(done)
        assert result is not None
        assert result.text == "answer"
        assert await here.store.attempts(failed) == tried
        assert [claim.task.id for claim in await here.claim(5)] == [first, second]
        here.clock.advance(61)
        await here.store.stage(here.now)
        assert (await here.claim_one()).task.id == late
        assert await here.store.check() == []

    async def test_what_ran_waits_again_and_what_must_not_run_twice_has_failed(self, here: Peer) -> None:
        again, once = await here.add(new_task(), new_task(at_most_once=True))
        assert len(await here.claim(2)) == 2
        items = await archived(here)
        await emptied(here)
        await restored(here, items)
        assert (await self._task(here, again)).state is State.PENDING
        assert ((await self._task(here, once)).state, (await self._task(here, once)).code) == (State.FAILED, "lost")
        assert (await here.claim_one()).attempt == 2

    async def test_a_key_opens_the_same_task_afterwards_and_one_that_is_taken_refuses_its_line_only(self, here: Peer) -> None:
        keyed = await here.add_one(new_task(key="k"))
        await here.add_one()
        items = await archived(here)
        await emptied(here)
        (taker,) = await here.add(new_task(key="k", payload={"prompt": "other"}))
        refused, kept = await restored(here, items)
        assert kept is True
        assert refused == f"its key 'k' is that of task {taker} here"
        assert await here.store.get(keyed) is None
        await emptied(here)
        assert await restored(here, items) == [True, True]
        assert await here.add(new_task(key="k")) == [keyed]
        try:
            await here.add(new_task(key="k", payload={"prompt": "third"}))
        except DuplicateKey:
            return
        raise AssertionError("expected the key to be known")

    async def test_a_batch_comes_back_with_its_lines_and_ends_once_when_its_tasks_have(self, here: Peer) -> None:
        id = await make(here, 4, name="nightly", seal=True)
        await here.complete(await here.claim_one())
        items = await archived(here)
        before = await look(here, id)
        await here.store.cancel_batch(id, here.now)
        await settle(here)
        await here.store.drop_batch(id, here.now)
        await settle(here)
        ends = await finishes(here, id)

        # Bite by bite, with other work in between: it must not be taken for finished.
        for item in items:
            assert await restored(here, [item]) == [True]
            await here.store.cancel([await here.add_one()], here.now)
        assert await look(here, id) == before
        assert await restored(here, items) == [False] * len(items)

        assert [line.key for line in await here.store.batch_items(id)] == ["k1", "k2", "k3", "k4"]
        for claim in await here.claim(3):
            await here.complete(claim)
        assert (await look(here, id)).state is BatchState.FINISHED
        assert await finishes(here, id) == [*ends, (4, 0, 0)]
        assert await here.store.check() == []

    async def test_a_task_whose_batch_is_not_there_is_refused(self, here: Peer) -> None:
        id = await make(here, 1)
        items = await archived(here)
        await emptied(here)
        await here.store.cancel_batch(id, here.now)
        await here.store.drop_batch(id, here.now)
        await settle(here)
        tasks = [item for item in items if not isinstance(item, KeptBatch)]
        refused = await restored(here, tasks)
        assert refused == [f"its batch {id} is not here", f"batch {id} is not here"]

    async def test_a_held_batch_is_held_again(self, here: Peer) -> None:
        id = await make(here, 3, seal=True)
        await here.store.hold_batch(id, here.now)
        items = await archived(here)
        await here.store.cancel_batch(id, here.now)
        await settle(here)
        await here.store.drop_batch(id, here.now)
        await settle(here)
        await restored(here, items)
        assert (await look(here, id)).state is BatchState.PAUSED
        assert await here.claim(5) == []
        await here.store.hold_batch(id, here.now, held=False)
        await settle(here)
        assert len(await here.claim(5)) == 3

    async def test_records_come_without_notices_and_keys_only_when_asked_for(self, here: Peer) -> None:
        key = {"digest": "d", "key": {"id": "k", "name": "team", "role": "read", "created": 1}}
        for kind, id, body in ((NOTICE, "w", b"{}"), ("key", "k", msgspec.json.encode(key)), (SWITCH, "gpu", b'{"state":"disabled"}')):
            await here.store.put_record(RecordPut(kind, id, body), here.now)
        assert [item.type for item in await archived(here)] == ["backend"]
        items = await archived(here, keys=True)
        assert [(item.type, item.id) for item in items] == [("backend", "gpu"), ("key", "k")]
        before = await here.store.record("key", "k")
        for kind, id in (("key", "k"), (SWITCH, "gpu")):
            await here.store.drop_record(kind, id, here.now)
        place = await here.store.last_event()
        assert await restored(here, items) == [True, True]
        assert await here.store.record("key", "k") == before
        told = [event.id for event in await here.store.events(after=place) if isinstance(event, RecordChanged)]
        assert told == ["gpu", "k"]
        assert all(isinstance(item, KeptRecord) for item in items)

    async def test_a_dry_run_says_what_would_come_and_keeps_nothing(self, here: Peer) -> None:
        await make(here, 2, name="n")
        (kept,) = await here.add(new_task())
        items = await archived(here)
        await here.store.cancel([kept], here.now)
        await here.store.delete([kept], here.now)
        place = (await here.store.counts(), await here.store.last_event())
        taken = await restored(here, items, dry_run=True)
        assert [item.id for item, new in zip(items, taken, strict=True) if new is True and isinstance(item, KeptTask)] == [kept]
        assert (await here.store.counts(), await here.store.last_event()) == place

    async def test_compacting_keeps_everything_and_a_dry_run_changes_nothing(self, here: Peer) -> None:
        gone = await here.add(*(new_task(payload={"prompt": "x" * 20_000}) for _ in range(50)))
        kept = await here.add_one()
        await here.store.cancel(gone, here.now)
        await here.store.delete(gone, here.now)
        would = await here.store.compact(dry_run=True)
        done = await here.store.compact()
        assert (would.dry_run, done.dry_run) == (True, False)
        assert done.after <= done.before
        assert (await here.claim_one()).task.id == kept
        assert await here.store.check() == []

    async def _task(self, peer: Peer, id: str) -> Any:
        found = await peer.store.get(id)
        assert found is not None
        return found
