"""Pages of 50 from a queue of a million tasks, by every kind of filter, against a bare keyset page of the same file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from bench import Bench
from measure import Sample, percentile
from processes import inferq_child
from report import Row
from subject import fill, open_queue, payload

from inferq import AsyncQueue, Submission
from inferq.clock import SystemClock
from inferq.executor import Answer
from inferq.policy import Want
from inferq.task import Outcome

GOAL_MS = 20.0
PAGES = 300
LIMIT = 50
SIZE = 512
SHARE_ENDED = 0.4

INDEXED = (
    "",
    "state:pending",
    "state:failed",
    "state:completed",
    "state:waiting",
    "model:m3",
    "model:m*",
    "tenant:t7 priority:>=high",
    "tag:nightly",
    "tag:rare",
    "key:k700",
    "error:timeout",
    "created:<now",
    "state:failed model:m3",
    "tag:nightly state:pending",
    "state:ended sort:-finished",
)
OTHERS = ("action:echo", "meta.customer:77", '"question 4711"')
"""Without an index a page is bounded in what it looks at, so it may be short: shown, not judged."""
_BARE = """SELECT t.seq, t.id, t.state, t.action, t.estimate, t.created, t.started, t.finished, p.spec
FROM task AS t JOIN payload AS p ON p.seq = t.seq WHERE t.seq < ? ORDER BY t.seq DESC LIMIT ?"""


def various(count: int) -> Iterator[Submission]:
    """Chats of several models, tenants, priorities, tags and keys."""
    body = payload(SIZE)
    for n in range(count):
        yield Submission(
            "echo",
            "echo" if n % 50 == 0 else "chat",
            model=f"m{n % 6}",
            payload={**body, "prompt": f"question {n}"},
            priority=(1, 5, 5, 10)[n % 4],
            tenant=f"t{n % 20}",
            tags=["nightly"] if n % 10 == 0 else ["rare"] if n % 50_000 == 7 else [],
            key=f"k{n}" if n % 7 == 0 else None,
            metadata={"customer": n % 1000},
        )


# in a process of its own ---------------------------------------------------------------------------------------------


async def prepare(path: str, count: int) -> Sample:
    """Fill a file; the oldest of its tasks have ended, a tenth of those badly."""
    begun = time.perf_counter()
    async with open_queue(path, work=False) as queue:
        await fill(queue, various(count))
        await _live(queue, round(count * SHARE_ENDED))
    return {"seconds": time.perf_counter() - begun}


async def _live(queue: AsyncQueue, count: int) -> None:
    clock, ended = SystemClock(), 0
    while ended < count:
        heads, _ = await queue.store.heads()
        (claims,) = await queue.store.claim([Want("slots", (tuple(head.flow for head in heads),), 1000)], clock.read())
        outcomes = [
            (claim, Outcome.completed(Answer(text="done"), backend="gpu") if n % 10 else Outcome.failed("timeout", "slow"))
            for n, claim in enumerate(claims, ended)
        ]
        await queue.store.finish(outcomes, clock.read())
        ended += len(claims)


async def pages(path: str) -> Sample:
    """Milliseconds of each page of each filter, taken in turn, page after page into the depth of the queue."""
    took: dict[str, list[float]] = {text: [] for text in (*INDEXED, *OTHERS)}
    async with open_queue(path, work=False) as queue:
        # The first question opens a connection and reads a cold file: it is not counted.
        await queue.list("state:pending tag:rare")
        for text, times in took.items():
            after = None
            for _ in range(PAGES):
                begun = time.perf_counter()
                page = await queue.list(text, limit=LIMIT, after=after)
                times.append((time.perf_counter() - begun) * 1000)
                after = page.after
    return {"pages": took, "bare": _bare(path)}


def _bare(path: str) -> list[float]:
    """The same from SQLite alone: rows of the newest tasks, by keyset, not even decoded."""
    db = sqlite3.connect(path)
    took, last = [], 2**63 - 1
    for _ in range(PAGES):
        begun = time.perf_counter()
        rows = db.execute(_BARE, (last, LIMIT)).fetchall()
        took.append((time.perf_counter() - begun) * 1000)
        last = rows[-1][0] if rows else 2**63 - 1
    db.close()
    return took


# the comparison ------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    count = bench.size(50_000, 1_000_000)
    path = bench.place()
    try:
        inferq_child(__name__, "prepare", timeout=1800, path=path, count=count)
        found = inferq_child(__name__, "pages", timeout=600, path=path)
    finally:
        bench.drop(path)
    bare = percentile(found["bare"], 0.99)
    rows = []
    for text, times in found["pages"].items():
        worst = percentile(times, 0.99)
        goal = f"<= {GOAL_MS:g} ms" if text in INDEXED else ""
        met = worst <= GOAL_MS if goal and not bench.is_quick else None
        what = f"page of {LIMIT} of {count:,}: {text or 'all'}"
        note = f"p50 {percentile(times, 0.5):.2f} ms"
        rows.append(Row("list", what, worst, "ms p99", "bare keyset page", bare, bare / worst, goal, met, note, {"ms": times}))
    return rows
