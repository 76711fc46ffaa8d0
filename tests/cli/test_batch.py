"""`inferq submit batch` and `inferq batch`: the forerunners' file and shapes, one JSON value on stdout, resume, results as they come."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from asking import until

ENTRIES = [
    {"type": "chat", "model": "m", "priority": "high", "system": "Be brief", "messages": [{"role": "user", "content": "hi"}]},
    {"type": "generate", "model": "m", "priority": 1, "prompt": "Once", "stream": True},
    {"type": "embed", "model": "m", "input": ["a", "b"]},
]
QUESTIONS = [{"id": n, "question": f"q{n}"} for n in range(5)]
ECHO = ("--executor", "echo")


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """The line of stderr that holds these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if wanted in line)


@pytest.fixture
def tasks(home: Path) -> Path:
    path = home / "tasks.json"
    path.write_text(json.dumps(ENTRIES))
    return path


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_without_sync_stdout_is_the_forerunners_json(cli: Any, tasks: Path) -> None:
    ran = cli("submit", "batch", "--file", str(tasks), *ECHO)
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["batch_size"], ran.json["status"]) == (3, "submitted")
    assert [{**task, "task_id": ""} for task in ran.json["tasks"]] == [
        {"task_id": "", "type": kind, "model": "m", "status": "submitted"} for kind in ("chat", "generate", "embed")
    ]
    shown = [cli("show", task["task_id"], "-o", "json").json for task in ran.json["tasks"]]
    assert [(task["action"], task["priority"], task["stream"]) for task in shown] == [
        ("chat", 10, False), ("generate", 1, True), ("embed", 5, False),
    ]  # fmt: skip
    assert shown[0]["payload"]["system"] == "Be brief"
    assert {task["batch"] for task in shown} == {ran.json["batch_id"]}


def test_quiet_and_text_give_the_batchs_id(cli: Any, tasks: Path) -> None:
    for option in (["-q"], ["-o", "text"]):
        ran = cli("submit", "batch", "--file", str(tasks), *ECHO, *option)
        assert cli("batch", "show", ran.lines[0], "--json=state,total").json == {"state": "running", "total": 3}
    assert len(cli("submit", "batch", "--file", str(tasks), *ECHO, "-o", "jsonl").lines) == 3
    assert set(cli("submit", "batch", "--file", str(tasks), *ECHO, "--json=batch_id,batch_size").json) == {"batch_id", "batch_size"}


def test_wrong_lines_are_named_and_nothing_is_submitted(cli: Any, home: Path) -> None:
    file = jsonl(home / "f.jsonl", [ENTRIES[0], {"type": "chat", "model": "m"}, {"type": "embed", "input": "x", "priority": "soon"}])
    ran = cli("submit", "batch", "--file", file, *ECHO)
    assert (ran.code, ran.out) == (2, "")
    assert "line 2: messages: expected this field for type chat, got none" in ran.err
    assert "line 3: priority: expected an integer or one of low" in ran.err
    assert "2 of 3 lines are wrong, and nothing was submitted" in ran.err
    assert cli("list", "-q").out == cli("batch", "list", "-q").out == ""
    ran = cli("submit", "batch", "--file", file, *ECHO, "--skip-errors")
    assert (ran.code, ran.json["batch_size"]) == (3, 1)
    assert "2 wrong lines were left out" in ran.err


def test_a_table_is_told_how_to_become_json_lines(cli: Any, home: Path) -> None:
    (home / "table.csv").write_text("id,question\n1,why\n")
    ran = cli("submit", "batch", "--file", "table.csv", "--model", "m", "--prompt", "{question}")
    assert (ran.code, "It looks like a table: docs/batches.md has the line" in ran.err) == (2, True)


def test_what_cannot_be_read_is_said(cli: Any, home: Path) -> None:
    assert cli("submit", "batch", "--file", "nowhere.json").code == 5
    assert cli("submit", "batch", "--file", "-", stdin="").code == 2
    ran = cli("submit", "batch", "--file", "-", "--prompt", "{", stdin="{}")
    assert ran.code == 2
    assert "prompt: expected a template" in ran.err
    assert cli("batch", "show", "nothing").code == 5


