"""Claims one task by hand, waits for a line, then writes with that claim and prints what the store said to each write."""

from __future__ import annotations

import asyncio
import sys

from _start import arguments, say

from inferq.clock import SystemClock
from inferq.executor import Answer, Chunk
from inferq.policy import Want
from inferq.stores import open_store
from inferq.task import Outcome


async def main() -> None:
    place, _ = arguments()
    clock = SystemClock()
    store = await open_store(place.url, lease=place.lease, lost_limit=place.lost_limit)
    heads, _ = await store.heads()
    ((claim,),) = await store.claim([Want("record", (tuple(head.flow for head in heads),), 1)], clock.read())
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    late = Outcome.completed(Answer(data={"late": True}))
    for items in (store.append([(claim, [Chunk("text", "late")])], clock.read()), store.finish([(claim, late)], clock.read())):
        (refused,) = await items
        say(refused.reason if refused is not None else "accepted")
    await store.close()


asyncio.run(main())
