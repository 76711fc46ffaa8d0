"""Backends that refuse, break off, go down and come back at random: every task ends once, and no slot is lost or used twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from places import tuned

from inferq import Backend, Call, Settings
from inferq.config import BreakerSettings, HealthSettings
from inferq.errors import Reject, RetryLater, Unavailable
from inferq.executor import Answer, Chunk, Executor, Health
from inferq.testing import wait_until


class Wild(Executor):
    """Does what its dice say; counts how many calls run at once."""

    actions = ("work",)

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name)
        self.rng = rng
        self.running = 0
        self.most = 0
        self.ok = True
        self.tame = False

    async def run(self, call: Call) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            dice = 1.0 if self.tame else self.rng.random()
            if dice < 0.15:
                raise Unavailable("refused", failure="connect", sent=False)
            if dice < 0.25:
                raise Unavailable("500", failure="server_error")
            if dice < 0.3:
                raise RetryLater("busy", after=0.01)
            if dice < 0.33:
                raise Reject("no such model here", failure="model_not_found") if self.name != "c" else Unavailable("x", failure="timeout")
            yield Chunk("text", "x")
            if dice < 0.4:
                raise Unavailable("cut", failure="connect")
            await asyncio.sleep(0)
            yield Answer(text=self.name)
        finally:
            self.running -= 1

    async def health(self) -> Health:
        return Health(ok=self.ok, detail="down")


def settings() -> Settings:
    base = tuned(slots=12, max_retries=1000)
    return msgspec.structs.replace(base, breaker=BreakerSettings(3, 0.005, 0.02), health=HealthSettings(0.01, 1.0, 1))


@pytest.mark.parametrize("seed", range(6))
async def test_every_task_ends_once_and_every_slot_comes_back(opened: Any, seed: int) -> None:
    rng = random.Random(seed)
    wild = {name: Wild(name, random.Random(seed * 10 + n)) for n, name in enumerate("abc")}
    queue = await opened(
        Backend(wild["a"], kind="k", slots=3, priority=5),
        Backend(wild["b"], kind="k", slots=3),
        Backend(wild["c"], kind="k", slots=3, remote=True),
        settings=settings(),
    )
    wishes = [None, None, None, True, False]
    tasks = [await queue.submit("k", "work", model=rng.choice("mn"), remote=rng.choice(wishes), stream=True) for _ in range(150)]
    await stir(queue, wild, rng)
    for each in wild.values():
        each.ok = each.tame = True
    for name in wild:
        await queue.backends.enable(name)
    ended = await asyncio.gather(*(task.wait(timeout=60) for task in tasks))
    lost = [task for task in ended if task.state != "completed" and task.code != "model_not_found"]
    assert lost == []
    for task in ended:
        attempts = await queue.attempts(task.id)
        assert [attempt.outcome in ("completed", "failed") for attempt in attempts].count(True) == 1
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        names = [one.backend for attempt in attempts for one in attempt.tried]
        assert all(len({one.backend for one in attempt.tried}) == len(attempt.tried) for attempt in attempts), names
    assert all(each.most <= 3 for each in wild.values())
    await wait_until(lambda: all(place.busy == 0 for place in queue.places()))
    executed = await queue.store.executed()
    assert sum(one.completed for one in executed) == sum(task.state == "completed" for task in ended)
    assert all(one.running == 0 for one in executed)


async def stir(queue: Any, wild: dict[str, Wild], rng: random.Random) -> None:
    """Takes backends away and gives them back, while the work goes on."""
    for _ in range(50):
        name = rng.choice(list(wild))
        match rng.randrange(4):
            case 0:
                wild[name].ok = not wild[name].ok
            case 1:
                await queue.backends.drain(name)
            case 2:
                await queue.backends.disable(name)
            case _:
                await queue.backends.enable(name)
        for _ in range(rng.randrange(3)):
            await queue.stats()
