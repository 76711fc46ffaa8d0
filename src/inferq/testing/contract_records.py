"""The store contract, part ten: records are put by version, and tasks are added with a record or not at all."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio

import pytest

from inferq.access import AuditEntry
from inferq.errors import DuplicateKey, QueueFull, StaleRecord
from inferq.events import Event, QueuePaused, RecordChanged, ScheduleFired, ScheduleSkipped
from inferq.store import RecordPut
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


class RecordContract(ContractBase):
    """Small objects that change rarely."""

    async def test_a_record_is_found_as_it_was_put_and_each_change_is_a_version(self, here: Peer) -> None:
        assert await here.store.record("schedule", "daily") is None
        first = await here.store.put_record(RecordPut("schedule", "daily", b'{"n":1}'), here.now)
        assert (first.version, first.created, first.updated) == (1, here.now.wall, here.now.wall)
        here.clock.advance(5)
        second = await here.store.put_record(RecordPut("schedule", "daily", b'{"n":2}', version=1), here.now)
        assert (second.version, second.created, second.updated, second.body) == (2, first.created, here.now.wall, b'{"n":2}')
        assert await here.store.record("schedule", "daily") == second

    async def test_a_put_that_names_another_version_is_refused_and_changes_nothing(self, here: Peer) -> None:
        kept = await here.store.put_record(RecordPut("key", "k", b"1", version=0), here.now)
        for version in (0, 2, 7):
            with pytest.raises(StaleRecord, match="key 'k'"):
                await here.store.put_record(RecordPut("key", "k", b"2", version=version), here.now)
        with pytest.raises(StaleRecord, match="not there"):
            await here.store.put_record(RecordPut("key", "new", b"2", version=1), here.now)
        assert await here.store.records("key") == [kept]

    async def test_records_of_a_kind_come_by_id_in_pages(self, here: Peer) -> None:
        for name in ("b", "a", "c", "d"):
            await here.store.put_record(RecordPut("hook", name, b"{}"), here.now)
        await here.store.put_record(RecordPut("key", "a", b"{}"), here.now)
        page = await here.store.records("hook", limit=3)
        assert [record.id for record in page] == ["a", "b", "c"]
        assert [record.id for record in await here.store.records("hook", after=page[-1].id, limit=3)] == ["d"]

    async def test_a_dropped_record_is_gone_and_may_be_new_again(self, here: Peer) -> None:
        await here.store.put_record(RecordPut("key", "k", b"1"), here.now)
        with pytest.raises(StaleRecord):
            await here.store.drop_record("key", "k", here.now, version=4)
        assert await here.store.drop_record("key", "k", here.now, version=1) is True
        assert await here.store.drop_record("key", "k", here.now) is False
        assert (await here.store.put_record(RecordPut("key", "k", b"2", version=0), here.now)).version == 2

    async def test_a_version_never_stands_for_two_records(self, here: Peer) -> None:
        first = await here.store.put_record(RecordPut("key", "k", b"1"), here.now)
        for body in (b"2", b"3"):
            first = await here.store.put_record(RecordPut("key", "k", body, version=first.version), here.now)
        await here.store.drop_record("key", "k", here.now)
        await here.store.drop_record("key", (await here.store.put_record(RecordPut("key", "other", b""), here.now)).id, here.now)
        again = await here.store.put_record(RecordPut("key", "k", b"new", version=0), here.now)
        assert again.version > first.version
        for stale in range(1, first.version + 1):
            with pytest.raises(StaleRecord):
                await here.store.put_record(RecordPut("key", "k", b"stale", version=stale), here.now)
            with pytest.raises(StaleRecord):
                await here.store.drop_record("key", "k", here.now, version=stale)
            with pytest.raises(StaleRecord):
                await here.store.add([new_task()], here.now, guard=RecordPut("key", "k", b"stale", version=stale))
        assert await here.store.record("key", "k") == again
        assert (await here.store.put_record(RecordPut("schedule", "k", b""), here.now)).version == 1, "each kind counts for itself"

    async def test_events_are_written_with_a_record_and_a_task_or_not_at_all(self, here: Peer) -> None:
        def told(name: str) -> list[Event]:
            return [ScheduleFired(schedule=name, fire=7), ScheduleSkipped(schedule=name, fire=6, reason="late")]

        await here.store.put_record(RecordPut("schedule", "put", b"1", version=0), here.now, told=told("put"))
        await here.store.add([new_task()], here.now, guard=RecordPut("schedule", "add", b"1", version=0), told=told("add"))
        with pytest.raises(StaleRecord):
            await here.store.put_record(RecordPut("schedule", "put", b"2", version=0), here.now, told=told("stale put"))
        with pytest.raises(StaleRecord):
            await here.store.add([new_task()], here.now, guard=RecordPut("schedule", "add", b"2", version=0), told=told("stale add"))
        with pytest.raises(QueueFull):
            await here.store.add([new_task()], here.now, limit=1, told=told("full"))
        logged = await here.store.events()
        assert [event.schedule for event in logged if isinstance(event, ScheduleFired | ScheduleSkipped)] == ["put", "put", "add", "add"]
        assert {event.at for event in logged} == {here.now.wall}
        assert [event.position for event in logged] == list(range(1, len(logged) + 1))

    async def test_every_change_of_a_record_is_an_event_without_its_body(self, here: Peer) -> None:
        before = await here.store.last_event()
        await here.store.put_record(RecordPut("key", "k", b'"secret"'), here.now)
        await here.store.drop_record("key", "k", here.now)
        told = [event for event in await here.store.events(after=before) if isinstance(event, RecordChanged)]
        assert [(event.kind, event.id, event.version, event.dropped) for event in told] == [("key", "k", 1, False), ("key", "k", 1, True)]

    async def test_of_many_who_put_the_same_version_one_wins(self, here: Peer) -> None:
        await here.store.put_record(RecordPut("schedule", "s", b"0"), here.now)
        puts = (here.store.put_record(RecordPut("schedule", "s", b"%d" % n, version=1), here.now) for n in range(20))
        replies = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(not isinstance(reply, StaleRecord) for reply in replies) == 1

    async def test_tasks_are_kept_together_with_their_guard(self, here: Peer) -> None:
        task = new_task()
        await here.store.add([task], here.now, guard=RecordPut("schedule", "s", b"1", version=0))
        assert (await here.task(task.id)).id == task.id
        again = new_task()
        with pytest.raises(StaleRecord):
            await here.store.add([again], here.now, guard=RecordPut("schedule", "s", b"2", version=0))
        assert await here.store.get(again.id) is None
        kept = await here.store.record("schedule", "s")
        assert kept is not None
        assert kept.body == b"1"

    async def test_a_guard_is_not_put_when_its_tasks_are_refused(self, here: Peer) -> None:
        await here.add(new_task(key="k"))
        with pytest.raises(DuplicateKey):
            await here.store.add([new_task("other", key="k")], here.now, guard=RecordPut("schedule", "s", b"1"))
        with pytest.raises(QueueFull):
            await here.store.add([new_task()], here.now, limit=1, guard=RecordPut("schedule", "s", b"1"))
        assert await here.store.record("schedule", "s") is None

    async def test_two_processes_with_the_same_guard_keep_one_task(self, here: Peer, there: Peer) -> None:
        await here.store.put_record(RecordPut("schedule", "s", b"0"), here.now)
        adds = [peer.store.add([new_task()], peer.now, guard=RecordPut("schedule", "s", b"1", version=1)) for peer in (here, there)]
        replies = await asyncio.gather(*adds, return_exceptions=True)
        assert sorted(type(reply).__name__ for reply in replies) == ["StaleRecord", "list"]
        assert (await here.store.counts()).states["pending"] == 1

    async def test_told_events_stand_in_the_log_with_the_time_of_telling(self, here: Peer) -> None:
        before = await here.store.last_event()
        await here.store.tell([QueuePaused(scope="x"), QueuePaused(scope="y")], here.now)
        told = await here.store.events(after=before)
        assert [(event.position, event.at) for event in told] == [(before + 1, here.now.wall), (before + 2, here.now.wall)]

    async def test_the_audit_log_is_read_newest_first_in_pages(self, here: Peer) -> None:
        for number in range(5):
            here.clock.advance(1)
            await here.store.add_audit([entry(f"t{number}")], here.now, age=3600, count=100)
        page = await here.store.audit(limit=3)
        assert [found.targets for found in page] == [("t4",), ("t3",), ("t2",)]
        assert (page[0].at, page[0].who, page[0].code) == (here.now.wall, "ci", "forbidden")
        assert [found.targets for found in await here.store.audit(before=page[-1].number)] == [("t1",), ("t0",)]

    async def test_the_audit_log_is_bounded_by_number_and_age(self, here: Peer) -> None:
        for number in range(20):
            await here.store.add_audit([entry(f"t{number}")], here.now, age=3600, count=5)
        assert [found.targets for found in await here.store.audit()] == [(f"t{number}",) for number in range(19, 14, -1)]
        here.clock.advance(3601)
        await here.store.add_audit([entry("last")], here.now, age=3600, count=5)
        assert [found.targets for found in await here.store.audit()] == [("last",)]


def entry(target: str) -> AuditEntry:
    return AuditEntry(who="ci", key="k1", method="POST", route="/api/tasks", targets=(target,), status=403, code="forbidden")