def test_a_template_a_key_and_resume(cli: Any, home: Path) -> None:
    asked = ("submit", "batch", "--prompt", "Say {question}", "--model", "m", "--key", "id", *ECHO, "--resume")
    file = jsonl(home / "q.jsonl", QUESTIONS[:3])
    first = cli(*asked, "--file", file)
    assert first.json["batch_size"] == 3
    jsonl(home / "q.jsonl", QUESTIONS)
    again = cli(*asked, "--file", file)
    assert (again.code, again.json["batch_id"], again.json["batch_size"]) == (0, first.json["batch_id"], 5)
    assert "3 lines were there already" in again.err
    named = cli("submit", "batch", "--file", "-", "--name", "mine", *ECHO, stdin=json.dumps(ENTRIES))
    assert named.code == 0
    taken = cli("submit", "batch", "--file", "-", "--name", "mine", *ECHO, stdin=json.dumps(ENTRIES))
    assert (taken.code, taken.out) == (6, "")
    assert "resume it, or choose another" in taken.err


def test_lines_from_standard_input_wait_until_their_time(cli: Any) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": ENTRIES[0]["messages"]}}
    ran = cli("submit", "batch", "--file", "-", *ECHO, "--at", "2999-01-01T00:00:00Z", "--priority", "low", stdin=json.dumps(line))
    task = cli("show", ran.json["tasks"][0]["task_id"], "-o", "json").json
    assert (task["state"], task["priority"]) == ("scheduled", 1)


def test_options_hold_for_lines_that_say_nothing_else(cli: Any, tasks: Path) -> None:
    told = ("--remote", "--max-tokens", "7", "--option", "seed=1", "--delay", "1h", "--retries", "0")
    batch = cli("submit", "batch", "--file", str(tasks), "--executor", "echo", *told, "-q").out.strip()
    first = next(iter(cli("list", f"batch:{batch}", "-o", "json").json))
    assert (first["remote"], first["options"], first["state"], first["max_retries"]) == (True, {"seed": 1, "max_tokens": 7}, "scheduled", 0)
    wrong = cli("submit", "batch", "--file", str(tasks), "--delay", "1h", "--at", "2027-01-31T10:00:00Z")
    assert (wrong.code, wrong.err) == (2, "inferq: --at and --delay say the same thing: give one (see `inferq submit batch --help`)\n")


def test_sync_prints_one_json_value_and_a_bar_and_writes_results(cli: Any, processes: Any, tasks: Path, home: Path) -> None:
    processes.start("work")
    ran = processes.run("submit", "batch", "--file", str(tasks), *ECHO, "--sync", "-o", "json", "--output-file", "out.jsonl")
    assert ran.code == 0, ran.err
    assert set(ran.json) == {"batch_id", "batch_size", "duration_ms", "tasks"}
    assert [(task["type"], task["model"], task["status"]) for task in ran.json["tasks"]] == [
        ("chat", "m", "completed"), ("generate", "m", "completed"), ("embed", "m", "completed"),
    ]  # fmt: skip
    assert ran.json["tasks"][0]["result"]["text"] == "hi"
    assert "3/3  failed 0" in ran.err
    written = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    assert [line["line"] for line in written] == [1, 2, 3]
    assert [line["task_id"] for line in written] == [task["task_id"] for task in ran.json["tasks"]]
    totals = processes.run("submit", "batch", "--file", str(tasks), *ECHO, "--sync", "-o", "text", "--no-progress")
    assert "success rate\t100.0 %" in totals.out
    assert totals.err == ""
    streamed = processes.run("submit", "batch", "--file", str(tasks), *ECHO, "--sync", "-o", "jsonl", "--no-progress")
    assert [json.loads(line)["line"] for line in streamed.out.splitlines()] == [1, 2, 3]


