"""SIGHUP: read the configuration again, apply what can be applied while work goes on, and say what cannot."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from inferq.cli.app import App

if TYPE_CHECKING:
    from inferq.config import Changes, Settings
    from inferq.queue import AsyncQueue

log: Final = logging.getLogger("inferq.config")

Applied = Callable[["Settings"], None]


@contextmanager
def on_hangup(app: App, queue: AsyncQueue, also: Applied | None = None) -> Iterator[None]:
    """Inside, SIGHUP reloads the configuration of this process; `also` is given what is in force afterwards.

    A terminal that goes away sends SIGHUP too: then there is nobody left to work for, and the process stops as with SIGTERM.
    """
    loop = asyncio.get_running_loop()
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    reloading: set[asyncio.Task[object]] = set()

    def heard() -> None:
        if on_terminal and not sys.stdin.isatty():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        task = loop.create_task(reload(app, queue, also))
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, heard)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def reload(app: App, queue: AsyncQueue, also: Applied | None = None) -> Changes | None:
    """Read the configuration again and apply it. A mistake in it is logged and changes nothing; None is the answer then."""
    import msgspec

    from inferq.errors import InferqError

    try:
        after = await asyncio.to_thread(app.read)
        made = await queue.reconfigure(after.settings)
    except (InferqError, OSError) as error:
        said = "; ".join(str(error).splitlines())
        log.error("configuration not reloaded, the old settings stay in force: %s", said, extra={"event": "config.reload_failed"})  # noqa: TRY400 - a user's mistake needs no traceback
        return None
    app.adopt(msgspec.structs.replace(after, settings=made.settings))
    if also is not None:
        also(made.settings)
    about = {"event": "config.reloaded", "applied": made.applied, "restart": made.restart}
    (log.warning if made.restart else log.info)("configuration reloaded; %s", made, extra=about)
    return made
