"""Child processes that a test starts, stops, kills, and is told about when they end badly."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultkit.place import Place

PROGRAMS = Path(__file__).parent.parent / "programs"


class Child:
    """One running program of `programs/`, with its JSON arguments; its stderr goes to a file beside the store."""

    def __init__(self, program: str, place: Place, **arguments: Any) -> None:
        self.program = program
        self._errors = Path(place.folder) / f"{program}-{time.monotonic_ns()}.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAMS / f"{program}.py"), json.dumps({"place": place.as_arguments(), **arguments})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def line(self, timeout: float = 20.0) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise AssertionError(f"expected a line from {self.program} within {timeout} s; its log: {self.errors}")
        text = self._process.stdout.readline().decode()
        if not text:
            raise AssertionError(f"{self.program} ended ({self._process.wait(5)}) without a word; its log: {self.errors}")
        return text.strip()

    def ready(self) -> Child:
        """Wait until it says so."""
        said = self.line()
        if said != "ready":
            raise AssertionError(f"expected `ready` from {self.program}, got {said!r}")
        return self

    def tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM, and return once it has been delivered, so that the next one is a second one."""
        self.send(signal.SIGTERM)
        until = time.monotonic() + 10
        while self._pending(signal.SIGTERM) and time.monotonic() < until:
            os.sched_yield()

    def _pending(self, number: signal.Signals) -> bool:
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
        return any(mask >> (number - 1) & 1 for mask in masks)

    def freeze(self, place: Place) -> None:
        """SIGSTOP outside a commit: a process that is stopped while it holds SQLite's write lock holds up everybody, lease or not."""
        for _ in range(100):
            self.send(signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
            db = sqlite3.connect(place.path, timeout=0.05, isolation_level=None)
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
            except sqlite3.OperationalError:
                self.send(signal.SIGCONT)
                continue
            finally:
                db.close()
            return
        raise AssertionError(f"{self.program} was in a commit each time it was stopped")

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was not read yet died with it

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit code. Raises AssertionError with its log when it does not end."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"expected {self.program} to end within {timeout} s; its log: {self.errors}") from None


Start = Callable[..., Child]
"""The fixture `start`: `start(program, place, **arguments)`."""


def absent(what: str) -> None:
    """A test that cannot be made here: loud, and a failure where everything is required."""
    if os.environ.get("INFERQ_E2E") == "required":
        pytest.fail(what)
    pytest.skip(what)
