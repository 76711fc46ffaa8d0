"""`inferq bench` measures, stays within its bounds, and leaves nothing behind: here, at a server, and when it is interrupted."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

Cli = Any  # the fixtures of the conftest, which test files cannot import
Processes = Any


def left(home: Path) -> list[str]:
    return [path.name for path in home.iterdir() if path.name.startswith("inferq-bench-")]


def test_it_measures_a_temporary_store_beside_the_configured_one_and_removes_it(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("bench", "--tasks", "60", "--concurrency", "4", "--payload-bytes", "40", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["tasks"], found["work"]["tasks"], found["alone"]["tasks"]) == (60, 60, 50)
    assert (found["where"], found["durability"], found["stopped"]) == (f"a temporary store in {home}", "full", False)
    assert 0 < found["submit"]["ms"]["p50"] <= found["submit"]["ms"]["p95"] <= found["submit"]["ms"]["p99"] <= found["submit"]["ms"]["max"]
    assert found["submit"]["per_second"] > 0
    assert found["sync_ms"]["p50"] > 0
    assert left(home) == []
    assert cli("list", "-q").lines == []
    monkeypatch.setattr("inferq.cli.bench._ALONE", 3)
    table = cli("bench", "--tasks", "5", "--backend", "demo")
    assert {"whole lives", "submits", "sync of the disk"} <= {line.split("\t")[0] for line in table.lines}


def test_it_ends_when_its_time_is_up_and_says_so(cli: Cli, home: Path) -> None:
    began = time.monotonic()
    ran = cli("bench", "--tasks", "1000000", "--limit", "300ms", "--json")
    assert time.monotonic() - began < 20
    assert (ran.code, ran.json["stopped"], ran.json["alone"]) == (0, True, None)
    assert 0 < ran.json["tasks"] < 1_000_000
    assert "--limit gives it more time" in ran.err
    assert left(home) == []


def test_ctrl_c_removes_what_it_made(processes: Processes, home: Path) -> None:
    bench = processes.start("bench", "--tasks", "1000000", "--limit", "1h", "--progress", "plain")
    while not list(home.glob("inferq-bench-*/bench.db-wal")):
        assert bench.poll() is None
    assert len(left(home)) == 1
    bench.send_signal(signal.SIGINT)
    _, err = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert "what it made is removed" in err
    assert left(home) == []
