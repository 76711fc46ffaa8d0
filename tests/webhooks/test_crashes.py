"""What happens to messages when processes die, or nobody works."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, Settings
from inferq.config import WebhookSettings
from inferq.testing import EchoExecutor, wait_until

ASKED: dict[str, Any] = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "x"}]}}
PROGRAM = """
import asyncio, sys
from inferq import AsyncQueue, Settings
from inferq.config import WebhookSettings
from inferq.testing import EchoExecutor

async def main():
    settings = Settings(webhooks=WebhookSettings(allow_private=True))
    async with AsyncQueue(sys.argv[1], backends=[EchoExecutor("echo")], settings=settings) as queue:
        print("working", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def start(url: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    return process


async def kill(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_events_from_while_nobody_worked_are_told_when_somebody_does(opened: Any, receiver: Any) -> None:
    door = await opened(work=False)
    made = await door.webhooks.put("ops", url=receiver.url, events=["task.submitted"])
    ids = [(await door.submit(**ASKED)).id for _ in range(5)]
    await opened()
    await receiver.until(5)
    assert sorted(message["data"]["task_id"] for message in receiver.messages(made.secret)) == sorted(ids)


@pytest.mark.faults
async def test_a_message_under_way_when_its_process_is_killed_is_delivered_by_another(tmp_path: Path, receiver: Any) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    receiver.held.clear()
    settings = Settings(webhooks=WebhookSettings(allow_private=True))
    async with AsyncQueue(url, backends=[EchoExecutor("echo")], settings=settings, work=False) as door:
        made = await door.webhooks.put("ops", url=receiver.url, events=["task.completed"])
        process = await start(url)
        handle = await door.submit(**ASKED)
        await receiver.until(1)
        await kill(process)
        receiver.held.set()
        second = await start(url)
        try:
            await receiver.until(2)

            async def taken() -> bool:
                (delivery,) = (await door.webhooks.deliveries("ops")).deliveries
                return delivery.state == "completed"

            await wait_until(taken, what="the delivery to be taken")
        finally:
            await kill(second)
    first, again = receiver.messages(made.secret)
    assert first == again
    assert first["data"]["task_id"] == handle.id
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.faults
async def test_however_often_processes_are_killed_every_event_is_told_in_one_message(tmp_path: Path, receiver: Any) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    settings = Settings(webhooks=WebhookSettings(allow_private=True))
    async with AsyncQueue(url, backends=[EchoExecutor("echo")], settings=settings, work=False) as door:
        made = await door.webhooks.put("ops", url=receiver.url, events=["task.submitted", "task.completed"])
        ids: list[str] = []
        for _ in range(4):
            processes = [await start(url), await start(url)]
            ids += [handle.id for handle in await door.submit_many([ASKED] * 25)]
            seen = len(receiver.got)
            await wait_until(lambda seen=seen: len(receiver.got) > seen + 5, what="some messages")
            for process in processes:
                await kill(process)
        last = await start(url)

        async def told() -> set[tuple[str, str]]:
            return {(message["type"], message["data"]["task_id"]) for message in receiver.messages(made.secret)}

        async def all_told() -> bool:
            return len(await told()) == 2 * len(ids)

        await wait_until(all_told, timeout=30, what="every event to be told")
        await kill(last)
    by_event = {(message["type"], message["data"]["task_id"]): set[str]() for message in receiver.messages(made.secret)}
    for (headers, _), message in zip(receiver.got, receiver.messages(made.secret), strict=True):
        by_event[message["type"], message["data"]["task_id"]].add(headers["webhook-id"])
    # A receiver may hear a message twice, and knows it by its id: no event is told under two ids.
    assert {len(found) for found in by_event.values()} == {1}
    assert {id for _, id in by_event} == set(ids)
