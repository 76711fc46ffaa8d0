"""`--watch`: lines in a pipe, a redrawn view on a terminal, both driven by what happens."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Callable
from typing import Any

import pytest

ECHO = ("--executor", "echo", "--model", "m")


def line(process: Any) -> str:
    assert process.stdout is not None
    return str(process.stdout.readline())


def stop(process: Any) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def submit(cli: Any) -> Callable[..., str]:
    return lambda *more: cli("submit", "chat", *ECHO, "x", "-q", *more).out.strip()


def test_a_watched_list_prints_what_is_there_and_a_line_for_each_change(processes: Any, cli: Any, submit: Callable[..., str]) -> None:
    first = submit()
    watching = processes.start("list", "--watch")
    assert line(watching).split("\t")[0] == "ID"
    assert line(watching).split("\t")[:4] == [first, "chat", "normal", "pending"]
    second = submit("--priority", "high")
    assert line(watching).split("\t")[:4] == [second, "chat", "high", "pending"]
    cli("priority", first, "low")
    assert line(watching).split("\t")[:4] == [first, "chat", "low", "pending"]
    cli("cancel", first)
    assert line(watching).split("\t")[:4] == [first, "chat", "low", "cancelled"]
    out, err = stop(watching)
    assert out == ""
    assert "no longer watching" in err


def test_a_watched_filter_shows_a_task_until_it_no_longer_fits(processes: Any, cli: Any, submit: Callable[..., str]) -> None:
    watching = processes.start("list", "state:pending", "tag:nightly", "--watch", "-o", "jsonl", "--json=id,state")
    mine = submit("--tag", "nightly")
    assert json.loads(line(watching)) == {"id": mine, "state": "pending"}
    other = submit()
    cli("cancel", other, mine)
    assert json.loads(line(watching)) == {"id": mine, "state": "cancelled"}
    stop(watching)


def test_a_watched_status_prints_the_numbers_when_they_change(processes: Any, cli: Any, submit: Callable[..., str]) -> None:
    watching = processes.start("status", "--watch")
    titles = line(watching).rstrip("\n").split("\t")
    assert dict(zip(titles, line(watching).rstrip("\n").split("\t"), strict=True))["TOTAL"] == "0"
    submit()
    numbers = dict(zip(titles, line(watching).rstrip("\n").split("\t"), strict=True))
    assert (numbers["PENDING"], numbers["TOTAL"]) == ("1", "1")
    stop(watching)


def test_a_watched_task_is_followed_to_its_end(processes: Any, cli: Any, submit: Callable[..., str]) -> None:
    task_id = submit()
    watching = processes.start("status", task_id[:20], "--watch", "-o", "jsonl", "--json=state")
    assert json.loads(line(watching)) == {"state": "pending"}
    cli("cancel", task_id)
    out, err = watching.communicate(timeout=30)
    assert json.loads(out.splitlines()[-1]) == {"state": "cancelled"}
    assert (watching.returncode, err) == (0, "")


def test_on_a_terminal_the_view_is_redrawn(processes: Any, submit: Callable[..., str]) -> None:
    leader, follower = pty.openpty()
    watching = processes.start("list", "--watch", stdout=follower)
    os.close(follower)
    seen = ""
    while "no tasks" not in seen and "ID" not in seen:
        seen += os.read(leader, 4096).decode()
    task_id = submit()
    seen = ""
    while task_id[:18] not in seen:
        seen += os.read(leader, 4096).decode()
    assert "\x1b[H\x1b[2J" in seen
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    os.close(leader)
