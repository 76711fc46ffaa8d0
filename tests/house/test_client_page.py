"""docs/client.md is true: its programs and its commands run against a server, in the order they stand there."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from pages import INFERQ, Desk, Page

PAGE = Page("client.md")
ADDRESS = "http://127.0.0.1:7125"


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    """A server, on a free port instead of the page's."""
    desk.environment.pop("INFERQ_URL")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(INFERQ), "serve", "--port", str(port), "--data-dir", str(desk.folder / "data"), "-q"]
    serving = subprocess.Popen(command, env=desk.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while subprocess.run([str(INFERQ), "health", "-q", "--url", f"http://127.0.0.1:{port}"], env=desk.environment, check=False).returncode:
        assert time.monotonic() < until
        assert serving.poll() is None
    yield f"http://127.0.0.1:{port}"
    serving.terminate()
    serving.wait(30)


def test_the_programs_run(url: str, desk: Desk) -> None:
    said = [desk.program(program.replace(ADDRESS, url)) for program in PAGE.blocks("python")]
    assert len(said) == 2
    assert said[0] == ["Why is the sky blue?", "stop 1", "scheduled scheduled", "priority"]
    assert said[1] == ["[{'number': 0}, {'number': 1}, {'number': 2}]", "task.completed"]


def test_the_commands_run(url: str, desk: Desk) -> None:
    (desk.folder / "key.txt").write_text("iq_any_thing\n")
    lines = PAGE.blocks("sh")[0].splitlines()
    assert len(lines) == 5
    for line in lines:
        told = desk.command(line.replace(ADDRESS, url))
        if line == "inferq status":
            assert f"queue\t{url}\tprofile lab" in told


def test_the_table_of_errors_has_the_exit_codes_of_the_commands() -> None:
    from inferq import errors
    from inferq.cli.exits import exit_of

    rows = re.findall(r"^\| (`.*?`) \|.*\| (\d+) \|$", PAGE.text, re.MULTILINE)
    assert len(rows) == 7
    for names, code in rows:
        for name in re.findall(r"`(\w+)`", names):
            kind = getattr(errors, name)
            assert int(exit_of(kind("x"))) == int(code), name
