"""How SQLite runs each statement of the store: by an index, never by reading every task, never by sorting in a temporary tree."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from inferq.query import parse, search
from inferq.store import Position
from inferq.stores import open_store
from inferq.stores.sqlite import files, listing, reads
from inferq.stores.sqlite.conditions import Flows
from inferq.stores.sqlite.statements import SQL
from inferq.task import Submission

SMALL = {"instance", "pause", "meta", "counter"}
"""Tables whose size does not grow with the work."""


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "queue.db"
    await (await open_store(f"sqlite:///{path}")).close()
    return path


@pytest.fixture
def db(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file)
    yield connection
    connection.close()


def bare(statement: str) -> str:
    """Without comments, which may hold question marks."""
    return re.sub(r"--[^\n]*", "", statement)


def plan_of(db: sqlite3.Connection, statement: str) -> list[str]:
    text = bare(statement)
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))]


def faults(plan: list[str], statement: str) -> list[str]:
    """The steps of a plan that cost more than their answer. What a LIMIT ends may walk along an index or the sequence numbers; values
    that the statement brought with it may be read through."""
    bounded = "LIMIT" in bare(statement).upper()
    brought = {"CONSTANT"} | {step.split()[1] for step in plan if step.startswith("MATERIALIZE")}
    found = [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step]
    scans = [step for step in plan if step.startswith("SCAN") and step.split()[1] not in SMALL | brought]
    return found + [step for step in scans if not bounded]


WALKS = {
    "waiting_flows",
    "stage_stepped",
    "held_batches",
    "running_on",
    "running_tenants",
    "batch_counts",
    "archive_batches",
    "archive_tasks",
}
"""Statements that read all of a kind because all are wanted: waiting flows, running tasks, scheduled ones after a step of the clock, how
batches stand, and for an archive everything."""


SUMS = {"batch_failures"}
"""Statements that group what an index has found, asked by people and seldom."""


@pytest.mark.parametrize("name", sorted(set(SQL) - WALKS - SUMS))
def test_a_statement_reads_no_more_than_it_needs(db: sqlite3.Connection, name: str) -> None:
    plan = plan_of(db, SQL[name])
    assert faults(plan, SQL[name]) == [], plan


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("waiting_flows", "flow_waiting"),
        ("stage_stepped", "task_due"),
        ("running_on", "task_running"),
        ("running_tenants", "task_running"),
        ("batch_counts", "batch_stands"),
    ],
)
def test_a_statement_that_wants_all_reads_only_their_index(db: sqlite3.Connection, name: str, index: str) -> None:
    step, *rest = plan_of(db, SQL[name])
    assert f"USING INDEX {index}" in step or f"USING COVERING INDEX {index}" in step
    assert all(each.startswith("SEARCH") for each in rest)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("claim", "task_ready"),
        ("head", "task_ready"),
        ("stage", "task_due"),
        ("next_due", "task_due"),
        ("expired", "task_expires"),
        ("running_of", "task_running"),
        ("oldest_completed", "task_completed"),
        ("oldest_failed", "task_failed"),
        ("oldest_cancelled", "task_cancelled"),
        ("flows_since", "flow_version"),
    ],
)
def test_a_hot_statement_uses_the_index_made_for_it(db: sqlite3.Connection, name: str, index: str) -> None:
    assert any(f"INDEX {index}" in step for step in plan_of(db, SQL[name]))


QUESTIONS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "get": partial(reads.get, id="x"),
    "result": partial(reads.result, id="x"),
    "attempts": partial(reads.attempts, id="x"),
    "chunks": partial(reads.chunks, id="x", after=Position(), limit=10),
    "events": partial(reads.events, after=5, limit=10),
    "last_event": reads.last_event,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_sorts_nothing(db: sqlite3.Connection, question: str) -> None:
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    QUESTIONS[question](db)
    db.set_trace_callback(None)
    selects = [statement for statement in asked if bare(statement).lstrip().upper().startswith("SELECT")]
    assert selects
    for statement in selects:
        plan = plan_of(db, statement)
        assert not [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step], plan
        assert not [step for step in plan if step.startswith("SCAN") and "USING" not in step and step.split()[1] not in SMALL], plan


def test_counts_read_counters_and_waiting_flows_and_no_task(db: sqlite3.Connection) -> None:
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    reads.counts(db)
    db.set_trace_callback(None)
    assert asked
    assert not [statement for statement in asked if re.search(r"\btask\b", statement)]


# ── listings ────────────────────────────────────────────────────────────────────────────────────────────────────────

INDEXED = [
    "",
    "state:running",
    "state:pending",
    "state:scheduled",
    "state:failed",
    "state:ended",
    "state:waiting",
    "tag:nightly",
    "tag:night*",
    "batch:b1",
    "schedule:daily",
    "model:m1",
    "model:m*",
    "executor:echo priority:>=high",
    "tenant:t1",
    "size:low",
    "error:timeout",
    "error:*",
    "key:k7",
    "id:019",
    "created:>2026-01-01",
    "created:<2026-01-01",
    "state:failed model:m4",
    "sort:created",
    "state:ended sort:-finished",
    "state:failed finished:>-1h sort:finished",
    "state:scheduled sort:scheduled",
]
UNINDEXED = ["meta.customer:7", '"some words"', "action:embed", "backend:gpu", "wait:>1h", "run:<1s", "-tag:*", "key:k*", "deadline:<now"]


def asked_for(db: sqlite3.Connection, text: str, *, now: int = 0) -> list[str]:
    """The statements that a page of this filter needs."""
    asked: list[str] = []
    db.isolation_level = None
    db.set_trace_callback(asked.append)
    listing.find(db, Flows(), search(parse(text), now), None, 10)
    db.set_trace_callback(None)
    return [statement for statement in asked if bare(statement).lstrip().upper().startswith("SELECT")]


@pytest.mark.parametrize("text", [*INDEXED, *UNINDEXED])
def test_a_listing_sorts_nothing_and_walks_only_what_it_bounds(db: sqlite3.Connection, text: str) -> None:
    for statement in asked_for(db, text):
        plan = plan_of(db, statement)
        assert not [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step], (statement, plan)
        scans = [step for step in plan if step.startswith("SCAN") and step.split()[1] not in SMALL | {"CONSTANT"}]
        free = [step for step in scans if "USING" not in step and "VIRTUAL TABLE" not in step and "(subquery" not in step]
        assert not free or "LIMIT" in statement, (statement, plan)


def full_of(tmp_path: Path, count: int) -> sqlite3.Connection:
    """A store with so many tasks of every kind, straight into its tables."""
    path = tmp_path / f"{count}.db"
    files.open_file(str(path), "normal").close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO flow (id, lane, priority, size, tenant) VALUES (?, ?, ?, 'low', ?)",
        [(n, f"echo/m{n % 5}", (1, 5, 10)[n % 3], f"t{n % 4}") for n in range(1, 61)],
    )
    spec = msgspec.json.encode(Submission("echo", "chat", metadata={"customer": 1}))
    waits = "CASE WHEN n % 10 < 3 THEN {0} END"
    states = "CASE n % 10 WHEN 0 THEN 0 WHEN 1 THEN 1 WHEN 2 THEN 1 WHEN 3 THEN 4 WHEN 4 THEN 5 ELSE 3 END"
    db.execute(
        f"""WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
        INSERT INTO task (seq, id, flow, state, action, estimate, due, created, started, finished, code, bytes)
        SELECT n, printf('019%033d', n), n % 60 + 1, {states}, 'chat', 7, {waits.format("CASE WHEN n % 10 = 0 THEN n END")}, n,
            CASE WHEN n % 10 > 2 THEN n END, CASE WHEN n % 10 > 2 THEN n END, CASE WHEN n % 10 = 3 THEN 'timeout' END, 10 FROM numbers"""
    )
    db.execute("INSERT INTO payload (seq, spec) SELECT seq, ? FROM task", (spec,))
    db.execute("INSERT INTO label (name, value, seq) SELECT 'tag', 'nightly', seq FROM task WHERE seq % 7 = 0")
    db.execute("INSERT INTO batch (number, id, tenant, source, digest, metadata, created) VALUES (1, 'b1', '', '', '', x'7b7d', 0)")
    db.execute("UPDATE task SET batch = 1 WHERE seq % 5 = 0")
    db.execute("INSERT INTO idempotency (tenant, key, digest, seq, id) SELECT 't1', 'k' || seq, x'', seq, id FROM task WHERE seq % 3 = 0")
    db.execute("UPDATE counter SET tasks = (SELECT count(*) FROM task WHERE task.state = counter.state)")
    db.execute(
        """UPDATE flow SET head = (SELECT min(seq) FROM task WHERE flow = flow.id AND state = 1),
        length = (SELECT count(*) FROM task WHERE flow = flow.id AND state = 1)"""
    )
    db.execute("COMMIT")
    return db


def steps_of(db: sqlite3.Connection, text: str, count: int) -> int:
    """How many hundreds of steps SQLite takes for a page in the middle of the listing."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    asked = search(parse(text), count)
    after = count // 2 if asked.sort in ("created", "-created") else f"{count // 2}.{count // 2}"
    db.set_progress_handler(step, 100)
    listing.find(db, Flows(), asked, after, 50)
    db.set_progress_handler(None, 100)
    return taken


