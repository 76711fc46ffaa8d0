"""A tenant's limit over real worker processes, of which some are killed: judged by the event log, which is the order of commits."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, State
from inferq.events import TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRescued, TaskRetrying, TaskStarted
from inferq.testing import EchoExecutor, wait_until

pytestmark = pytest.mark.faults

PROGRAM = """
import asyncio, sys
from inferq import AsyncQueue, Settings
from inferq.config import WorkerSettings
from inferq.testing import EchoExecutor

async def main():
    settings = Settings(worker=WorkerSettings(slots=6, rescue_interval=0.1, lost_limit=100))
    async with AsyncQueue(sys.argv[1], backends=[EchoExecutor("echo")], settings=settings):
        print("working", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
ENDS = (TaskCompleted, TaskFailed, TaskCancelled, TaskReleased, TaskRescued, TaskRetrying)
LIMITS = {"a": 1, "b": 3}


async def start(url: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    return process


async def kill(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


def asked(tenant: str) -> dict[str, Any]:
    payload = {"messages": [{"role": "user", "content": "x"}], "tokens": 3, "tokens_per_second": 200}
    return {"executor": "echo", "action": "chat", "model": "m", "payload": payload, "tenant": tenant}


async def test_a_tenants_limit_holds_over_processes_that_are_killed_and_nobody_else_waits_for_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    async with AsyncQueue(url, backends=[EchoExecutor("echo")], work=False) as door:
        for tenant, bound in LIMITS.items():
            await door.keys.set_limits(tenant, concurrency=bound)
        processes = [await start(url) for _ in range(3)]
        handles = await door.submit_many([asked("ab free"[n % 4].strip() or "free") for n in range(200)])
        tenants = {handle.id: (await handle.refresh()).flow.tenant for handle in handles}
        try:
            for round_ in range(2):
                await wait_until(lambda: _ended(door, 20 * (round_ + 1)), timeout=30, what="some tasks to end")  # noqa: B023
                await kill(processes.pop(0))
                processes.append(await start(url))
            await wait_until(lambda: _ended(door, len(handles)), timeout=60, what="all tasks to end")
        finally:
            for process in processes:
                await kill(process)
        counts = await door.stats()
        assert counts.states == dict.fromkeys(map(str, State), 0) | {"completed": len(handles)}
        most = await most_at_once(door, tenants)
    for tenant, bound in LIMITS.items():
        assert 1 <= most[tenant] <= bound, most
    assert most["free"] > max(LIMITS.values()), "the tasks without a limit ran side by side"


async def _ended(door: AsyncQueue, count: int) -> bool:
    return (await door.stats()).states["completed"] >= count


async def most_at_once(door: AsyncQueue, tenants: dict[str, str]) -> Counter[str]:
    """The most tasks of each tenant that ran at a time, in the order of commits."""
    running, most = Counter[str](), Counter[str]()
    after = 0
    while events := await door.store.events(after=after):
        for event in events:
            tenant = tenants.get(getattr(event, "task_id", ""))
            if tenant is None:
                continue
            if isinstance(event, TaskStarted):
                running[tenant] += 1
            elif isinstance(event, ENDS):
                running[tenant] -= 1
            most[tenant] = max(most[tenant], running[tenant])
        after = events[-1].position
    return most
