"""A worker: runs tasks until a signal, and says `ready` once signals are heard."""

from __future__ import annotations

import asyncio
import logging

from _start import arguments, say


async def main() -> None:
    place, _ = arguments()
    async with place.queue(work=True) as queue:
        stopped = asyncio.create_task(queue.run_until_stopped())
        await asyncio.sleep(0)
        say("ready")
        await stopped


logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)d %(name)s %(message)s")
asyncio.run(main())
