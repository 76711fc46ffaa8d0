"""taskiq on Redis streams, results in Redis."""

from __future__ import annotations

from contestant import URL, Contestant, handled, main
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(URL, consumer_id="0").with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))


@broker.task(task_name="noop")
async def noop(number: int, sent: int, body: str) -> str:
    return handled(number, sent, body)


class Taskiq(Contestant):
    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def put(self, number: int, sent: int, body: str) -> None:
        await noop.kiq(number, sent, body)

    async def work(self, slots: int) -> None:
        broker.is_worker_process = True
        await run_receiver_task(broker, max_async_tasks=slots, run_startup=True)


main(Taskiq())
