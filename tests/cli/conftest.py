"""Running the command line: in this process for what it prints, as real processes for signals, pipes and terminals."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from inferq.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # calls.py is shared, which importlib mode does not provide for


@dataclass
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own: an empty working directory, no configuration of this machine, a store in it."""
    for name in list(os.environ):
        if name.startswith(("INFERQ_", "OLLAMA_", "QUEUE_", "RETRY_", "LLM_QUEUE_")) and name != "INFERQ_E2E":
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("INFERQ_URL", f"sqlite:///{tmp_path / 'queue.db'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Cli = Callable[..., Ran]


@pytest.fixture
def cli(home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command in this process, as in a pipe; `stdin` is what is piped in."""

    def run(*args: str, stdin: str | bytes = b"") -> Ran:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data), encoding="utf-8"))
        capfd.readouterr()
        code = main([*args])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    yield run
    # A command sets up logging for its process; here it must not outlive the test that captured its stream.
    for handler in [handler for handler in logging.getLogger().handlers if handler.get_name() == "inferq.cli"]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.getLogger("inferq").setLevel(logging.NOTSET)


class Processes:
    """Starts real commands and ends those that are left, by their ids."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-m", "inferq", *args], text=True, **(given | more))
        self.started.append(process)
        return process

    def run(self, *args: str, **more: Any) -> Ran:
        process = self.start(*args, **more)
        out, err = process.communicate(timeout=60)
        return Ran(process.returncode, out, err)

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def processes(home: Path) -> Iterator[Processes]:
    made = Processes()
    yield made
    made.end()
