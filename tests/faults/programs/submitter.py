"""A submitter: submits its share, and writes down each id only after the submit returned. Started again it goes on where it was."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from _start import arguments
from faultkit.history import read_acks
from faultkit.recorder import Log

from inferq import AsyncQueue, Submission

_AGAIN = 3
"""So many acknowledged tasks are submitted once more after a restart: their keys must lead to the same tasks."""


def submission(seed: int, name: str, number: int) -> Submission:
    """Task `number` of this submitter: the same body at every call."""
    rng = random.Random(f"{seed}-{name}-{number}")
    payload: dict[str, Any] = {"n": number, "ms": rng.randint(0, 25)}
    if rng.random() < 0.3:
        payload["chunks"] = rng.randint(1, 4)
    if rng.random() < 0.2:
        payload["fail"] = rng.choices(["again", "wait", None, "no"], weights=[5, 3, 2, 1], k=rng.randint(1, 3))
    return Submission(
        executor="record",
        action="do",
        model=rng.choice(["m1", "m2"]),
        payload=payload,
        priority=rng.choice([1, 5, 5, 10]),
        tenant=rng.choice(["", "", "acme"]),
        key=f"{name}-{number}",
        at_most_once=rng.random() < 0.08,
        stream="chunks" in payload,
    )


async def submit(queue: AsyncQueue, tasks: list[Submission], log: Log, rng: random.Random) -> None:
    """One of three ways to submit a few tasks."""

    async def alone(task: Submission) -> None:
        (handle,) = await queue.submit_many([task])
        log.write(key=task.key, id=handle.id)

    way = rng.randrange(3)
    if way == 0:
        for handle, task in zip(await queue.submit_many(tasks), tasks, strict=True):
            log.write(key=task.key, id=handle.id)
    elif way == 1:
        await asyncio.gather(*(alone(task) for task in tasks))
    else:
        for task in tasks:
            await alone(task)


async def main() -> None:
    place, given = arguments()
    name, count, seed = given["name"], given["count"], given["seed"]
    known = {ack.key for ack in read_acks(place.acks)}
    mine = [submission(seed, name, number) for number in range(count)]
    missing = [task for task in mine if task.key not in known]
    again = [task for task in mine if task.key in known][-_AGAIN:]
    rng = random.Random()
    log = Log(place.acks)
    async with place.queue(work=False) as queue:
        todo = again + missing
        while todo:
            size = rng.randint(1, 6)
            group, todo = todo[:size], todo[size:]
            await submit(queue, group, log, rng)
            await asyncio.sleep(rng.uniform(0.0, 0.03))


asyncio.run(main())
