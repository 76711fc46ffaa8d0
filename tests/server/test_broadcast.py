"""One follower of the log for all listeners: nobody misses an event, however slow, and nobody is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferq import AsyncQueue, Submission
from inferq.errors import StoreClosed
from inferq.server.broadcast import Broadcast, as_items
from inferq.testing import EchoExecutor, wait_until


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[AsyncQueue]:
    async with AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", backends=[EchoExecutor("echo")], work=False) as opened:
        yield opened


def positions(content: bytes) -> list[int]:
    return [event["position"] for event in msgspec.json.decode(b"[" + content + b"]")]


async def submit(queue: AsyncQueue, count: int) -> None:
    await queue.submit_many([Submission("echo", "echo", payload={"text": "x"}) for _ in range(count)])


async def test_a_listener_that_falls_behind_is_told_and_misses_nothing(queue: AsyncQueue) -> None:
    broadcast = Broadcast(queue)
    async with aclosing(broadcast.listen((), None, as_items)) as blocks:
        first = (await anext(blocks)).place
        await submit(queue, 10)
        seen = positions((await anext(blocks)).content)
        for _ in range(10):
            await submit(queue, 1000)  # more than is held in memory, while nobody takes anything
        last = await queue.store.last_event()
        await wait_until(lambda: broadcast._last == last)
        behind = 0
        while not seen or seen[-1] < last:
            block = await anext(blocks)
            behind += block.behind
            seen += positions(block.content)

    assert seen == list(range(first + 1, last + 1))
    assert behind == broadcast.resynchronised == 1


async def test_an_event_is_encoded_once_however_many_listen(queue: AsyncQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    from inferq.server import broadcast as module

    encoded: list[int] = []
    real = module.frame_of

    def counting(event: Any) -> Any:
        encoded.append(event.position)
        return real(event)

    monkeypatch.setattr(module, "frame_of", counting)
    broadcast = Broadcast(queue)

    async def listen() -> list[int]:
        found: list[int] = []
        async with aclosing(broadcast.listen((), None, as_items)) as blocks:
            async for block in blocks:
                found += positions(block.content)
                if len(found) >= 50:
                    break
        return found

    listeners = [asyncio.create_task(listen()) for _ in range(100)]
    await wait_until(lambda: broadcast.listeners == 100)
    await wait_until(lambda: broadcast._task is not None and broadcast._starting is not None and broadcast._starting.done())
    await asyncio.sleep(0)
    for _ in range(50):
        await submit(queue, 1)
    found = await asyncio.gather(*listeners)

    assert all(one == found[0] for one in found)
    assert sorted(encoded) == sorted(set(encoded))


async def test_a_position_of_another_store_is_no_endless_silence(queue: AsyncQueue) -> None:
    await submit(queue, 3)
    async with aclosing(Broadcast(queue).listen((), 10_000, as_items)) as blocks:
        first = await anext(blocks)
        await submit(queue, 1)
        following = await anext(blocks)

    assert (first.behind, first.place) == (True, 3)
    assert positions(following.content) == [4]


async def test_nothing_runs_when_nobody_listens_and_listening_begins_again(queue: AsyncQueue) -> None:
    broadcast = Broadcast(queue)
    before = len(asyncio.all_tasks())
    for _ in range(3):
        async with aclosing(broadcast.listen((), None, as_items)) as blocks:
            await anext(blocks)
            await submit(queue, 1)
            assert len(positions((await anext(blocks)).content)) == 1
        assert broadcast.listeners == 0
        assert len(asyncio.all_tasks()) == before


async def test_listeners_are_told_when_the_queue_closes(queue: AsyncQueue) -> None:
    async with aclosing(Broadcast(queue).listen((), None, as_items)) as blocks:
        await anext(blocks)
        waiting = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0)
        await queue.close()
        with pytest.raises(StoreClosed):
            await waiting
