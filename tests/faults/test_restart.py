"""A real server is killed and started again: clients that wait, stream and follow notice nothing but a pause."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from faultkit.served import Served, Streams

from inferq import AsyncClient, AsyncHandle, State
from inferq.testing import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
STREAMS = 12


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.end()


async def test_streams_waits_and_events_go_on_when_the_server_is_killed_and_started_again(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, patience=120) as client:
        streams = await Streams.begin(client, STREAMS, words=40, per_second=25)
        positions: list[int] = []

        async def follow() -> None:
            ended = 0
            async with aclosing(client.events(after=0)) as events:
                async for event in events:
                    positions.append(event.position)
                    ended += event.type == "task.completed"
                    if ended == STREAMS:
                        return

        waiting = [asyncio.create_task(handle.wait()) for handle in streams.handles]
        following = asyncio.create_task(follow())
        await streams.begun()
        served.end(signal.SIGKILL)
        assert streams.running()
        assert not any(task.done() for task in (*waiting, following))
        served.start()
        assert await streams.whole() > 0, "the kill came too late"
        await following
        assert [(await task).state for task in waiting] == [State.COMPLETED] * STREAMS
        assert positions == list(range(1, len(positions) + 1))


async def test_a_submit_into_a_restart_is_kept_once(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, retries=50, timeout=60) as client:
        await client.stats()
        submitted: list[AsyncHandle] = []

        async def submit() -> None:
            for number in range(150):
                handle = await client.submit("echo", "echo", payload={"n": number})
                submitted.extend([handle])

        submitting = asyncio.create_task(submit())
        await wait_until(lambda: len(submitted) >= 30, timeout=60)
        served.end(signal.SIGKILL)
        served.start()
        await submitting
        assert sorted([(await handle.result(timeout=60)).data["n"] for handle in submitted]) == list(range(150))
        assert len({handle.id for handle in submitted}) == (await client.stats()).total == 150


async def test_a_server_that_stops_in_order_ends_its_streams_and_they_go_on_afterwards(served: Served) -> None:
    served.start()
    await served.ready()
    async with AsyncClient(served.url, patience=120) as client:
        streams = await Streams.begin(client, 1, words=40, per_second=25)
        await streams.begun()
        await asyncio.to_thread(served.end, signal.SIGTERM)
        served.start()
        await streams.whole()
