"""The whole life of no-op tasks (submit, claim, run, result stored) through one process with 100 slots, against queues on servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import Bench
from measure import Sample, interleaved, median, spread
from processes import ChildFailed, inferq_child
from report import Row, skipped
from subject import SLOTS, Completions, fill, from_coroutines, open_queue, payload, submissions


async def through(path: str, count: int, size: int, bulk: bool) -> Sample:
    """Everything from the first submit until the last result is durable, in one process."""
    async with open_queue(path, work=True) as queue:
        completions = Completions(queue.store)
        cpu, begun = time.process_time(), time.perf_counter()
        if bulk:
            await fill(queue, submissions(count, size))
        else:
            body = payload(size)
            await from_coroutines(count, SLOTS, lambda: queue.submit("echo", "echo", payload=body))
        submitted = time.perf_counter()
        ended = await completions.reach(count)
        spent = time.process_time() - cpu
    return {"per_second": count / (ended - begun), "submit_per_second": count / (submitted - begun), "cpu_us": spent / count * 1e6}
