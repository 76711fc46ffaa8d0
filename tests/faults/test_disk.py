"""A full disk: submits are refused by name, results wait in memory until there is space, and nobody misses what others wrote."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faultkit.children import Start
from faultkit.history import read_contents
from faultkit.place import Place

from inferq import AsyncQueue, StoreError
from inferq.errors import StoreFull
from inferq.task import State
from inferq.testing import wait_until

pytestmark = pytest.mark.faults

MB = 1_000_000


@pytest.fixture
def place(tmp_path: Path, small_disk: Path) -> Place:
    """The store lies on the small disk, the logs of the harness do not."""
    return Place(str(tmp_path), store=str(small_disk / "queue.db"), lease=2.0, rescue_interval=0.1)


@contextmanager
def full(disk: Path, *, room: int = 0) -> Iterator[None]:
    """Fill the disk but for `room` bytes; there is space again at the end."""
    ballast = disk / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        written = 0
        try:
            while True:
                written += os.write(fd, b"\0" * 65_536)
        except OSError:
            os.ftruncate(fd, max(0, written - room))
        yield
    finally:
        os.close(fd)
        ballast.unlink()


async def test_a_submit_on_a_full_disk_is_refused_and_stores_nothing(place: Place, small_disk: Path) -> None:
    async with place.queue(work=False) as queue:
        kept = await queue.submit("record", "do", payload={"n": 0})
        before = await queue.store.last_event()
        with full(small_disk):
            with pytest.raises(StoreFull, match=r"disk.*is full.*nothing.*was stored.*free some space") as refused:
                await _submit_large(queue)
            assert "\n" not in str(refused.value)
            large = [task async for task in queue.iterate() if task.spec.payload.get("pad")]
            assert (await queue.get(kept.id)).state is State.PENDING
        assert await queue.store.last_event() == before + len(large)
        assert await queue.check() == []
        again = await queue.submit("record", "do", payload={"n": 1, "pad": "x" * MB})
        assert (await again.refresh()).state is State.PENDING


async def test_the_result_of_a_running_task_is_written_when_there_is_space_again(
    place: Place, small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = tmp_path / "go-on"
    async with place.queue(work=True) as queue:
        # With chunks, so that the stream's end has to wait for what came before it.
        payload = {"n": 1, "hold": str(hold), "answer_bytes": MB, "chunks": 3}
        handle = await queue.submit("record", "do", payload=payload, stream=True, max_retries=0)
        await wait_until(lambda: _is_running(queue, handle.id), what="it to run")
        with full(small_disk), caplog.at_level(logging.WARNING, logger="inferq.reporter"):
            hold.touch()
            await wait_until(lambda: "reporter.append_failed" in caplog.text, what="the disk to refuse what it streamed")
            assert (await handle.refresh()).state is State.RUNNING
        result = await handle.result(timeout=20)
        assert (len(result.text or ""), result.attempts) == (MB, 1)
        contents = await read_contents(queue)
    assert contents.complaints == []
    assert [record.outcome for record in contents.attempts[handle.id]] == ["completed"]
    assert [entry.chunk.kind for entry in contents.chunks[handle.id]] == ["text", "text", "text", "end"]


async def test_work_goes_on_by_itself_after_the_disk_was_full(place: Place, small_disk: Path) -> None:
    async with place.queue(work=True) as queue:
        with full(small_disk, room=100_000):
            kept, refused = [], 0
            for n in range(200):
                try:
                    kept.append(await queue.submit("record", "do", payload={"n": n, "pad": "x" * 20_000}))
                except StoreFull:
                    refused += 1
            assert refused
        for handle in kept:
            assert (await handle.result(timeout=20)).attempts == 1
        assert await queue.check() == []


async def test_a_waiter_hears_of_another_process_while_its_own_writes_are_refused(place: Place, small_disk: Path, start: Start) -> None:
    async with place.queue(work=False) as queue:
        with start("worker", place).ready():
            handles = [await queue.submit("record", "do", payload={"n": n, "ms": 300}) for n in range(4)]
            waiting = [asyncio.ensure_future(handle.wait(timeout=30)) for handle in handles]
            # Room for what both write in pages of 8 KB, the renewals of their leases twice a second for 20 s included; far from enough for
            # the 4 MB of each refused submit.
            with full(small_disk, room=2_500_000):

                async def ended() -> bool:
                    await _refused(queue, 4 * MB)
                    states = (await queue.stats()).states
                    return states["completed"] == len(handles)

                # Between two refusals the worker must be let in: SQLite's lock is not a queue.
                await wait_until(ended, timeout=20, every=0.05, what="the worker to end them")
            assert [task.state for task in await asyncio.gather(*waiting)] == [State.COMPLETED] * len(handles)


async def test_opening_a_store_on_a_full_disk_is_one_typed_line(place: Place, small_disk: Path) -> None:
    with full(small_disk), pytest.raises(StoreError) as refused:
        async with place.queue(work=False):
            pass
    assert "\n" not in str(refused.value)
    async with place.queue(work=False) as queue:
        assert await queue.check() == []


async def test_a_worker_stops_at_the_second_signal_although_the_disk_is_full(
    place: Place, small_disk: Path, start: Start, tmp_path: Path
) -> None:
    hold = tmp_path / "go-on"
    async with place.queue(work=False) as queue:
        worker = start("worker", place).ready()
        handle = await queue.submit("record", "do", payload={"n": 1, "hold": str(hold), "answer_bytes": MB})
        await wait_until(lambda: _is_running(queue, handle.id), what="it to run")
        with full(small_disk):
            hold.touch()
            await wait_until(lambda: "reporter.finish_failed" in worker.errors, what="the disk to refuse the result")
            worker.terminate()
            worker.terminate()
            await wait_until(lambda: worker.ended() is not None, timeout=20, what="the worker to end")
        hold.touch()
        with start("worker", place).ready():
            assert (await handle.result(timeout=20)).attempts == 2


async def _submit_large(queue: AsyncQueue) -> None:
    """Until it is refused: a file may have room of its own left."""
    for _ in range(20):
        await queue.submit("record", "do", payload={"n": 0, "pad": "x" * MB})


async def _refused(queue: AsyncQueue, size: int = 2 * MB) -> None:
    with pytest.raises(StoreFull):
        await queue.submit("record", "do", payload={"n": 0, "pad": "x" * size})


async def _is_running(queue: AsyncQueue, id: str) -> bool:
    return (await queue.get(id)).state is State.RUNNING
