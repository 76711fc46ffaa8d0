"""Fixtures of the forerunners' gaps: queues, scripted servers, the real command, and an event loop whose clock can jump."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, Backend, BackendSettings, Executor, Settings
from inferq.config import RetrySettings, WorkerSettings
from inferq.testing import EchoExecutor

sys.path.insert(0, str(Path(__file__).parents[1] / "executors"))  # the scripted servers live there

from doubles.server import Double

Opener = Callable[..., Awaitable[AsyncQueue]]


@pytest.fixture(autouse=True)
def _no_backends_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OPENAI_BASE_URL", "OPENAI_API_KEY", "INFERQ_URL", "INFERQ_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def quick(**worker: Any) -> Settings:
    """Settings under which nothing is found by polling, and a retry comes at once."""
    return Settings(
        worker=WorkerSettings(**({"poll_interval": 3600.0} | worker)), retry=RetrySettings(initial_delay=0.001, max_delay=0.001)
    )


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a queue on a file of this test; the default backend is echo."""
    async with AsyncExitStack() as stack:

        async def make(
            *backends: Executor | Backend | BackendSettings,
            name: str = "q.db",
            settings: Settings | None = None,
            work: bool = True,
            **worker: Any,
        ) -> AsyncQueue:
            queue = AsyncQueue(
                str(tmp_path / name), backends=backends or [EchoExecutor("echo")], settings=settings or quick(**worker), work=work
            )
            await queue.start()
            stack.push_async_callback(queue.close, 0)
            return queue

        yield make


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """A scripted HTTP server."""
    made = Double()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    """Lets the event loop believe that so many seconds have passed: its timers fire as if they had."""
    ahead = 0.0

    async def forward(seconds: float) -> None:
        nonlocal ahead
        loop = asyncio.get_running_loop()
        if not ahead:
            real = loop.time
            monkeypatch.setattr(loop, "time", lambda: real() + ahead)
        ahead += seconds
        for _ in range(20):
            await asyncio.sleep(0)

    return forward


class Command:
    """The real `inferq`, in a home of its own; processes that are left are ended by their ids."""

    def __init__(self, home: Path) -> None:
        self.home = home
        own = {"HOME": str(home), "INFERQ_URL": str(home / "q.db"), "XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "c")}
        foreign = ("INFERQ_", "OLLAMA_", "QUEUE_", "RETRY_", "SCHEDULER_", "LOG_", "XDG_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *args: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name("inferq")
        process = subprocess.Popen(
            [str(program), *args], cwd=self.home, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def __call__(self, *args: str, code: int = 0) -> str:
        """What the command printed on stdout; its exit code must be `code`."""
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"inferq {' '.join(args)} ended with {process.returncode}: {out}{err}"
        return out

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "-o", "json"))

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def inferq(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path)
    yield made
    made.end()
