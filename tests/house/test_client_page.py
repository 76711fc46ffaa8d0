"""docs/client.md is true: its programs and its commands run against a server, in the order they stand there."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
INFERQ = Path(sys.executable).with_name("inferq")
ADDRESS = "http://127.0.0.1:7125"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "INFERQ_SERVER__PORT": "0"}


@pytest.fixture
def url(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """A server, on a free port instead of the page's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(INFERQ), "serve", "--port", str(port), "--data-dir", str(tmp_path / "data"), "-q"]
    serving = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while subprocess.run([str(INFERQ), "health", "-q", "--url", f"http://127.0.0.1:{port}"], env=environment, check=False).returncode:
        assert time.monotonic() < until
        assert serving.poll() is None
    yield f"http://127.0.0.1:{port}"
    serving.terminate()
    serving.wait(30)


def test_the_programs_run(url: str, tmp_path: Path, environment: dict[str, str]) -> None:
    blocking, asynchronous = blocks("python")
    said = []
    for program in (blocking, asynchronous):
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program.replace(ADDRESS, url)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout.splitlines())
    assert said[0] == ["Why is the sky blue?", "stop 1", "scheduled scheduled", "priority"]
    assert said[1] == ["[{'number': 0}, {'number': 1}, {'number': 2}]", "task.completed"]


def test_the_commands_run(url: str, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "key.txt").write_text("iq_any_thing\n")
    lines = blocks("sh")[0].splitlines()
    assert len(lines) == 5
    for line in lines:
        ran = subprocess.run(
            line.replace("inferq", str(INFERQ), 1).replace(ADDRESS, url), shell=True, cwd=tmp_path, env=environment, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
        if line == "inferq status":
            assert f"queue\t{url}\tprofile lab" in ran.stdout


def test_the_table_of_errors_has_the_exit_codes_of_the_commands() -> None:
    from inferq import errors
    from inferq.cli.exits import exit_of

    rows = re.findall(r"^\| (`.*?`) \|.*\| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for names, code in rows:
        for name in re.findall(r"`(\w+)`", names):
            kind = getattr(errors, name)
            assert int(exit_of(kind("x"))) == int(code), name
