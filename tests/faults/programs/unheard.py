"""A submitter that never hears its reply: the commit happens in the writer's thread while the event loop stands still."""

from __future__ import annotations

import asyncio
import time

from _start import arguments, say


async def main() -> None:
    place, given = arguments()
    async with place.queue(work=False) as queue:
        told = asyncio.create_task(queue.submit("record", "do", payload=given["payload"], key=given["key"]))
        for _ in range(3):
            await asyncio.sleep(0)
        say("ready")
        time.sleep(60)  # noqa: ASYNC251 - the loop must not take the reply
        say(f"heard {(await told).id}")


asyncio.run(main())
