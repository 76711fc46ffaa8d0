"""Following a task: the line that says why it waits, its chunks as they come, its result at the end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from inferq.cli.app import App
from inferq.cli.output import aside, cell, json_text, say, warn
from inferq.cli.reader import while_read

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.store import LoggedChunk
    from inferq.task import TaskResult

_PATIENCE = 0.3
"""Seconds before the first waiting line: what starts at once needs none."""
_TERMINAL_STEP, _PIPE_STEP = 0.5, 5.0


def result_record(result: TaskResult) -> dict[str, Any]:
    """A result with every field, set or not."""
    import msgspec

    shown = result.shown()
    record = {name: getattr(shown, name) for name in shown.__struct_fields__}
    made: dict[str, Any] = msgspec.to_builtins(record)
    usage = {name: getattr(result.usage, name, None) for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")}
    return {"id": result.task_id, **made, "usage": usage if result.usage else None}


def text_of(result: TaskResult) -> str:
    """A result as one text: the answer, or JSON where it is none."""
    if result.text is not None:
        return result.text
    for value in (result.data, result.embeddings, result.message):
        if value is not None:
            return json_text(value)
    return ""


@asynccontextmanager
async def waiting_line(app: App, queue: AsyncDoor, task_id: str) -> AsyncIterator[None]:
    """Meanwhile say on stderr why the task waits, while it does."""
    if not app.progress:
        yield
        return
    import asyncio

    teller = asyncio.create_task(_tell(app, queue, task_id))
    try:
        yield
    finally:
        teller.cancel()
        with suppress(asyncio.CancelledError):
            await teller


async def _tell(app: App, queue: AsyncDoor, task_id: str) -> None:
    import asyncio

    from inferq.task import WAITING

    terminal = app.redraws
    last = ""
    try:
        await asyncio.sleep(_PATIENCE)
        while (await queue.get(task_id)).state in WAITING:
            reason = cell(await queue.why(task_id))
            if reason != last:
                last = reason
                if terminal:
                    sys.stderr.write(f"\r\x1b[2Kwaiting: {reason}")
                    sys.stderr.flush()
                else:
                    say(f"waiting: {reason}")
            await asyncio.sleep(_TERMINAL_STEP if terminal else _PIPE_STEP)
    finally:
        if terminal and last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


class _Printer:
    """Prints chunks in one format and remembers whether anything went to stdout."""

    def __init__(self, app: App, *, thinking: bool) -> None:
        self.app = app
        self.thinking = thinking
        self.wrote = ""
        self.kept: list[dict[str, Any]] = []

    def take(self, logged: LoggedChunk) -> None:
        chunk = logged.chunk
        record = {"position": place_text(logged), "kind": chunk.kind, "text": chunk.text, "data": chunk.data}
        if self.app.out.format == "jsonl":
            self.app.out.records([record], [])
        elif self.app.out.format == "json":
            # The forerunners' shape: pieces of text as data, one error or done at the end.
            if chunk.kind not in ("reset", "end"):
                self.kept.append({**record, "data": chunk.text if chunk.data is None else chunk.data})
            elif chunk.kind == "reset":
                self.kept.clear()
        else:
            self._text(logged)

    def _text(self, logged: LoggedChunk) -> None:
        chunk = logged.chunk
        match chunk.kind:
            case "text" | "stdout":
                self._out(chunk.text)
            case "stderr":
                aside(chunk.text)
            case "thinking" if self.thinking:
                aside(chunk.text)
            case "tool_calls":
                self._out(("" if self.wrote in ("", "\n") else "\n") + json_text(chunk.data) + "\n")
            case "reset":
                self._reset(chunk.data if isinstance(chunk.data, dict) else {})
            case _:
                pass

    def _reset(self, data: dict[str, Any]) -> None:
        if self.wrote:
            self.end_line()
            reason = f" ({data['reason']})" if data.get("reason") else ""
            warn(f"attempt {data.get('attempt', 'again')} begins{reason}: the text above is void")

    def _out(self, text: str) -> None:
        if text:
            self.app.out.write(text, end="")
            self.wrote = text[-1]

    def end_line(self) -> None:
        if self.wrote and self.wrote != "\n":
            self._out("\n")


def place_text(logged: LoggedChunk) -> str:
    """A chunk's place as `tail --from` takes it."""
    return f"{logged.position.attempt}-{logged.position.index}"


async def follow(app: App, queue: AsyncDoor, task_id: str, *, after: tuple[int, int] = (0, 0), thinking: bool = False) -> None:
    """Print a task's stream from a place to its end. Raises TaskFailed or TaskCancelled when it ended so."""
    from inferq.errors import TaskError
    from inferq.store import Position

    printer = _Printer(app, thinking=thinking)
    try:
        async with while_read():
            async with waiting_line(app, queue, task_id):
                stream = queue.stream(task_id, after=Position(*after))
                first = await anext(stream, None)
            if first is not None:
                printer.take(first)
                async for logged in stream:
                    printer.take(logged)
        result = await queue.result(task_id)
    except TaskError as error:
        if app.out.format == "json":
            app.out.json({"task_id": task_id, "streaming": True, "chunks": [*printer.kept, {"error": str(error)}]})
        raise
    finally:
        printer.end_line()
    if app.out.format == "json":
        app.out.json({"task_id": task_id, "streaming": True, "chunks": [*printer.kept, {"done": True}]})
    elif app.out.format == "text" and not printer.wrote and after == (0, 0):
        app.out.write(text_of(result))


async def collect(app: App, queue: AsyncDoor, task_id: str, *, timeout: float | None = None) -> TaskResult:
    """Wait for a task's result, saying why it waits. Raises TaskFailed, TaskCancelled, WaitTimeout."""
    async with waiting_line(app, queue, task_id):
        return await queue.result(task_id, timeout=timeout)


def print_result(app: App, result: TaskResult) -> None:
    """A result in the chosen format."""
    if app.out.format == "text":
        app.out.write(text_of(result))
    elif app.out.format == "id":
        app.out.write(result.task_id)
    else:
        app.out.record(result_record(result), [])
