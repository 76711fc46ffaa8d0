"""A running `inferq work` and SIGHUP: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import pytest

from inferq.testing import wait_until

SLOW = ("--field", "tokens_per_second=20", "--field", "tokens=4000")
TWO = '[backends.a]\nexecutor = "echo"\n[backends.b]\nexecutor = "echo"\n'


def told(process: Any, event: str) -> Any:
    """The next line of the log with that event."""
    for line in process.stderr:
        found = json.loads(line)
        if found.get("event") == event:
            return found
    raise AssertionError(f"it ended without {event}")


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "inferq.toml"
    path.write_text(f"[worker]\nslots = 1\n{TWO}")
    return path


@pytest.fixture
def worker(processes: Any, file: Path) -> Any:
    process = processes.start("work", "--grace", "0")
    told(process, "worker.started")
    return process


def test_limits_backends_and_log_level_change_while_a_task_runs_on(processes: Any, cli: Any, worker: Any, file: Path) -> None:
    running = cli("submit", "chat", "--executor", "echo", "--backend", "b", "--model", "m", "x", *SLOW, "-q").out.strip()
    asyncio.run(wait_until(lambda: asyncio.to_thread(lambda: cli("status", running, "--json=state").json == {"state": "running"})))
    file.write_text('[worker]\nslots = 2\nlease = "5s"\n[log]\nlevel = "info"\n[backends.a]\nexecutor = "echo"\n')
    worker.send_signal(signal.SIGHUP)
    line = told(worker, "config.reloaded")
    assert (line["applied"], line["restart"], line["level"]) == (["worker.slots", "backends.b (gone)"], ["worker.lease"], "warning")
    assert "needs a restart: worker.lease" in line["msg"]
    # The second slot works although the first is taken, and its task does not land on the backend that is gone.
    answer = cli("submit", "chat", "--executor", "echo", "--model", "m", "hello", "--wait", "-o", "json").json
    assert (answer["text"], answer["backend"]) == ("hello", "a")
    assert cli("status", running, "--json=state").json == {"state": "running"}
    assert told(worker, "task.completed")["task_id"] == answer["id"]
    file.write_text(file.read_text().replace("info", "error"))
    worker.send_signal(signal.SIGHUP)
    assert cli("cancel", running).code == 0
    worker.send_signal(signal.SIGTERM)
    _, rest = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert "task.cancelled" not in rest


def test_a_mistake_keeps_the_old_settings_and_says_why(cli: Any, worker: Any, file: Path) -> None:
    for mistake, said in (
        ("[worker]\nslotz = 2\n", "did you mean 'worker.slots'?"),
        ("[worker\n", "is not valid TOML"),
        ("[backends.a]\nexecutor = 'nothing'\n", "no executor is called 'nothing'"),
        ("[backends.a]\nexecutor = 'ollama'\nsettings.base_ulr = 'x'\n", "unknown setting 'base_ulr'"),
    ):
        file.write_text(mistake)
        worker.send_signal(signal.SIGHUP)
        line = told(worker, "config.reload_failed")
        assert line["level"] == "error"
        assert said in line["msg"]
        assert "the old settings stay in force" in line["msg"]
    file.write_text(f"[worker]\nslots = 1\n{TWO}")
    assert cli("submit", "chat", "--executor", "echo", "--model", "m", "hello", "--wait", "-o", "text").out == "hello\n"


def test_a_terminal_that_goes_away_stops_a_worker_that_was_started_on_it(processes: Any, file: Path) -> None:
    leader, follower = pty.openpty()
    process = processes.start("work", stdin=follower)
    os.close(follower)
    told(process, "worker.started")
    os.close(leader)
    process.send_signal(signal.SIGHUP)
    assert told(process, "worker.stopped")
    assert process.wait(30) == 0


def test_a_server_reloads_its_limits_too(processes: Any, file: Path) -> None:
    server = processes.start("serve", "--port", "0", "--no-work")
    at = ("--url", told(server, "server.started")["url"])
    submit = (*at, "submit", "chat", "--executor", "echo", "--model", "m", "x" * 5000, "-q")
    assert processes.run(*submit).code == 0
    file.write_text(f"[worker]\nslots = 2\n[server]\nmax_body_bytes = 2000\naccess_log = true\nport = 1\n{TWO}")
    server.send_signal(signal.SIGHUP)
    line = told(server, "config.reloaded")
    assert line["applied"] == ["worker.slots", "server.max_body_bytes", "server.access_log"]
    refused = processes.run(*submit)
    assert refused.code == 2
    assert "2000" in refused.err.replace(",", "")
    assert told(server, "http.request")["status"] == 413
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
