"""Who reads our output through a pipe may have enough: what only follows ends then, not at the next line that there is to write."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def while_read() -> AsyncIterator[None]:
    """Raises BrokenPipeError inside as soon as the pipe behind standard output has no reader; other outputs are not watched."""
    import asyncio  # here, because help must be quick

    pipe = _pipe()
    task = asyncio.current_task()
    if pipe is None or task is None:
        yield
        return
    loop = asyncio.get_running_loop()
    left = False

    def gone() -> None:
        nonlocal left
        left = True
        loop.remove_reader(pipe)
        task.cancel()

    # Of a pipe's writing end the system reports nothing but that the other end is closed.
    loop.add_reader(pipe, gone)
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise BrokenPipeError from None
        raise
    finally:
        loop.remove_reader(pipe)


def _pipe() -> int | None:
    try:
        number = sys.stdout.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    except (OSError, ValueError):
        return None
