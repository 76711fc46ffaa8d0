"""Gaps of the first forerunner's command line, each shown not to be ours, by the real `inferq` command."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest


def test_a05_a_submitted_task_is_run_by_a_worker_while_other_commands_use_the_store(inferq: Any) -> None:
    id = inferq("submit", "chat", "--model", "m", "--executor", "echo", "hello", "-q").strip()
    worker = inferq.start("work")
    second = inferq("submit", "chat", "--model", "m", "--executor", "echo", "again", "-q").strip()
    inferq("wait", id, second)
    assert inferq("result", id).strip() == "hello"
    assert {task["id"]: task["state"] for task in inferq.json("list")} == {id: "completed", second: "completed"}
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=30)
    assert worker.returncode == 0, errors


def test_a06_commands_end_at_once(inferq: Any) -> None:
    inferq("submit", "chat", "--model", "m", "--executor", "echo", "hello")
    before = time.monotonic()
    inferq("list")
    inferq("status")
    assert time.monotonic() - before < 20, "the forerunner waited half a minute in each"


def test_a07_a_message_may_contain_commas_and_colons(inferq: Any) -> None:
    text = "Hello, how are you: fine, or not?"
    inferq("submit", "chat", "--model", "m", "--executor", "echo", "--messages", f"user:{text}")
    inferq("submit", "chat", "--model", "m", "--executor", "echo", text)
    asked = [task["payload"]["messages"] for task in inferq.json("list")]
    assert asked == [[{"role": "user", "content": text}]] * 2


def test_a14_config_file_config_dir_variables_and_flags_each_have_their_effect(inferq: Any) -> None:
    folder = inferq.home / "folder"
    folder.mkdir()
    (folder / "inferq.toml").write_text('worker.slots = 7\nollama_host = "gpu-of-the-file"\n')
    inferq.env["INFERQ_WORKER__LEASE"] = "45s"

    def shown(*args: str) -> dict[str, Any]:
        return {row["key"]: row["value"] for row in json.loads(inferq("config", "show", *args, "-o", "json"))}

    for args in (("--config", str(folder / "inferq.toml")), ("--config-dir", str(folder))):
        values = shown(*args)
        assert (values["worker.slots"], values["worker.lease"]) == (7, 45.0)
        assert values["backends.ollama.settings.base_url"] == "http://gpu-of-the-file:11434", "no flag's default overrides a file"
        told = shown(*args, "--ollama-host", "gpu-of-the-flag")
        assert told["backends.ollama.settings.base_url"] == "http://gpu-of-the-flag:11434"
    assert shown("--data-dir", str(inferq.home / "elsewhere"))["store.url"].endswith("/elsewhere/inferq.db")


@pytest.mark.parametrize(("level", "logged"), [("warn", True), ("error", False)])
def test_a19_the_log_level_and_file_have_their_effect(inferq: Any, level: str, logged: bool) -> None:
    log = inferq.home / "inferq.log"
    inferq.env |= {"LOG_LEVEL": level, "LOG_FILE": str(log)}
    broken = ("--field", 'fail=["internal"]', "--retries", "0")
    id = inferq("submit", "chat", "--model", "m", "--executor", "echo", "hello", *broken, "-q").strip()
    worker = inferq.start("work")
    inferq("wait", id, code=1)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=30)
    assert ("attempt.unexpected_error" in (log.read_text() if log.exists() else "")) is logged
    assert "attempt.unexpected_error" not in errors


def test_a20_an_offset_leaves_out_tasks_that_match_and_the_order_is_newest_first(inferq: Any) -> None:
    for number in range(4):
        inferq("submit", "generate", "--model", "even" if number % 2 == 0 else "odd", "--executor", "echo", "--prompt", str(number))
    rows = inferq.json("list", "--model", "odd", "--offset", "1")
    assert [task["payload"]["prompt"] for task in rows] == ["1"]
    assert [task["payload"]["prompt"] for task in inferq.json("list")] == ["3", "2", "1", "0"]


def test_a22_cancel_and_priority_of_an_ended_task_are_conflicts(inferq: Any) -> None:
    id = inferq("submit", "chat", "--model", "m", "--executor", "echo", "hello", "-q").strip()
    inferq("cancel", id)
    inferq("cancel", id, code=6)
    inferq("priority", id, "high", code=6)
    assert inferq.json("show", id)["priority"] == 5
