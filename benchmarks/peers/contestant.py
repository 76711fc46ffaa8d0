"""What every peer's program can do: `prepare`, `work SLOTS`, `produce COUNT SIZE`, `probe COUNT`. The peer says how it sends and works.

BENCH_BOARD is the board's file, BENCH_URL the server's address. Standard library only: it runs in each peer's own environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

from board import Board

CALLERS = 100

board = Board(os.environ["BENCH_BOARD"])
URL = os.environ["BENCH_URL"]


def handled(number: int, sent: int, body: str) -> str:
    """What every handler does: note that it ran, give back what it got."""
    board.hit(number, sent)
    return body


class Contestant:
    """Override what differs. A contestant sends from 100 coroutines unless it has a bulk call."""

    async def prepare(self) -> None:
        """Make the server ready for a new measurement."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, number: int, sent: int, body: str) -> None:
        raise NotImplementedError

    async def put_all(self, count: int, body: str) -> None:
        left = iter(range(count))

        async def caller() -> None:
            for number in left:
                await self.put(number, 0, body)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def work(self, slots: int) -> None:
        """Run tasks until ended from outside."""
        raise NotImplementedError

    async def produce(self, count: int, size: int) -> dict[str, float]:
        await self.open()
        body = json.dumps({"x": "x" * max(1, size - 9)})
        board.begin()
        begun = time.perf_counter()
        await self.put_all(count, body)
        took = time.perf_counter() - begun
        await self.close()
        return {"submit_per_second": count / took}

    async def probe(self, count: int) -> dict[str, float]:
        await self.open()
        for number in range(count):
            await asyncio.sleep(random.uniform(0.01, 0.06))
            await self.put(number, time.monotonic_ns(), "{}")
        await asyncio.sleep(0.3)
        await self.close()
        return {"sent": count}


def main(contestant: Contestant) -> None:
    verb, *numbers = sys.argv[1:]
    call = getattr(contestant, verb)(*map(int, numbers))
    try:
        from uvloop import run
    except ImportError:
        run = asyncio.run
    print(json.dumps(run(call)), flush=True)
