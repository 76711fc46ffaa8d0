"""Real processes: a worker beside the clients, signals, closed pipes, terminals. No sleeps: conditions are waited for."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from asking import until

ECHO = ("--executor", "echo", "--model", "m")
SLOW = ("--field", "tokens_per_second=20", "--field", "tokens=400")


def state(cli: Any, task_id: str) -> str:
    return str(cli("show", task_id, "--json=state").json["state"])


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """The line of stderr that holds these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if wanted in line:
            return line
    raise AssertionError(f"it ended without saying {wanted!r}")


@pytest.fixture
def worker(processes: Any) -> Any:
    process = processes.start("work")
    read_until(process, "working on")
    return process


def test_what_one_process_submits_another_works_on_and_a_third_reads(processes: Any, worker: Any) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "hello, there", "-q").out.strip()
    assert processes.run("result", task_id, "--wait", "--timeout", "30s").out == "hello, there\n"
    assert json.loads(read_until(worker, task_id))["event"] == "task.completed"


def test_submitting_returns_at_once_although_nobody_works(processes: Any) -> None:
    began = time.monotonic()
    assert processes.run("submit", "chat", *ECHO, "x").code == 0
    assert processes.run("list").code == 0
    assert time.monotonic() - began < 15  # the forerunner took thirty seconds for each


def test_submit_waits_for_its_result_through_a_worker(processes: Any, worker: Any) -> None:
    ran = processes.run("submit", "chat", *ECHO, "a, b", "--sync", "-o", "json")
    assert (ran.code, ran.json["text"]) == (0, "a, b")
    streamed = processes.run("submit", "chat", *ECHO, "a b", "--stream", "--output", "json")
    assert [chunk.get("data") for chunk in streamed.json["chunks"]][:2] == ["a ", "b"]


def test_a_stream_is_read_from_its_start_while_it_runs_in_another_process(processes: Any, worker: Any, cli: Any) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "word", *SLOW, "-q").out.strip()
    tail = processes.start("tail", task_id, "-o", "jsonl")
    first = json.loads(read_line(tail))
    assert (first["kind"], first["text"]) == ("text", "word ")
    assert state(cli, task_id) == "running"
    assert processes.run("cancel", task_id, "--reason", "enough").code == 0
    out, err = tail.communicate(timeout=30)
    assert tail.returncode == 1
    assert json.loads(out.splitlines()[-1])["kind"] == "end"
    assert "enough" in err


def test_the_first_signal_stops_a_worker_and_hands_back_what_the_grace_did_not_suffice_for(processes: Any, cli: Any) -> None:
    process = processes.start("work", "--grace", "50ms")
    read_until(process, "working on")
    task_id = processes.run("submit", "chat", *ECHO, "x", *SLOW, "-q").out.strip()
    until(lambda: state(cli, task_id) == "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    task = cli("show", task_id, "-o", "json").json
    assert (task["state"], task["failures"]) == ("pending", 0)


def test_a_second_signal_stops_a_worker_now(processes: Any, cli: Any) -> None:
    process = processes.start("work", "--grace", "1h")
    read_until(process, "working on")
    task_id = processes.run("submit", "chat", *ECHO, "x", *SLOW, "-q").out.strip()
    until(lambda: state(cli, task_id) == "running")
    process.send_signal(signal.SIGINT)
    other = processes.run("submit", "chat", *ECHO, "y", "-q").out.strip()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert state(cli, task_id) == "pending"
    assert state(cli, other) == "pending"


def test_ctrl_c_stops_waiting_not_the_task_and_says_how_to_resume(processes: Any, worker: Any, cli: Any) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "x", *SLOW, "-q").out.strip()
    tail = processes.start("tail", task_id)
    assert tail.stdout is not None
    assert tail.stdout.read(2)
    tail.send_signal(signal.SIGINT)
    _, err = tail.communicate(timeout=30)
    assert tail.returncode == 130
    assert f"inferq tail {task_id}" in err
    assert "Traceback" not in err
    assert state(cli, task_id) == "running"


