"""`inferq serve` as a process that is killed and started again, and streams that are long enough to be cut by that."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from inferq import AsyncClient, AsyncHandle, LoggedChunk, errors
from inferq.testing import wait_until


class Served:
    """`inferq serve` as a process, on one port for all its lives."""

    def __init__(self, directory: Path, *, slots: int = 32) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._slots = str(slots)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")} | {"HOME": str(self._directory)}
        log = (self._directory / "server.log").open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "inferq",
                "serve",
                "--port",
                str(self.port),
                "--workers",
                self._slots,
                "--data-dir",
                str(self._directory),
            ],
            env=env,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()

    async def ready(self) -> None:
        async def answers() -> bool:
            async with AsyncClient(self.url, retries=0) as client:
                try:
                    await client.stats()
                except errors.TransportError:
                    return False
            return True

        await wait_until(answers, timeout=60, every=0.05, what="the server to answer")

    def end(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


class Streams:
    """Tasks that speak a word at a time, each followed by a reader that keeps what it was given."""

    def __init__(self, handles: Sequence[AsyncHandle], texts: Sequence[str]) -> None:
        self.handles = handles
        self.read: list[list[LoggedChunk]] = [[] for _ in handles]
        self._texts = texts
        self._readers = [asyncio.create_task(_read(handle, into)) for handle, into in zip(handles, self.read, strict=True)]

    @classmethod
    async def begin(cls, client: AsyncClient, count: int, *, words: int, per_second: float) -> Streams:
        texts = [" ".join(f"w{number}-{word}" for word in range(words)) for number in range(count)]
        handles = [
            await client.chat("m", "hi", executor="echo", priority="high", payload={"tokens_per_second": per_second, "text": text})
            for text in texts
        ]
        return cls(handles, texts)

    async def begun(self, chunks: int = 3) -> None:
        """Each reader has been given some, and none has come to the end."""
        await wait_until(lambda: all(len(read) >= chunks for read in self.read), timeout=60, what="every stream to have begun")
        assert not any(reader.done() for reader in self._readers), "the test came too late"

    def running(self) -> bool:
        return not any(reader.done() for reader in self._readers)

    async def whole(self) -> int:
        """Read to the end: gap-free and nothing twice in each attempt, one terminal record, the last attempt's text whole.

        Returns how many readers saw more than one attempt.
        """
        await asyncio.gather(*self._readers)
        for chunks, text in zip(self.read, self._texts, strict=True):
            _check(chunks, text)
        return sum(len({logged.position.attempt for logged in chunks}) > 1 for chunks in self.read)


async def _read(handle: AsyncHandle, into: list[LoggedChunk]) -> None:
    async for logged in handle.stream():
        into += [logged]  # seen by the test while it goes on


def _check(chunks: list[LoggedChunk], text: str) -> None:
    by_attempt: dict[int, list[LoggedChunk]] = {}
    for logged in chunks:
        by_attempt.setdefault(logged.position.attempt, []).append(logged)
    assert list(by_attempt) == sorted(by_attempt)
    for entries in by_attempt.values():
        assert [logged.position.index for logged in entries] == list(range(1, len(entries) + 1))
    assert [logged.chunk.kind for logged in chunks].count("end") == 1
    assert (chunks[-1].chunk.kind, chunks[-1].chunk.text) == ("end", "completed")
    last = by_attempt[max(by_attempt)]
    assert "".join(logged.chunk.text for logged in last if logged.chunk.kind == "text") == text
