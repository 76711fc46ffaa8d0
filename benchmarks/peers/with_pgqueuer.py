"""pgqueuer on Postgres: bulk enqueue, claims and completions in batches. It keeps a log row of a task, not its result."""

from __future__ import annotations

import asyncpg
from contestant import URL, Contestant, handled, main
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

GROUP = 1000


class Pgqueuer(Contestant):
    async def prepare(self) -> None:
        connection = await asyncpg.connect(URL)
        queries = Queries(AsyncpgDriver(connection))
        if await connection.fetchval("SELECT to_regclass('pgqueuer')") is not None:
            await queries.uninstall()
        await queries.install()
        await connection.close()

    async def open(self) -> None:
        self.pool = await asyncpg.create_pool(URL, min_size=4, max_size=16)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))

    async def close(self) -> None:
        await self.pool.close()

    async def put(self, number: int, sent: int, body: str) -> None:
        await self.queries.enqueue("noop", f"{number} {sent} {body}".encode(), 0)

    async def put_all(self, count: int, body: str) -> None:
        for first in range(0, count, GROUP):
            numbers = range(first, min(first + GROUP, count))
            await self.queries.enqueue(["noop"] * len(numbers), [f"{n} 0 {body}".encode() for n in numbers], [0] * len(numbers))

    async def work(self, slots: int) -> None:
        queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))

        @queue.entrypoint("noop")
        async def noop(job: Job) -> None:
            number, sent, body = (job.payload or b"").decode().split(" ", 2)
            handled(int(number), int(sent), body)

        await queue.run(batch_size=slots, max_concurrent_tasks=2 * slots)


main(Pgqueuer())
