"""400 streams of 50 chunks a second, each kept in the log and followed by a reader, against the same chunks passed on in memory."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median, percentile
from processes import inferq_child
from report import Row
from subject import open_queue

from inferq import Answer, Call, Chunk, Executor

STREAMS, RATE = 400, 50
CPU_GOAL = 30.0
"""Microseconds a chunk, everything in the process included."""
DELAY_GOAL = 100.0
"""Milliseconds from yielding a chunk to a follower's hands, p99."""


class Ticker(Executor):
    """A model that writes at an even pace: each chunk carries the moment at which it was made."""

    actions = ("tick",)

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        async for text in ticks(call.payload["count"]):
            yield Chunk("text", text)
        yield Answer(text="")


async def ticks(count: int) -> AsyncIterator[str]:
    """Moments on a fixed grid that begins at a random phase; a late one does not delay those that follow."""
    begun = time.monotonic() + random.random() / RATE
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        yield f"{time.monotonic_ns():024d}"


# in a process of its own ---------------------------------------------------------------------------------------------


async def through(path: str, seconds: int) -> Sample:
    """Executor, log and 400 followers in one process."""
    count, delays = seconds * RATE, list[float]()
    async with open_queue(path, work=True, slots=STREAMS, executors=[Ticker("tick")]) as queue:
        cpu, begun = time.process_time(), time.perf_counter()
        body = {"count": count}
        handles = await queue.submit_many([{"executor": "tick", "action": "tick", "payload": body, "stream": True} for _ in range(STREAMS)])

        async def follow(handle: Any) -> int:
            seen = 0
            async for text in handle.text_stream():
                delays.append(time.monotonic_ns() - int(text))
                seen += 1
            return seen

        seen = await asyncio.gather(*(follow(handle) for handle in handles))
        spent, took = time.process_time() - cpu, time.perf_counter() - begun
        kept = len(await queue.store.chunks(handles[0].id, limit=count + 10)) - 1
    if set(seen) != {count} or kept != count:
        raise RuntimeError(f"expected {count} chunks in every stream and in the log, got {min(seen)} to {max(seen)} and {kept}")
    return _summary(delays, spent, took)


async def bare(seconds: int) -> Sample:
    """The same source, handed to a reader through a queue in memory; nothing is kept."""
    count, delays = seconds * RATE, list[float]()

    async def write(pipe: asyncio.Queue[str | None]) -> None:
        async for text in ticks(count):
            pipe.put_nowait(text)
        pipe.put_nowait(None)

    async def read(pipe: asyncio.Queue[str | None]) -> None:
        while (text := await pipe.get()) is not None:
            delays.append(time.monotonic_ns() - int(text))

    cpu, begun = time.process_time(), time.perf_counter()
    pipes: list[asyncio.Queue[str | None]] = [asyncio.Queue() for _ in range(STREAMS)]
    await asyncio.gather(*(write(pipe) for pipe in pipes), *(read(pipe) for pipe in pipes))
    return _summary(delays, time.process_time() - cpu, time.perf_counter() - begun)


def _summary(delays: list[float], spent: float, took: float) -> Sample:
    return {
        "cpu_us": spent / len(delays) * 1e6,
        "p50_ms": percentile(delays, 0.5) / 1e6,
        "p99_ms": percentile(delays, 0.99) / 1e6,
        "chunks_per_second": len(delays) / took,
    }


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    seconds = bench.size(1, 6)

    def queued() -> Sample:
        path = bench.place()
        try:
            return inferq_child(__name__, "through", path=path, seconds=seconds)
        finally:
            bench.drop(path)

    samples = interleaved(REPETITIONS, {"queue": queued, "bare": lambda: inferq_child(__name__, "bare", seconds=seconds)})
    mine, other = median(samples["queue"], "cpu_us"), median(samples["bare"], "cpu_us")
    delay, bare_delay = median(samples["queue"], "p99_ms"), median(samples["bare"], "p99_ms")
    rate, p50 = median(samples["queue"], "chunks_per_second"), median(samples["queue"], "p50_ms")
    note = f"{rate:,.0f} of {STREAMS * RATE:,} chunks/s, p50 {p50:.1f} ms; of the CPU, {mine - other:.1f} us are the queue's"
    against, detail = "same chunks in memory", {"samples": samples}
    what, goals = f"{STREAMS} streams x {RATE} chunks/s, log kept", (f"<= {CPU_GOAL:g} us", f"<= {DELAY_GOAL:g} ms")
    met = (mine <= CPU_GOAL, delay <= DELAY_GOAL)
    return [
        Row("streams", f"{what}, CPU a chunk", mine, "us", against, other, other / mine, goals[0], met[0], note, detail),
        Row("streams", f"{what}, to reader p99", delay, "ms", against, bare_delay, bare_delay / delay, goals[1], met[1]),
    ]
