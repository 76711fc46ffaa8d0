"""The store contract, part eight: questions tell the truth, pages and cursors lose nothing, and the store can be copied and closed."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from inferq.errors import StoreClosed
from inferq.query import Search
from inferq.task import Outcome, State
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, by_state, new_task


async def some_of_each(here: Peer) -> None:
    """Tasks in every state, in several lanes, at several priorities."""
    for n, state in enumerate(State):
        priority = (1, 5, 10)[n % 3]
        for m in range(n + 1):
            task = new_task(f"model-{m % 2}", priority=priority, tenant=f"t{m % 2}")
            if state in (State.COMPLETED, State.FAILED, State.CANCELLED):
                await here.ended(state)
            elif state is State.SCHEDULED:
                await here.add(new_task(due=here.now.wall + 60_000))
            else:
                await here.add(task)
    await here.claim(3)


class AskContract(ContractBase):
    """Get, find, counts, events; backup, check, stats, close."""

    async def test_what_its_operations_took_is_counted_by_name(self, here: Peer) -> None:
        before = {name: times.count for name, times in here.store.spent().items()}
        await here.add_one()
        after = here.store.spent()
        for name in ("add", "commit", "begin"):
            assert after[name].count > before.get(name, 0)
            assert after[name].cumulated()[-1] == (float("inf"), after[name].count)
            assert 0 <= after[name].sum < 60

    async def test_unknown_ids_are_none_and_empty(self, here: Peer) -> None:
        assert await here.store.get("nothing") is None
        assert await here.store.result("nothing") is None
        assert await here.store.attempts("nothing") == []

    async def test_a_new_store_is_empty(self, here: Peer) -> None:
        assert await here.store.heads() == ([], frozenset())
        assert await here.store.last_event() == 0
        assert await here.events() == []
        counts = await here.store.counts()
        assert (counts.total, counts.pending_by_lane, counts.pending_by_priority) == (0, {}, {})
        page = await here.store.find(Search())
        assert (page.tasks, page.after) == ([], None)

    # ── find ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_the_newest_come_first(self, here: Peer) -> None:
        ids = await here.add(*(new_task(priority=n) for n in range(5)))
        page = await here.store.find(Search())
        assert [task.id for task in page.tasks] == ids[::-1]
        assert page.tasks == [await here.task(id) for id in ids[::-1]]

    # ── counters and events ─────────────────────────────────────────────────────────────────────────────────────────

    async def test_counters_tell_what_the_tasks_are(self, here: Peer) -> None:
        await some_of_each(here)
        tasks = (await here.store.find(Search(), limit=1000)).tasks
        counts = await here.store.counts()
        assert {state: count for state, count in counts.states.items() if count} == by_state(tasks)
        assert counts.total == len(tasks)
        pending = [task for task in tasks if task.state is State.PENDING]
        assert counts.pending_by_priority == Counter(task.priority for task in pending)
        assert counts.pending_by_lane == Counter(task.flow.lane for task in pending)

    async def test_events_have_rising_positions_without_gaps(self, here: Peer) -> None:
        await some_of_each(here)
        await asyncio.gather(*(here.add(new_task(), new_task()) for _ in range(10)))
        positions = [event.position for event in await here.events()]
        assert positions == list(range(1, len(positions) + 1))
        assert await here.store.last_event() == positions[-1]

    async def test_events_are_read_in_pages_after_a_cursor(self, here: Peer) -> None:
        await some_of_each(here)
        whole = await here.events()
        read, after = [], 0
        while page := await here.store.events(after=after, limit=7):
            assert len(page) <= 7
            read += page
            after = page[-1].position
        assert read == whole
        for cut in (1, 3, len(whole) - 1):
            assert await here.store.events(after=whole[cut].position, limit=1000) == whole[cut + 1 :]

    async def test_listeners_hear_every_event_once_and_in_order(self, here: Peer) -> None:
        await some_of_each(here)
        whole = await here.events()

        def heard() -> list[int]:
            return [event.position for change in here.changes for event in change.events]

        await here.heard(lambda: len(heard()) >= len(whole))
        assert [event for change in here.changes for event in change.events] == whole

    async def test_every_life_is_told_step_by_step(self, here: Peer) -> None:
        id = await here.add_one(new_task(due=here.now.wall + 1000))
        here.clock.advance(1)
        await here.store.stage(here.now)
        await here.reprioritize(id, 10)
        await here.finish(await here.claim_one(), Outcome.released())
        await here.finish(await here.claim_one(), Outcome.retry(here.now.wall + 1000, code="timeout", error="slow"))
        here.clock.advance(1)
        await here.store.stage(here.now)
        await here.finish(await here.claim_one(), Outcome.failed("timeout", "slow"))
        await here.retry(id)
        await here.complete(await here.claim_one())
        assert await here.event_types(id) == [
            "task.submitted",
            "task.staged",
            "task.priority",
            "task.started",
            "task.released",
            "task.started",
            "task.retrying",
            "task.staged",
            "task.started",
            "task.failed",
            "task.retried",
            "task.started",
            "task.completed",
        ]

    # ── the store itself ────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_store_in_order_has_nothing_to_report(self, here: Peer) -> None:
        await some_of_each(here)
        assert await here.store.check() == []

    async def test_statistics_count_what_is_there(self, here: Peer) -> None:
        await some_of_each(here)
        stats = await here.store.stats()
        assert stats.tasks == (await here.store.counts()).total
        assert stats.last_event == await here.store.last_event()
        assert stats.instances == 1
        assert stats.schema >= 1
        assert stats.url
        assert stats.durability

    async def test_a_backup_is_written_while_work_goes_on(self, here: Peer, tmp_path: Path) -> None:
        await some_of_each(here)
        copy = tmp_path / "copy.db"
        await asyncio.gather(here.store.backup(copy), *(here.add(new_task()) for _ in range(20)))
        assert copy.stat().st_size > 0
        assert await here.store.check() == []

    async def test_closing_twice_is_closing_once_and_work_after_it_is_refused(self, here: Peer) -> None:
        id = await here.add_one()
        await here.store.close()
        await here.store.close()
        with pytest.raises(StoreClosed):
            await here.add(new_task())
        with pytest.raises(StoreClosed):
            await here.store.get(id)

    async def test_what_was_submitted_before_closing_is_carried_out(self, here: Peer) -> None:
        adds = [asyncio.ensure_future(here.add(new_task())) for _ in range(10)]
        await asyncio.sleep(0)  # the coroutines hand their commands over
        await here.store.close()
        assert all(len(ids) == 1 for ids in await asyncio.gather(*adds))
