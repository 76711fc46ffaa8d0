"""`inferq drain`: nothing starts in any process, what runs ends, what comes is kept, and `inferq resume` lets it go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asking import until

Cli = Any  # the fixtures of the conftest, which test files cannot import
Processes = Any


def state(cli: Cli, id: str) -> str:
    return str(cli("show", id, "-o", "json").json["state"])


def test_workers_of_two_processes_finish_what_runs_and_start_nothing_until_it_is_resumed(
    cli: Cli, processes: Processes, home: Path
) -> None:
    release = home / "release"
    (home / "inferq.toml").write_text('[backends.script]\nexecutor = "script"\n[backends.script.settings]\nallow_programs = ["sh"]\n')
    wait = f"until [ -e {release} ]; do sleep 0.02; done; echo done"
    running = [cli("submit", "script", "-q", "--", "sh", "-c", wait).out.strip() for _ in range(2)]
    for _ in range(2):
        processes.start("work", "--slots", "1")
    until(lambda: all(state(cli, id) == "running" for id in running), "both run")

    drained = cli("drain", "--wait", "--timeout", "100ms")
    assert drained.code == 8, drained.err
    assert "tasks still ran after 0.1 s" in drained.err
    late = cli("submit", "script", "-q", "--", "sh", "-c", "echo late").out.strip()
    assert cli("status", late, "--json=note").json["note"] == "the queue is drained: no task starts until `inferq resume`"
    waiting = processes.start("drain", "--wait", "--progress", "plain", "-o", "json")
    until(lambda: "2 still running" in (waiting.stderr.readline()), "it says how many run")
    release.touch()

    out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, err
    assert '"running":0,"waiting":1' in out
    assert [state(cli, id) for id in (*running, late)] == ["completed", "completed", "pending"]
    assert "draining" in cli("status").out

    assert cli("resume").code == 0
    assert cli("wait", late, "--timeout", "20s").code == 0
    assert "draining" not in cli("status").out


def test_a_pause_of_one_lane_outlives_a_drain(cli: Cli, home: Path) -> None:
    cli("pause", "echo/m")
    assert cli("drain", "--json=draining,running").json == {"draining": True, "running": 0}
    ran = cli("resume", "-o", "id")
    assert ran.lines == ["echo/m"]
    assert cli("drain", "--timeout", "5s").code == 2
    refused = cli("pause", "drain")
    assert (refused.code, "queue.drain() drains" in refused.err) == (2, True)


def test_a_model_or_a_backend_is_paused_by_its_name(cli: Cli, processes: Processes, home: Path) -> None:
    (home / "inferq.toml").write_text('[backends.one]\nexecutor = "echo"\n[backends.two]\nexecutor = "echo"\n')
    assert cli("pause", "model", "big", "-q").lines == ["*/big"]
    assert cli("pause", "backend", "two", "-q").lines == ["*/big", "backend two"]
    assert cli("pause", "backend", "none").code == 5
    assert cli("pause", "model").code == 2

    def submit(*more: str) -> str:
        return str(cli("submit", "chat", "--executor", "echo", "x", "-q", *more).out.strip())

    big, elsewhere, two, free = (
        submit("--model", "big"),
        submit("--model", "big", "--backend", "one"),
        submit("--model", "small", "--backend", "two"),
        submit("--model", "small"),
    )
    processes.start("work")
    assert cli("wait", free, "--timeout", "20s").code == 0
    assert [state(cli, id) for id in (big, elsewhere, two)] == ["pending"] * 3
    assert cli("status", big, "--json=note").json["note"] == "paused: claims are stopped for model big"
    assert cli("resume", "model", "big", "-q").lines == ["backend two"]
    assert cli("wait", big, elsewhere, "--timeout", "20s").code == 0
    assert cli("resume", "backend", "two", "-q").lines == []
    assert cli("wait", two, "--timeout", "20s").code == 0
