"""A child process in a group of its own: its output without loss and within bounds, its end certain for the group."""

from __future__ import annotations

import asyncio
import codecs
import math
import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from inferq.errors import Reject, Unavailable

Stream = Literal["stdout", "stderr"]

_KEPT: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM")
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")
_HIGH_WATER: Final = 1024 * 1024
"""Bytes read ahead of the reader; beyond, the child waits in its write."""
_POLL: Final = 0.02
_QUIET: Final = 0.05
"""Seconds without news after which a pipe that somebody outside the group holds open is taken for empty."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout`: seconds a run may take (None: no bound). `output`: bytes both streams may have together. `grace`:
    seconds from SIGTERM to SIGKILL. `linger`: seconds that children left behind may write after the program's end."""

    timeout: float | None
    output: int
    grace: float
    linger: float


def safe_environment(*, everything: bool) -> dict[str, str]:
    """What a child gets of our environment: what programs need to work, so that no API key leaks by default."""
    if everything:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}


def exit_words(code: int) -> str:
    """An exit code for people; negative is a signal's number."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class _Output:
    """What came from both pipes and was not read yet, in order of arrival."""

    def __init__(self, limit: int) -> None:
        self.waiting: deque[tuple[Stream, str]] = deque()
        self.left = limit
        self.size = 0
        self.open = 0
        self.overflow = False
        self.news = asyncio.Event()
        self._pipes: list[_Pipe] = []

    def add(self, pipe: _Pipe) -> None:
        self._pipes.append(pipe)
        self.open += 1

    def put(self, stream: Stream, text: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            self.overflow = True
        elif text:
            self.waiting.append((stream, text))
            self.size += len(text)
        if self.size > _HIGH_WATER or self.overflow:
            for pipe in self._pipes:
                pipe.pause()
        self.news.set()

    def take(self) -> tuple[Stream, str]:
        item = self.waiting.popleft()
        self.size -= len(item[1])
        if not self.waiting and not self.overflow:
            for pipe in self._pipes:
                pipe.resume()
        return item

    def ended(self) -> None:
        self.open -= 1
        self.news.set()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


class _Pipe(asyncio.Protocol):
    """One end of a pipe: bytes to text, also where a character is cut by the border of two reads."""

    def __init__(self, stream: Stream, output: _Output) -> None:
        self._stream: Stream = stream
        self._output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._output.put(self._stream, self._decoder.decode(data), len(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._output.put(self._stream, self._decoder.decode(b"", final=True), 0)
        self._output.ended()
        self._transport = None

    def pause(self) -> None:
        if self._transport and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport:
            self._transport.close()


class Group:
    """A running child and everything it started; leaving the context ends them all, whatever the reason."""

    def __init__(self, process: asyncio.subprocess.Process, output: _Output, limits: Limits) -> None:
        self._process = process
        self._output = output
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._ends = math.inf if limits.timeout is None else self._clock() + limits.timeout

    @classmethod
    @asynccontextmanager
    async def start(
        cls, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str | None, limits: Limits
    ) -> AsyncIterator[Group]:
        """Start the child. Raises `Reject(script_failed)` when there is no such program or it may not be run."""
        output = _Output(limits.output)
        process = await _spawn(argv, cwd=cwd, env=env, feed=stdin is not None, output=output)
        group = cls(process, output, limits)
        feeder = asyncio.create_task(_feed(process.stdin, stdin)) if process.stdin and stdin is not None else None
        try:
            yield group
        finally:
            if feeder:
                feeder.cancel()
            try:
                await group.stop()
            finally:
                if process.stdin:
                    process.stdin.close()
                output.close()
                await asyncio.sleep(0)  # pipes close in the loop's next turn

    async def output(self) -> AsyncGenerator[tuple[Stream, str]]:
        """Everything that is written, until both streams are closed; at the latest what was written `linger` after the end.

        Raises `Unavailable(timeout)` when the time is up, `Reject(script_failed)` at more than `Limits.output` bytes.
        """
        leader = asyncio.create_task(self._process.wait())
        leader.add_done_callback(lambda _: self._output.news.set())
        lingers = math.inf
        stopped = quiet = False
        try:
            while True:
                self._output.news.clear()
                for _ in range(len(self._output.waiting)):
                    yield self._output.take()
                self._check()
                if self._output.waiting:
                    continue
                if quiet or not self._output.open:
                    return
                if leader.done() and lingers == math.inf:
                    lingers = self._clock() + self._limits.linger
                if self._clock() >= lingers and not stopped:
                    # Nothing is lost by ending who is left: what they wrote is in the pipes, and read before we go.
                    await self.stop()
                    stopped = True
                    continue
                heard = await self._news(until=self._clock() + _QUIET if stopped else min(self._ends, lingers))
                quiet = stopped and not heard
        finally:
            leader.cancel()

    def _check(self) -> None:
        if self._output.overflow:
            limit = self._limits.output
            raise Reject(f"it wrote more than {limit} bytes (max_output_bytes)", failure="script_failed")
        if self._clock() >= self._ends:
            raise self._late()

    async def exit_code(self) -> int:
        """The program's exit code. Raises `Unavailable(timeout)` when the time is up before it."""
        try:
            async with asyncio.timeout(self._left(self._ends)):
                return await self._process.wait()
        except TimeoutError:
            raise self._late() from None

    async def stop(self) -> None:
        """End every process of the group: SIGTERM, `grace`, SIGKILL. Nothing happens when all have ended."""
        until = self._clock() + self._limits.grace
        try:
            if self._send(signal.SIGTERM):
                while self._clock() < until and self._send(0):
                    await asyncio.sleep(_POLL)
        finally:
            # Also when this very waiting was cancelled: nothing may outlive it.
            self._send(signal.SIGKILL)
        await self._process.wait()

    async def _news(self, *, until: float) -> bool:
        """Whether anything happened before that time."""
        try:
            async with asyncio.timeout(self._left(until)):
                return await self._output.news.wait()
        except TimeoutError:
            return False

    def _left(self, until: float) -> float | None:
        return None if until == math.inf else max(0.0, until - self._clock())

    def _late(self) -> Unavailable:
        limit = self._limits.timeout
        return Unavailable(f"it ran longer than its timeout of {limit} s and was killed", failure="timeout")

    def _send(self, number: int) -> bool:
        """Whether anything of the group was there to get the signal."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


async def _spawn(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], feed: bool, output: _Output) -> asyncio.subprocess.Process:
    # Our own pipes: asyncio's wait for their end as long as any descendant holds them open.
    writers: list[int] = []
    try:
        for stream in _STREAMS:
            writers.append(await _attach(stream, output))  # noqa: PERF401 - each must be closed if the next one fails
        return await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=dict(env),
            stdin=asyncio.subprocess.PIPE if feed else asyncio.subprocess.DEVNULL,
            stdout=writers[0],
            stderr=writers[1],
            start_new_session=True,
        )
    except BaseException as error:
        output.close()
        if not isinstance(error, OSError | ValueError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Reject(f"{argv[0]!r} cannot be started: {reason}", failure="script_failed") from error
    finally:
        for writer in writers:
            os.close(writer)


async def _attach(stream: Stream, output: _Output) -> int:
    """A new pipe whose reading end goes to `output`; gives back its writing end."""
    reader, writer = os.pipe()
    pipe = _Pipe(stream, output)
    await asyncio.get_running_loop().connect_read_pipe(lambda: pipe, os.fdopen(reader, "rb", 0))
    output.add(pipe)
    return writer


async def _feed(stdin: asyncio.StreamWriter, text: str) -> None:
    try:
        stdin.write(text.encode("utf-8", "surrogatepass"))
        await stdin.drain()
    except OSError:
        return  # a program need not read its input
    finally:
        stdin.close()
