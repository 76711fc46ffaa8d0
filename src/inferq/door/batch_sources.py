"""What a batch can be made of, as bytes: files, pieces that come, rows of a program; and the form that their lines are read with."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final, TypeVar

import msgspec

from inferq.batch import Form
from inferq.errors import InvalidTask
from inferq.given import checked_priority
from inferq.task import Submission

T = TypeVar("T")
PIECE: Final = 1 << 16
"""Bytes of a file that are read at a time."""
Row = Submission | Mapping[str, Any]
Source = str | Path | bytes | IO[bytes] | AsyncIterable[bytes]
"""Where a file's bytes are: a path, the bytes, a binary file that is open, or pieces as they come."""


async def pieces(source: Source) -> AsyncIterator[bytes]:
    """The bytes of a source, some at a time. Raises OSError, InvalidTask for a file that was opened as text."""
    if isinstance(source, bytes):
        for start in range(0, len(source), PIECE):
            yield source[start : start + PIECE]
    elif isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
    elif isinstance(source, str | Path) and not _is_pipe(source):
        with Path(source).open("rb") as file:  # noqa: ASYNC230 - a read of some kilobytes of a local file
            while piece := file.read(PIECE):
                yield piece
    elif isinstance(source, str | Path):
        with await _apart(partial(_opened, source)) as pipe:
            while piece := await _apart(partial(pipe.read, PIECE)):
                yield piece
    else:
        # It may be a pipe: whoever writes into it takes the time it takes.
        read = getattr(source, "read1", source.read)
        while piece := await _apart(partial(read, PIECE)):
            if not isinstance(piece, bytes):
                raise InvalidTask(
                    f"expected a file opened as bytes, as in open(path, 'rb'), got one that gives {type(piece).__name__}", field="source"
                )
            yield piece


def _is_pipe(path: str | Path) -> bool:
    return Path(path).is_fifo()


def _opened(path: str | Path) -> IO[bytes]:
    """Of a pipe it waits for whoever writes into it."""
    return Path(path).open("rb", buffering=0)


async def _apart(call: Callable[[], T]) -> T:
    """What may wait for long, in a thread that the end of the program does not wait for: asyncio's own threads would hold up Ctrl-C."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: BaseException | None) -> None:
        if told.done():
            return
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = call()
        except BaseException as raised:  # noqa: BLE001 - raised again where it is waited for
            error = raised
        with suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(tell, value, error)

    Thread(target=run, name="inferq-read", daemon=True).start()
    return await told


async def encoded(rows: Iterable[Row]) -> AsyncIterator[bytes]:
    """Rows as JSON Lines. Raises InvalidTask naming the row that JSON cannot hold."""
    lines: list[bytes] = []
    for number, row in enumerate(rows, 1):
        try:
            lines.append(msgspec.json.encode(row if isinstance(row, Submission) else dict(row)))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidTask(f"expected JSON values, got: {error}", field=f"rows[{number - 1}]") from None
        if len(lines) == 200:
            yield b"\n".join(lines) + b"\n"
            lines = []
    if lines:
        yield b"\n".join(lines) + b"\n"


def source_of(source: Source, form: Form) -> str:
    """What tells one file and form from others: the same later means to go on where this was left. Empty where that cannot be told."""
    path = source if isinstance(source, str) else getattr(source, "name", None)
    if isinstance(source, Path):
        path = str(source)
    if not isinstance(path, str) or not Path(path).is_file():
        return ""
    # Moments move with the clock of whoever asks; they do not make another batch.
    lasting = {name: value for name, value in form.fields.items() if name != "scheduled_at"}
    mark = hashlib.blake2b(msgspec.json.encode(msgspec.structs.replace(form, fields=lasting)), digest_size=6).hexdigest()
    return f"{Path(path).resolve()}#{mark}"


def form_of(
    prompt: str | None,
    system: str | None,
    action: str,
    key: str | None,
    model: str,
    executor: str,
    priority: int | str | None,
    at: datetime | None,
    fields: Mapping[str, Any] | None,
) -> Form:
    made = dict(fields or {})
    if priority is not None:
        made["priority"] = checked_priority(priority)
    if at is not None:
        if getattr(at, "tzinfo", None) is None:
            raise InvalidTask(f"expected a time with its zone, got {at!r}", field="at")
        made["scheduled_at"] = round(at.timestamp() * 1000)
    return Form(prompt=prompt, system=system, action=action, key=key, model=model, executor=executor, fields=made)
