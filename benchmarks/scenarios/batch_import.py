"""A file of JSON lines becomes a batch: read, checked, kept in groups of 500, against the same number of rows straight into SQLite."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import bare
from bench import REPETITIONS, Bench
from measure import Sample, interleaved, median
from processes import inferq_child
from report import Row
from subject import open_queue

GOAL_LINES = 25_000
GOAL_MB = 30.0
GROUP = 500
TEXT = "What is the answer to question number {}? Please explain it in a few words, so that the line is as long as lines are."


# in a process of its own ---------------------------------------------------------------------------------------------


async def load(path: str, count: int) -> Sample:
    """The whole of `from_jsonl` with a prompt template and a key; memory beyond what a file of one line needs."""
    file = _written(Path(f"{path}.jsonl"), count)
    how: dict[str, Any] = {"prompt": "{question}\nAnswer in one line.", "executor": "echo", "model": "m", "key": "id"}
    try:
        async with open_queue(path, work=False) as queue:
            await queue.batches.from_jsonl(b'{"id": 0, "question": "first"}', **how)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            cpu, begun = time.process_time(), time.perf_counter()
            batch = await queue.batches.from_jsonl(file, **how)
            took, used = time.perf_counter() - begun, time.process_time() - cpu
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            if batch.batch.total != count:
                raise RuntimeError(f"expected {count} lines kept, got {batch.batch.total}")
    finally:
        os.unlink(file)
    return {"per_second": count / took, "cpu_us": used / count * 1e6, "grown_mb": grown / 1024}


def _written(file: Path, count: int) -> Path:
    with file.open("w") as lines:
        for number in range(count):
            lines.write(json.dumps({"id": number, "question": TEXT.format(number)}) + "\n")
    return file


def raw(path: str, count: int) -> Sample:
    """SQLite alone."""
    return dict(bare.inserts(path, count, GROUP))


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    count = bench.size(5_000, 100_000)
    samples = interleaved(REPETITIONS, {"raw": lambda: _fresh(bench, "raw", count), "load": lambda: _fresh(bench, "load", count)})
    mine, other = median(samples["load"], "per_second"), median(samples["raw"], "per_second")
    grown, cpu = median(samples["load"], "grown_mb"), median(samples["load"], "cpu_us")
    judged = bench.mode != "quick"
    detail = {"samples": samples["load"]}
    return [
        Row(
            "import", f"batch file of {count:,} lines", mine, "lines/s", f"raw SQLite, groups of {GROUP}", other, mine / other,
            f">= {GOAL_LINES:,}/s", mine >= GOAL_LINES if judged else None, f"CPU {cpu:.0f} us a line, all threads", detail,
        ),
        Row("import", "memory it takes", grown, "MB", goal=f"<= {GOAL_MB:g} MB", met=grown <= GOAL_MB if judged else None),
    ]  # fmt: skip


def _fresh(bench: Bench, function: str, count: int) -> Sample:
    path = bench.place()
    try:
        return inferq_child(__name__, function, path=path, count=count)
    finally:
        bench.drop(path)
