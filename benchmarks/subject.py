"""The queue under test, opened the same way by every scenario: durability `full`, 100 slots, the echo executor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from inferq import AsyncQueue, Executor, Settings, Submission
from inferq.config import StoreSettings, WorkerSettings
from inferq.events import TaskCompleted
from inferq.executors.echo import EchoExecutor
from inferq.store import Change, Store

SLOTS = 100


def open_queue(path: str, *, work: bool, slots: int = SLOTS, executors: Sequence[Executor] = ()) -> AsyncQueue:
    """A queue on that file; no configuration file or environment of the machine is read."""
    url = f"sqlite:///{path}"
    settings = Settings(store=StoreSettings(url=url, durability="full"), worker=WorkerSettings(slots=slots, claim_batch=slots))
    return AsyncQueue(url, settings=settings, work=work, backends=list(executors) or [EchoExecutor("echo")])


def payload(size: int) -> dict[str, Any]:
    """About that many bytes of JSON: a chat as clients send it from 200 bytes on, else one small field."""
    if size < 200:
        return {"text": "x" * max(1, size - 12)}
    return {"messages": [{"role": "user", "content": "x" * (size - 90)}], "temperature": 0.7, "model": "m"}


def submissions(count: int, size: int, *, tenants: int = 1, priorities: int = 1) -> Iterator[Submission]:
    """Echo tasks, spread evenly over tenants and priorities."""
    body = payload(size)
    for number in range(count):
        tenant = f"tenant-{number % tenants}" if tenants > 1 else ""
        yield Submission("echo", "echo", payload=body, tenant=tenant, priority=5 + number // tenants % priorities)


def groups(items: Iterator[Submission], size: int) -> Iterator[list[Submission]]:
    while group := list(islice(items, size)):
        yield group


class Completions:
    """Counts tasks whose result is durable, from the store's own commits."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        self._goals: list[tuple[int, asyncio.Future[float]]] = []
        store.listen(self._hear)

    def _hear(self, change: Change) -> None:
        self.count += sum(type(event) is TaskCompleted for event in change.events)
        for goal in [goal for goal in self._goals if goal[0] <= self.count]:
            self._goals.remove(goal)
            goal[1].set_result(time.perf_counter())

    async def reach(self, count: int) -> float:
        """Wait until so many have completed; the moment at which they had (perf_counter)."""
        if self.count >= count:
            return time.perf_counter()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._goals.append((count, future))
        return await future


async def fill(queue: AsyncQueue, items: Iterator[Submission], *, group: int = 1000) -> int:
    """Submit them all in groups, one after the other."""
    count = 0
    for part in groups(items, group):
        count += len(await queue.submit_many(part))
    return count


async def from_coroutines(count: int, callers: int, call: Callable[[], Any]) -> list[float]:
    """`callers` coroutines that await `call()` again and again, `count` times in all; the seconds that each call took."""
    left = iter(range(count))
    took: list[float] = []

    async def caller() -> None:
        for _ in left:
            begun = time.perf_counter()
            await call()
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took
