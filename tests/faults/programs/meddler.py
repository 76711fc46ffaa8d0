"""A meddler: cancels, moves and retries acknowledged tasks at random until it is killed, and writes down what was answered."""

from __future__ import annotations

import asyncio
import random

from _start import arguments, say
from faultkit.history import read_acks
from faultkit.recorder import Log

from inferq import AsyncQueue, WrongState


async def meddle(queue: AsyncQueue, id: str, verb: str, rng: random.Random) -> None:
    match verb:
        case "cancel":
            await queue.cancel(id, reason="meddled")
        case "move":
            await queue.set_priority(id, rng.choice([1, 5, 10]))
        case _:
            await queue.retry(id)


async def main() -> None:
    place, _ = arguments()
    rng = random.Random()
    log = Log(place.changes)
    async with place.queue(work=False) as queue:
        say("ready")
        while True:
            # The newest are most likely still waiting or running.
            ids = [ack.id for ack in read_acks(place.acks)][-20:]
            if ids:
                id, verb = rng.choice(ids), rng.choices(["cancel", "move", "retry"], weights=[5, 4, 1])[0]
                try:
                    await meddle(queue, id, verb, rng)
                except WrongState:
                    log.write(id=id, verb=verb, done=False)
                else:
                    log.write(id=id, verb=verb, done=True)
            await asyncio.sleep(rng.uniform(0.0, 0.05))


asyncio.run(main())
