"""How SQLite runs each statement of the store: by an index, never by reading every task, never by sorting in a temporary tree."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from inferq.store import Position
from inferq.stores import open_store
from inferq.stores.sqlite import reads
from inferq.stores.sqlite.statements import SQL

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


WALKS = {"waiting_flows", "stage_stepped", "held_batches", "running_on", "running_tenants"}
"""Statements that read all of a kind because all are wanted: waiting flows, running tasks, scheduled ones after a step of the clock."""


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
    ],
)
def test_a_statement_that_wants_all_reads_only_their_index(db: sqlite3.Connection, name: str, index: str) -> None:
    step, *rest = plan_of(db, SQL[name])
    assert f"USING INDEX {index}" in step
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
