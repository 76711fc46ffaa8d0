"""Changing all tasks that pass a filter, from the command line."""

from __future__ import annotations

import json
import os
import pty
from typing import Any

import pytest


@pytest.fixture
def submit(cli: Any) -> Any:
    """Submits a chat and returns its id."""

    def make(*more: str) -> str:
        ran = cli("submit", "chat", "--executor", "echo", "--model", "m", "Why is the sky blue?", "-q", *more)
        assert ran.code == 0, ran.err
        return str(ran.out.strip())

    return make


def test_a_dry_run_shows_what_would_be_changed_and_changes_nothing(cli: Any, submit: Any) -> None:
    wanted = [submit("--tag", "a") for _ in range(3)][::-1]
    submit()
    ran = cli("cancel", "--query", "tag:a", "--dry-run")
    assert ran.code == 0
    assert [line.split("\t")[0] for line in ran.lines[1:]] == wanted
    assert "Why is the sky blue?" in ran.out
    assert "would cancel 3 tasks" in ran.err
    seen = cli("cancel", "--query", "tag:a", "--dry-run", "-o", "json").json
    assert (seen["state"], seen["expected"], seen["id"]) == ("preview", 3, "")
    assert len(cli("list", "-q", "state:pending").lines) == 4


def test_what_passes_is_changed_and_the_record_says_how_it_went(cli: Any, submit: Any) -> None:
    wanted, other = [submit("--tag", "a") for _ in range(3)], submit()
    over = cli("cancel", "--query", "tag:a", "--yes", "--reason", "not needed", "-o", "json").json
    assert (over["state"], over["done"], over["failed"]) == ("done", 3, 0)
    assert cli("list", "-q", "state:pending").lines == [other]
    assert cli("retry", "--query", f"id:{wanted[0]},{wanted[1]}", "-y").code == 0
    assert cli("priority", "--query", "tag:a", "high", "-y").code == 0
    assert cli("list", "-q", "priority:high").lines == [wanted[1], wanted[0]]
    assert cli("delete", "--query", "tag:a", "-y", "--json=done").json == {"done": 1}
    listed = cli("operations", "list", "--json=verb,state").json
    assert listed == [{"verb": verb, "state": "done"} for verb in ("delete", "priority", "retry", "cancel")]
    shown = cli("operations", "show", over["id"], "-o", "json").json
    assert shown == over
    assert cli("operations", "stop", over["id"], "--json=state").json == {"state": "done"}
    assert cli("operations", "show", "nothing").code == 5


def test_where_nobody_can_be_asked_nothing_is_changed(cli: Any, submit: Any) -> None:
    task_id = submit("--tag", "a")
    for args in (("cancel", "--query", "tag:a"), ("delete", task_id), ("delete", "--query", "state:*")):
        cli("cancel", task_id) if args[0] == "delete" else None
        ran = cli(*args)
        assert (ran.code, ran.out) == (2, ""), args
        assert "--yes" in ran.err
    assert cli("list", "-q").lines == [task_id]


def test_ids_or_a_query_but_not_both_and_not_neither(cli: Any, submit: Any) -> None:
    task_id = submit()
    for args in (("cancel",), ("cancel", task_id, "--query", "tag:a"), ("retry", task_id, "--dry-run"), ("priority", "low")):
        assert cli(*args).code == 2, args


@pytest.mark.parametrize("query", ["", "modle:x", "state:failed limit:3"])
def test_a_filter_that_says_nothing_good_is_refused(cli: Any, query: str) -> None:
    ran = cli("cancel", "--query", query, "--yes")
    assert (ran.code, ran.out) == (2, "")


def test_when_nothing_passes_that_is_said_and_is_no_failure(cli: Any, submit: Any) -> None:
    submit()
    ran = cli("retry", "--query", "state:*", "--yes", "--json=expected")
    assert (ran.code, ran.json) == (0, {"expected": 0})
    assert "no task" in ran.err


def test_purge_removes_what_ended_long_enough_ago(cli: Any, submit: Any) -> None:
    task_id, other = submit(), submit()
    cli("cancel", task_id)
    assert cli("purge", "--state", "cancelled", "--older-than", "1h", "--yes", "--json=expected").json == {"expected": 0}
    assert cli("purge", "--state", "cancelled,failed", "--older-than", "0", "--dry-run", "-q").lines == [task_id]
    assert cli("purge", "--state", "cancelled", "--older-than", "0s", "--yes").code == 0
    assert cli("list", "-q").lines == [other]
    assert cli("purge", "--state", "pending", "--older-than", "1h", "--yes").code == 2


def test_a_deleted_task_is_gone_and_a_waiting_one_is_refused(cli: Any, submit: Any) -> None:
    task_id, waiting = submit(), submit()
    cli("cancel", task_id)
    ran = cli("delete", task_id, waiting, "--yes", "-q")
    assert (ran.code, ran.lines) == (3, [task_id])
    assert "pending" in ran.err
    assert cli("show", task_id).code == 5


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 2, 3), (b"y\n", 0, 0)])
def test_on_a_terminal_it_asks_after_showing_what_it_is_about(
    processes: Any, cli: Any, submit: Any, answer: bytes, code: int, left: int
) -> None:
    for _ in range(3):
        submit("--tag", "a")
    mine, its = pty.openpty()
    try:
        process = processes.start("cancel", "--query", "tag:a", "-o", "json", stdin=its, stderr=its)
        os.close(its)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(mine, 4096)
        os.write(mine, answer)
        out, _ = process.communicate(timeout=60)
    finally:
        os.close(mine)
    assert process.returncode == code
    assert b"cancel 3 tasks?" in seen
    assert b"Why is the sky blue?" in seen
    assert (json.loads(out)["done"] == 3) if code == 0 else (out == "")
    assert len(cli("list", "-q", "state:pending").lines) == left


def test_waiting_for_a_filter_waits_for_what_has_not_ended(processes: Any, cli: Any, submit: Any) -> None:
    ids = [submit("--tag", "a") for _ in range(3)]
    cli("cancel", ids[0])
    submit()
    waiting = processes.start("wait", "--query", "tag:a", "--json=id,state")
    worker = processes.start("work", "-q")
    out, _ = waiting.communicate(timeout=60)
    worker.terminate()
    assert waiting.returncode == 0
    assert sorted(json.loads(out), key=lambda one: one["id"]) == [{"id": id, "state": "completed"} for id in ids[1:]]
    assert cli("wait", "--query", "tag:a").code == 0
    assert cli("wait", ids[0], "--query", "tag:a").code == 2
    assert cli("wait").code == 2
