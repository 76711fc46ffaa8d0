"""The executor of the fault tests: writes down when each attempt starts and ends, and ends as its payload says."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from inferq.errors import ExecutorError, Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Chunk, Executor

_BLOCK_BYTES = 1024


class Log:
    """An append-only file of JSON lines that several processes share; a line is written with one system call."""

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, **record: Any) -> None:
        os.write(self._fd, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


class Recorder(Executor):
    """Action `do`. Payload, all optional: `ms` (how long it takes), `chunks` (how many it streams), `fail` (for each attempt null or
    `again`, `wait`, `no`), `hold` (a file: it ends only once that exists), `block` and `spin` (seconds for which the event loop stands
    still, asleep or busy), `answer_bytes` (size of the answer's text)."""

    actions = ("do",)
    description = "Writes its own history; for fault tests."

    def __init__(self, runs: Path | str, name: str = "record") -> None:
        super().__init__(name)
        self._log = Log(runs)

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        self._record("start", call)
        how = "interrupted"
        try:
            async for chunk in self._work(call):
                yield chunk
            error = _scripted(call)
            if error is not None:
                how = "failed"
                raise error
            how = "done"
        finally:
            self._record("end", call, how=how)
        data = {"pid": os.getpid(), "attempt": call.attempt, "n": call.payload.get("n")}
        yield Answer(text="x" * int(call.payload.get("answer_bytes", 0)), data=data)

    async def _work(self, call: Call) -> AsyncIterator[Chunk]:
        payload = call.payload
        for number in range(int(payload.get("chunks", 0))):
            yield Chunk("text", f"{call.attempt}.{number} ")
            await asyncio.sleep(0.001)
        if payload.get("ms"):
            await asyncio.sleep(payload["ms"] / 1000)
        if payload.get("block"):
            time.sleep(payload["block"])  # noqa: ASYNC251 - a handler that blocks the event loop is what is tested
        until = time.monotonic() + payload.get("spin", 0)
        while time.monotonic() < until:
            sum(range(_BLOCK_BYTES))
        while payload.get("hold") and not Path(payload["hold"]).exists():  # noqa: ASYNC240 - another process makes the file
            await asyncio.sleep(0.005)

    def _record(self, what: str, call: Call, **more: Any) -> None:
        now = time.monotonic_ns()
        self._log.write(what=what, task=call.task_id, attempt=call.attempt, pid=os.getpid(), mono=now, **more)

    async def close(self) -> None:
        """The file stays open until the process ends: an attempt may still write its end."""


def _scripted(call: Call) -> ExecutorError | None:
    fates = call.payload.get("fail", [])
    match fates[call.attempt - 1] if call.attempt <= len(fates) else None:
        case "again":
            return Unavailable("scripted: may succeed when made again", failure="server_error")
        case "wait":
            return RetryLater("scripted: full", after=0.03)
        case "no":
            return Reject("scripted: cannot succeed")
        case _:
            return None
