"""The guide, word for word, against `inferq serve`: one that runs tasks, a gateway without workers beside it, a client process of each."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq.testing import wait_until

GUIDE = Path(__file__).parent.parent / "guide"
CONFIGURATION = """
[retry]
initial_delay = "1ms"
max_delay = "1ms"

[backends.echo]
executor = "echo"

[backends.shout]
executor = "shout"
over_http = true

[backends.spell]
executor = "spell"
over_http = true

[backends.moody]
executor = "moody"
over_http = true
"""
ENTRY_POINTS = """
[inferq.executors]
shout = test_08_executor:Shout
spell = test_08_executor:Spell
moody = test_08_executor:Moody
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The executors of guide 8 as an installed package: what `pip install --target` leaves."""
    site = tmp_path / "site-packages"
    info = site / "guide_executors-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guide-executors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "test_08_executor.py").write_text((GUIDE / "test_08_executor.py").read_text("utf-8"))
    return site


class Processes:
    """Programs of one user on one machine; what they say goes to a file. Those that are left are ended by their own ids."""

    def __init__(self, home: Path, plugin: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "XDG_", "OLLAMA", "OPENAI"))}
        self._env = kept | {"HOME": str(home), "PYTHONPATH": str(plugin)}
        self._home = home
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, said: Path, *args: str, **env: str) -> subprocess.Popen[bytes]:
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *args], cwd=self._home, env=self._env | env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path: Path, plugin: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, plugin)
    yield made
    made.end()


class Server:
    """`inferq serve` on a free port."""

    def __init__(self, processes: Processes, home: Path, name: str, *args: str) -> None:
        (home / "inferq.toml").write_text(CONFIGURATION)
        self._log = home / f"{name}.log"
        config = ("--config", str(home / "inferq.toml"), "--data-dir", str(home / "data"))
        self._process = processes.start(self._log, "inferq", "serve", "--port", "0", *config, *args, INFERQ_LOG__FORMAT="json")

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    async def started(self) -> dict[str, Any]:
        """How it greets."""

        def greeting() -> dict[str, Any] | None:
            assert self._process.poll() is None, self._log.read_text()
            return next((line for line in self.log() if line.get("event") == "server.started"), None)

        return await wait_until(greeting, timeout=30, every=0.02)

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(60)


def number_of_examples() -> int:
    return sum(len(re.findall(r"^(?:async )?def test_", page.read_text("utf-8"), re.MULTILINE)) for page in GUIDE.glob("test_*.py"))


@pytest.mark.timeout(300)
async def test_the_whole_guide_runs_against_a_server_and_against_a_gateway(processes: Processes, tmp_path: Path) -> None:
    server, gateway = Server(processes, tmp_path, "server"), Server(processes, tmp_path, "gateway", "--no-work")
    greetings = [await server.started(), await gateway.started()]
    assert [greeting["slots"] > 0 for greeting in greetings] == [True, False]

    examples = ("pytest", str(GUIDE), "-q", "-p", "no:cacheprovider")
    clients = []
    for number, greeting in enumerate(greetings):
        said = tmp_path / f"client-{number}.txt"
        where = {"INFERQ_GUIDE_EMPTIES": greeting["url"], "INFERQ_GUIDE_TURNS": str(tmp_path / "turns")}
        clients.append((processes.start(said, *examples, **where), said))
    for client, said in clients:
        assert await asyncio.to_thread(client.wait, 280) == 0, said.read_text()
        assert f"\n{number_of_examples()} passed" in said.read_text()
        assert "skipped" not in said.read_text()

    for each in (server, gateway):
        assert each.stop() == 0
        assert [line for line in each.log() if line["level"] not in ("debug", "info", "warning")] == []
