"""Places where tasks run, made for tests: calls that wait to be let go, calls that do what the test says, settings with small times."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from inferq import Backend, Call, Executor, Settings, TaskFailed
from inferq.config import RetentionSettings, RetrySettings, StateRetention, StoreSettings, WorkerSettings
from inferq.executor import Produced

HOUR = 3600.0


class Gated(Executor):
    """Each call waits until the test lets it go, by the `name` in its payload; remembers who ran and how many at once."""

    actions = ("work",)

    def __init__(self, name: str = "gated") -> None:
        super().__init__(name)
        self.started: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.most = 0
        self.everybody = False
        self._doors: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def let_go(self, *names: str) -> None:
        for name in names:
            self._doors[name].set()

    def let_all_go(self) -> None:
        self.everybody = True
        self.let_go(*self._doors)

    async def run(self, call: Call) -> Any:
        name = call.payload.get("name", call.task_id)
        door = self._doors[name]
        self.started.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if not self.everybody:
                await door.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.running -= 1
        self.ended.append(name)
        return {"name": name}


class Does(Executor):
    """Does with each call what the test says, and remembers the calls."""

    actions = ("work",)

    def __init__(self, behaviour: Callable[[Call], Produced], name: str = "does") -> None:
        super().__init__(name)
        self.behaviour = behaviour
        self.calls: list[Call] = []

    def run(self, call: Call) -> Produced:
        self.calls.append(call)
        return self.behaviour(call)


def place(executor: Executor, *, kind: str, slots: int | None = None, models: tuple[str, ...] = ()) -> Backend:
    return Backend(executor, kind=kind, slots=slots, models=models)


def tuned(
    *,
    slots: int = 4,
    timeout: float | None = 60.0,
    idle_timeout: float | None = 60.0,
    grace: float = 10.0,
    lease: float = 30.0,
    max_retries: int = 3,
    rescue_interval: float = 10.0,
    lost_limit: int = 3,
    retention: StateRetention | None = None,
    max_queue_size: int | None = None,
    ageing: float | None = None,
    ageing_bound: int = 10,
) -> Settings:
    """Settings under which nothing is found by polling, and a retry comes at once."""
    keep = retention or StateRetention()
    return Settings(
        store=StoreSettings(
            max_queue_size=max_queue_size,
            prune_interval=0.02 if retention else 60.0,
            retention=RetentionSettings(completed=keep, failed=keep, cancelled=keep),
        ),
        worker=WorkerSettings(
            slots=slots,
            lost_limit=lost_limit,
            timeout=timeout,
            idle_timeout=idle_timeout,
            shutdown_grace=grace,
            lease=lease,
            rescue_interval=rescue_interval,
            poll_interval=HOUR,
            ageing=ageing,
            ageing_bound=ageing_bound,
        ),
        retry=RetrySettings(max_retries=max_retries, initial_delay=0.001, max_delay=0.002),
    )


async def failed(queue: Any, does: Executor, **fields: Any) -> TaskFailed:
    """How a task of `does` fails."""
    with pytest.raises(TaskFailed) as caught:
        await (await queue.submit(does.name, "work", **fields)).result(timeout=10)
    return caught.value
