"""A random walk over two workers on one file, which never poll: whatever is asked of them, every task ends and every stream is whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from places import Does, place, tuned

from inferq import Answer, Call, Chunk, Reject, RetryLater, State, Unavailable, WrongState


def moody(rng: random.Random, name: str) -> Does:
    """Full, broken, slow or well, by chance; its words are the attempt's number and an x."""

    async def behaviour(call: Call) -> AsyncIterator[Chunk | Answer]:
        chance = rng.random()
        yield Chunk("text", str(call.attempt))
        if chance < 0.15:
            raise RetryLater("429", after=rng.random() * 0.01)
        if chance < 0.30:
            raise Unavailable("500", failure="server_error")
        if chance < 0.35:
            raise Reject("400")
        if chance < 0.70:
            await asyncio.sleep(rng.random() * 0.01)  # how long it works, not what the test waits for
        yield Chunk("text", "x")
        yield Answer(text="done")

    return Does(behaviour, name)


async def step(rng: random.Random, queue: Any, ids: list[str]) -> None:
    """Ask for one thing by chance."""
    match rng.choice(["submit"] * 5 + ["cancel", "retry", "move", "pause", "rest"]):
        case "submit":
            wanted = [
                {
                    "executor": "moody",
                    "action": "work",
                    "model": rng.choice("kmn"),
                    "priority": rng.randint(0, 9),
                    "stream": rng.random() < 0.5,
                }
                for _ in range(rng.randint(1, 5))
            ]
            ids += [handle.id for handle in await queue.submit_many(wanted)]
        case "cancel":
            await queue.cancel(rng.choice(ids))
        case "retry":
            await queue.retry(rng.choice(ids))
        case "move":
            await queue.set_priority(rng.choice(ids), rng.randint(0, 9))
        case "pause":
            scope = rng.choice(["*", "moody/m"])
            await queue.pause(scope)
            await queue.resume(scope)
        case _:
            await asyncio.sleep(rng.random() * 0.005)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_task_ends_once_and_every_stream_is_whole(opened: Any, tmp_path: Any, seed: int) -> None:
    rng = random.Random(seed)
    queues = []
    for _ in range(2):
        places = [place(moody(rng, "a"), kind="moody", slots=2), place(moody(rng, "b"), kind="moody", slots=3, models=("m", "n"))]
        queues.append(await opened(*places, url=tmp_path / "q.db", settings=tuned(slots=6)))
    first, second = queues
    ids = [(await first.submit("moody", "work", model="k")).id]
    for _ in range(200):
        try:
            await step(rng, rng.choice(queues), ids)
        except WrongState:
            continue
    ended = [await rng.choice(queues).wait(id, timeout=30) for id in ids]
    for task in ended:
        log = [logged async for logged in second.stream(task.id)]
        places_ = [logged.position for logged in log]
        assert places_ == sorted(set(places_))
        assert [logged.chunk for logged in log if logged.chunk.kind == "end"] == [log[-1].chunk] == [Chunk("end", task.state)]
        if task.state is State.COMPLETED and task.spec.stream:
            words = [entry.chunk.text for entry in log if entry.position.attempt == task.attempt and entry.chunk.kind == "text"]
            assert words == [str(task.attempt), "x"]
    stats = await first.stats()
    assert stats.total == len(ids) == stats.states["completed"] + stats.states["failed"] + stats.states["cancelled"]
    assert await first.check() == []
