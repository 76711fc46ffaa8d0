"""Log settings and -v have an effect, and the log never mixes with data."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq.cli import logs
from inferq.config import LogSettings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    level, handlers = logging.getLogger("inferq").level, [*logging.getLogger().handlers]
    yield
    logging.getLogger("inferq").setLevel(level)
    for handler in logging.getLogger().handlers[:]:
        if handler not in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def write() -> None:
    log = logging.getLogger("inferq.test")
    log.debug("one.debug")
    log.info("one.info", extra={"task_id": "a b"})
    log.warning("one.warning")


def test_a_file_gets_json_lines_of_the_level_and_above(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs.start(LogSettings(level="info", file=str(tmp_path / "log")))
    write()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["msg"], line["event"], line["level"]) for line in lines] == [
        ("one.info", "one.info", "info"),
        ("one.warning", "one.warning", "warning"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["ts"])
    assert (lines[0]["task_id"], lines[0]["logger"]) == ("a b", "inferq.test")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("service", "verbose", "expected"),
    [
        (False, 0, ["one.warning"]),
        (True, 0, ["one.info", "one.warning"]),
        (False, 1, ["one.info", "one.warning"]),
        (False, 2, ["one.debug", "one.info", "one.warning"]),
    ],
)
def test_stderr_gets_what_the_command_and_v_ask_for(
    service: bool, verbose: int, expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    logs.start(LogSettings(format="text"), verbose=verbose, service=service)
    write()
    out, err = capfd.readouterr()
    assert out == ""
    assert [word for line in err.splitlines() for word in line.split() if word.startswith("one.")] == expected


def test_starting_again_replaces_the_log(tmp_path: Path) -> None:
    logs.start(LogSettings(file=str(tmp_path / "first")))
    logs.start(LogSettings(file=str(tmp_path / "second")))
    write()
    assert not (tmp_path / "first").exists()
    assert len((tmp_path / "second").read_text().splitlines()) == 2


def test_a_traceback_is_part_of_its_line(tmp_path: Path) -> None:
    logs.start(LogSettings(file=str(tmp_path / "log")))
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("inferq.test").exception("it.failed")
    [line] = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    assert "ValueError: inside" in line["traceback"]


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    logs.start(LogSettings(file=str(tmp_path / "log")))
    write()
    (tmp_path / "log").rename(tmp_path / "log.1")
    write()
    assert len((tmp_path / "log").read_text().splitlines()) == len((tmp_path / "log.1").read_text().splitlines()) == 2


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_secret_is_in_no_line_wherever_it_came_from(form: Any, capfd: pytest.CaptureFixture[str]) -> None:
    logs.start(LogSettings(format=form), service=True, secrets=['sk-"quoted"', "sk-plain-1"])
    log = logging.getLogger("inferq.test")
    log.warning("refused: %s", "Authorization: Bearer sk-plain-1", extra={"url": "http://me:hidden-pass@host/"})
    try:
        raise ValueError('the key sk-"quoted" is wrong')
    except ValueError:
        log.exception("failed")
    err = capfd.readouterr().err
    assert "***" in err
    for secret in ("sk-plain-1", "quoted", "hidden-pass"):
        assert secret not in err


# ── a real worker's log ─────────────────────────────────────────────────────────────────────────────────────────────

PROMPT = "the-private-words-of-a-person"
BAD_PLUGIN = ("--field", 'fail=["internal"]', "--retries", "0")


def worked(processes: Any, *flags: str, tasks: list[tuple[str, ...]]) -> str:
    """What a worker with these flags logs while it runs the tasks."""
    worker = processes.start(*flags, "work")
    ids = [processes.run("submit", *task, "-q").out.strip() for task in tasks]
    processes.run("wait", *ids)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0
    return str(err)


TASKS: list[tuple[str, ...]] = [
    ("chat", "--executor", "echo", "--model", "m", PROMPT),
    ("chat", "--executor", "echo", "--model", "m", PROMPT, *BAD_PLUGIN),
    ("script", "--retries", "0", "--", "sh", "-c", f"echo {PROMPT} >&2; exit 3"),
]


def test_a_worker_logs_one_json_line_a_task_with_its_fields(processes: Any) -> None:
    lines = [json.loads(line) for line in worked(processes, tasks=TASKS).splitlines()]
    assert {"ts", "level", "logger", "msg"} <= set.intersection(*(set(line) for line in lines))
    assert [line["event"] for line in lines if line["logger"] == "inferq.worker"] == ["worker.started", "worker.stopped"]
    ended = [line for line in lines if line["logger"] == "inferq.tasks"]
    assert sorted(line["event"] for line in ended) == ["task.completed", "task.failed", "task.failed"]
    done = next(line for line in ended if line["event"] == "task.completed")
    assert (done["executor"], done["model"], done["backend"], done["attempt"], done["level"]) == ("echo", "m", "echo", 1, "info")
    assert 0 <= done["duration_s"] < 30
    assert len(done["task_id"]) == 36
    assert {line["code"] for line in ended if line["event"] == "task.failed"} == {"internal", "script_failed"}


def test_the_line_of_a_batchs_task_names_the_batch_and_its_first_chunk(processes: Any, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    lines = [
        {"action": "chat", "payload": {"messages": [{"role": "user", "content": "x"}]} | more} for more in ({}, {"fail": ["internal"]})
    ]
    file.write_text("".join(json.dumps(line | {"stream": True}) + "\n" for line in lines), "utf-8")
    worker = processes.start("work")
    ran = processes.run("submit", "batch", "--file", str(file), "--executor", "echo", "--model", "m", "--retries", "0", "-q")
    processes.run("batch", "watch", ran.out.strip())
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    ended = [line for line in map(json.loads, err.splitlines()) if line["logger"] == "inferq.tasks"]
    assert sorted(line["event"] for line in ended) == ["task.completed", "task.failed"]
    assert {line["batch_id"] for line in ended} == {ran.out.strip()}
    assert {line["backend"] for line in ended} == {"echo"}
    assert all(0 <= line["first_token_s"] <= line["duration_s"] for line in ended if line["event"] == "task.completed")


@pytest.mark.parametrize("flags", [(), ("--log-format", "text"), ("-v",)])
def test_no_prompt_stands_in_a_log_above_debug(processes: Any, flags: tuple[str, ...]) -> None:
    said = worked(processes, *flags, tasks=TASKS)
    assert said.count("completed") >= 1
    assert PROMPT not in said


def test_on_a_terminal_the_log_is_text(processes: Any, home: Path) -> None:
    leader, follower = pty.openpty()
    worker = processes.start("work", stderr=follower)
    os.close(follower)
    first = os.read(leader, 4096).decode()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    os.close(leader)
    assert re.match(r"\d\d:\d\d:\d\d INFO    working on sqlite:", first)


def test_quiet_leaves_out_the_lines_of_tasks(processes: Any) -> None:
    worker = processes.start("work", "--quiet")
    task_id = processes.run("submit", *TASKS[0], "-q").out.strip()
    assert processes.run("wait", task_id).code == 0
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert task_id[:18] not in err


def test_a_servers_log_has_requests_and_tasks_and_no_prompt(processes: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("[server]\naccess_log = true\n")
    server = processes.start("serve", "--port", "0")
    assert server.stderr is not None
    told = next(line for line in map(json.loads, server.stderr) if line.get("event") == "server.started")
    at = ("--url", told["url"])
    ids = [processes.run(*at, "submit", *task, "-q").out.strip() for task in TASKS[:2]]
    assert processes.run(*at, "wait", *ids).code == 3
    assert processes.run(*at, "list", f'"{PROMPT}"', "-q").lines != []
    assert processes.run(*at, "submit", "chat", "--model", "m", PROMPT, "--executor", PROMPT).code == 2
    assert processes.run(*at, "show", PROMPT).code == 5
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=60)
    lines = [json.loads(line) for line in err.splitlines()]
    requests = [line for line in lines if line["logger"] == "inferq.access"]
    assert {"POST /api/tasks 201", "POST /api/tasks 400"} <= {line["msg"] for line in requests}
    assert {line["request_id"] for line in requests} != {""}
    assert sorted(line["event"] for line in lines if line["logger"] == "inferq.tasks") == ["task.completed", "task.failed"]
    assert PROMPT not in err


def test_a_log_that_cannot_be_written_costs_lines_and_never_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a full disk: the file's limit is where the disk's end would be."""
    log = tmp_path / "inferq.log"
    handler = logs.LogFile(log, encoding="utf-8", delay=True)
    handler.setFormatter(logs.JsonFormatter())
    logging.getLogger("inferq.log").addHandler(handler)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        handler.emit(logging.makeLogRecord({"msg": "first"}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 10, before[1]))
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "lost"}))
        log.rename(tmp_path / "rotated.log")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
        handler.emit(logging.makeLogRecord({"msg": "lost too"}))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        handler.emit(logging.makeLogRecord({"msg": "again"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
        logging.getLogger("inferq.log").removeHandler(handler)
        handler.close()

    said = capsys.readouterr().err
    assert said.count("cannot be written: File too large; lines are lost until it can") == 1
    assert "Traceback" not in said
    text = log.read_text()
    assert '"msg": "again"' in text
    assert '"count": 4' in text
