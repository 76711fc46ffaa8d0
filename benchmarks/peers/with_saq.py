"""SAQ on Redis."""

from __future__ import annotations

from typing import Any

from contestant import URL, Contestant, handled, main
from saq import Queue, Worker


class Saq(Contestant):
    async def open(self) -> None:
        self.queue = Queue.from_url(URL)

    async def close(self) -> None:
        await self.queue.disconnect()

    async def put(self, number: int, sent: int, body: str) -> None:
        await self.queue.enqueue("noop", number=number, sent=sent, body=body)

    async def work(self, slots: int) -> None:
        async def noop(_: Any, *, number: int, sent: int, body: str) -> str:
            return handled(number, sent, body)

        await Worker(Queue.from_url(URL), functions=[("noop", noop)], concurrency=slots).start()


main(Saq())
