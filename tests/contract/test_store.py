"""The SQLite store keeps the store contract, in a file that two processes share and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferq.clock import Clock
from inferq.store import Store
from inferq.stores import open_store
from inferq.testing import FakeClock, Peer, StoreContract, new_task


class TestSQLiteFile(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "queue.db"

    async def open(self, *, clock: Clock, lease: float, lost_limit: int) -> Store:
        return await open_store(f"sqlite:///{self.path}", clock=clock, lease=lease, lost_limit=lost_limit)

    async def test_a_backup_is_a_store_with_the_same_tasks(self, here: Peer, tmp_path: Path) -> None:
        done = await here.add_one(new_task(key="k"))
        await here.complete(await here.claim_one(), "answer")
        waiting = await here.add(new_task(), new_task(priority=10))
        copy = tmp_path / "copy.db"
        await here.store.backup(copy)
        await here.add(new_task())
        clock = FakeClock()
        store = await open_store(f"sqlite:///{copy}", clock=clock, lease=self.lease, lost_limit=self.lost_limit)
        there = Peer(store, clock)
        try:
            result = await store.result(done)
            assert result is not None
            assert result.text == "answer"
            assert (await store.counts()).total == 3
            assert [claim.task.id for claim in await there.claim(5)] == waiting[::-1]
            assert await there.add(new_task(key="k")) == [done]
            assert await store.check() == []
        finally:
            await store.close()

    async def test_what_ran_when_a_backup_was_taken_waits_again_in_it(self, here: Peer, tmp_path: Path) -> None:
        id = await here.add_one()
        await here.claim_one()
        copy = tmp_path / "copy.db"
        await here.store.backup(copy)
        clock = FakeClock()
        clock.advance(self.lease + 1)
        store = await open_store(f"sqlite:///{copy}", clock=clock, lease=self.lease, lost_limit=self.lost_limit)
        there = Peer(store, clock)
        try:
            assert await store.rescue(there.now) == 1
            assert (await there.claim_one()).task.id == id
        finally:
            await store.close()


class TestSQLiteMemory(StoreContract):
    shared = False

    async def open(self, *, clock: Clock, lease: float, lost_limit: int) -> Store:
        return await open_store("sqlite://:memory:", clock=clock, lease=lease, lost_limit=lost_limit)
