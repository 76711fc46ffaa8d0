"""huey on Redis, ten threads (more make it slower); its client is synchronous, so one caller sends one task after the other."""

from __future__ import annotations

from contestant import URL, Contestant, handled, main
from huey import RedisHuey

THREADS = 10

huey = RedisHuey("bench", url=URL)


@huey.task(name="noop")
def noop(number: int, sent: int, body: str) -> str:
    return handled(number, sent, body)


class Huey(Contestant):
    async def put(self, number: int, sent: int, body: str) -> None:
        noop(number, sent, body)

    async def put_all(self, count: int, body: str) -> None:
        for number in range(count):
            noop(number, 0, body)

    async def work(self, slots: int) -> None:
        huey.create_consumer(workers=min(slots, THREADS), worker_type="thread", periodic=False).run()


main(Huey())