def test_a_page_of_an_indexed_filter_costs_the_same_in_a_queue_eight_times_as_long(tmp_path: Path) -> None:
    small, large = full_of(tmp_path, 20_000), full_of(tmp_path, 160_000)
    grown = {}
    for text in [text for text in INDEXED if not text.startswith("created:") and text != "state:running"]:
        few, many = steps_of(small, text, 20_000), steps_of(large, text, 160_000)
        if many > 1.5 * few + 20:
            grown[text] = (few, many)
    assert grown == {}
    for db in (small, large):
        db.close()


@pytest.mark.parametrize("text", ["meta.customer:7", "meta.customer:1 -meta.customer:1", "action:embed", '"no such words"', "-key:*"])
def test_a_page_of_a_filter_without_index_is_bounded_and_says_where_it_goes_on(tmp_path: Path, text: str) -> None:
    db = full_of(tmp_path, 20_000)
    page = listing.find(db, Flows(), search(parse(text), 0), None, 50)
    assert page.after is not None
    assert int(page.after) >= 20_000 - listing.BOUND
    if page.tasks:
        assert len(page.tasks) <= 50
    seen = 0
    while page.after is not None:
        page = listing.find(db, Flows(), search(parse(text), 0), page.after, 50)
        seen += 1
        assert seen <= 20_000 // min(50, listing.DECODED_BOUND) + 1
    db.close()