def test_ctrl_c_hands_a_running_task_of_run_back_to_the_queue(processes: Any, cli: Any) -> None:
    process = processes.start("run", "m", "--executor", "echo", "x", *SLOW)
    assert process.stdout is not None
    assert process.stdout.read(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "inferq tail" in err
    assert "Traceback" not in err
    [task] = cli("list", "-o", "json").json
    assert (task["state"], task["failures"]) == ("pending", 0)
    assert task["id"] in err


def test_what_run_left_behind_is_finished_by_a_worker(processes: Any, cli: Any) -> None:
    process = processes.start("run", "m", "--executor", "echo", "x", "--field", "tokens_per_second=200", "--field", "tokens=200")
    assert process.stdout is not None
    assert process.stdout.read(2)
    process.kill()
    process.communicate()
    [task_id] = cli("list", "-q").lines
    worker = processes.start("work")
    read_until(worker, "working on")
    ran = processes.run("result", task_id, "--wait", "--timeout", "60s")
    assert (ran.code, len(ran.out.split())) == (0, 200)


def test_a_closed_pipe_ends_a_command_quietly(processes: Any, home: Path) -> None:
    (home / "many.jsonl").write_text('{"executor": "echo", "action": "echo", "payload": {}}\n' * 2000)
    assert processes.run("submit", "raw", "--file", "many.jsonl", "-q").code == 0
    listing = processes.start("list", "--limit", "0", "-o", "jsonl")
    assert read_line(listing)
    listing.stdout.close()
    assert listing.stderr.read() == ""
    assert listing.wait(30) == 0


def test_followed_events_come_as_they_happen(processes: Any, cli: Any) -> None:
    follower = processes.start("events", "task.*", "--follow", "--after", "0", "-o", "jsonl")
    task_id = processes.run("submit", "chat", *ECHO, "x", "-q").out.strip()
    event = json.loads(read_line(follower))
    assert (event["type"], event["task_id"]) == ("task.submitted", task_id)
    cli("cancel", task_id)
    assert json.loads(read_line(follower))["type"] == "task.cancelled"
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "--after 2" in err


def test_a_prompt_is_never_waited_for_silently_on_a_terminal(processes: Any) -> None:
    leader, follower = pty.openpty()
    process = processes.start("run", "m", "--executor", "echo", stdin=follower)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "there is no prompt" in err
    asked = processes.start("run", "m", "--executor", "echo", "-", stdin=follower)
    os.close(follower)
    assert "Ctrl-D" in read_until(asked, "Ctrl-D")
    os.write(leader, b"typed text\n\x04")
    out, _ = asked.communicate(timeout=30)
    assert out == "typed text\n"
    os.close(leader)


def test_a_prompt_in_an_argument_leaves_an_open_pipe_alone(processes: Any) -> None:
    process = processes.start("run", "m", "--executor", "echo", "hi", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read() == "hi\n"
    assert process.wait(30) == 0


def test_waiting_without_a_worker_says_so(processes: Any) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "x", "-q").out.strip()
    waiting = processes.start("result", task_id, "--wait")
    assert "inferq work" in read_until(waiting, "waiting:")


@pytest.mark.parametrize(("flag", "said"), [("--progress=plain", "waiting: "), ("--progress=auto", "\r\x1b[2Kwaiting: ")])
def test_on_a_terminal_progress_is_redrawn_or_plain_as_asked_for(processes: Any, flag: str, said: str) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "x", "-q").out.strip()
    leader, follower = pty.openpty()
    waiting = processes.start(flag, "result", task_id, "--wait", stderr=follower)
    os.close(follower)
    seen = ""
    while "inferq work" not in seen:
        seen += os.read(leader, 4096).decode()
    assert seen.startswith(said)
    waiting.kill()
    os.close(leader)


@pytest.mark.parametrize("flag", ["--no-progress", "--progress=none"])
def test_progress_can_be_left_out(processes: Any, flag: str) -> None:
    task_id = processes.run("submit", "chat", *ECHO, "x", "-q").out.strip()
    ran = processes.run("result", task_id, "--timeout", "600ms", flag)
    assert ran.code == 8
    assert "waiting" not in ran.err.replace("waiting for", "")