def test_failures_have_exit_codes_and_can_be_collected_and_made_again(cli: Any, processes: Any, home: Path) -> None:
    processes.start("work")
    rows = [{"executor": "echo", "action": "echo", "payload": payload} for payload in ({"a": 1}, {"fail": ["bad_request"]}, {"a": 3})]
    ran = processes.run("submit", "batch", "--file", jsonl(home / "f.jsonl", rows), "--sync", "--name", "mixed", "-o", "json")
    assert ran.code == 3, ran.err
    assert [task["status"] for task in ran.json["tasks"]] == ["completed", "failed", "completed"]
    assert ran.json["tasks"][1]["code"] == "bad_request"
    assert [json.loads(line)["line"] for line in cli("batch", "results", "mixed").lines] == [1, 2, 3]
    assert [json.loads(line)["line"] for line in cli("batch", "results", "mixed", "--errors").lines] == [2]
    assert [json.loads(line)["line"] for line in cli("batch", "results", "mixed", "--after", "2").lines] == [3]
    assert cli("batch", "errors", "mixed", "--json=code,count").json == [{"code": "bad_request", "count": 1}]
    assert "0 tasks are made again" in cli("batch", "retry", "mixed", "--only", "timeout").err
    assert "1 tasks are made again" in cli("batch", "retry", "mixed").err
    assert processes.run("batch", "watch", "mixed").code == 0
    assert cli("batch", "delete", "mixed", "--yes").code == 0
    assert cli("batch", "show", "mixed").code == 5


def test_a_batch_is_paused_resumed_moved_cancelled_and_deleted(cli: Any, tasks: Path) -> None:
    cli("submit", "batch", "--file", str(tasks), *ECHO, "--name", "x")
    assert cli("batch", "pause", "x", "--json=state,held").json == {"state": "paused", "held": True}
    assert cli("batch", "resume", "x", "--json=state").json == {"state": "running"}
    assert "3 tasks were moved" in cli("batch", "priority", "x", "critical").err
    assert cli("list", "--json=priority", "-o", "json").json == [{"priority": 15}] * 3
    assert cli("batch", "delete", "x", "-y").code == 6
    assert cli("batch", "cancel", "x", "--reason", "enough", "--json=state,cancelled,reason").json == {
        "state": "cancelled", "cancelled": 3, "reason": "enough",
    }  # fmt: skip
    assert cli("batch", "retry", "x", "--cancelled", "--json=state").json == {"state": "running"}
    assert cli("batch", "list", "--unfinished", "-q").lines == [cli("batch", "show", "x", "-q").out.strip()]
    unasked = cli("batch", "delete", "x")
    assert (unasked.code, "Nobody can be asked here: add --yes to do it" in unasked.err) == (2, True)
    assert cli("batch", "delete", "x", "-y", "--cancel").code == 0
    assert cli("list", "-q").out == ""


def test_interrupting_leaves_the_batch_running_and_says_how_to_go_on(cli: Any, processes: Any, home: Path) -> None:
    rows = [{"executor": "echo", "action": "echo", "payload": {"n": n}} for n in range(3)]
    process = processes.start("submit", "batch", "--file", jsonl(home / "f.jsonl", rows), "--sync", "--name", "long")
    until(lambda: cli("batch", "show", "long").code == 0)
    read_until(process, "0/3")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "the batch goes on; watch it with: inferq batch watch" in err
    assert cli("batch", "show", "long", "--json=state").json == {"state": "running"}
    processes.start("work")
    assert processes.run("batch", "watch", "long", "-o", "text").code == 0


def test_fail_fast_cancels_the_rest(processes: Any, cli: Any, home: Path) -> None:
    rows = [{"executor": "echo", "action": "echo", "payload": {"fail": ["bad_request"]}}]
    rows += [{"executor": "echo", "action": "echo", "payload": {"n": n}, "scheduled_at": "2999-01-01T00:00:00Z"} for n in range(3)]
    processes.start("work")
    ran = processes.run("submit", "batch", "--file", jsonl(home / "f.jsonl", rows), "--fail-fast", "-o", "json")
    assert ran.code == 1, ran.err
    assert [task["status"] for task in ran.json["tasks"]] == ["failed", "cancelled", "cancelled", "cancelled"]
