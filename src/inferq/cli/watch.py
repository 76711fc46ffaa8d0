"""`--watch`: a view that follows what happens. Redrawn on a terminal, a line for each change elsewhere; driven by events, never polled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from inferq.cli.app import App
from inferq.cli.output import Column, stdout_is_terminal
from inferq.cli.reader import while_read
from inferq.cli.records import task_record

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.query import Query
    from inferq.task import Task

_PAUSE: Final = 0.2
"""Seconds between two drawings at the least: what happens meanwhile is drawn together."""
_REMEMBERED: Final = 10_000
"""Tasks whose last line is remembered, so that several events that left a task as it was print it once."""
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


async def drawn(app: App, queue: AsyncDoor, draw: Callable[[], Awaitable[bool]]) -> None:
    """Draw now and after each burst of events, until `draw` says that nothing more can come. On a terminal over what was drawn before."""
    app.resume = "no longer watching"
    async with while_read(), aclosing(_bursts(queue)) as bursts:
        async for _ in bursts:
            if stdout_is_terminal():
                sys.stdout.write(_CLEAR)
            if not await draw():
                return


async def _bursts(queue: AsyncDoor) -> AsyncGenerator[None]:
    changed = asyncio.Event()
    stop = queue.subscribe(lambda _: changed.set())
    try:
        while True:
            changed.clear()
            yield
            await changed.wait()
            await asyncio.sleep(_PAUSE)
    finally:
        stop()


async def listed(
    app: App, queue: AsyncDoor, where: Query, columns: Sequence[Column], first: Callable[[], Awaitable[Sequence[Task]]]
) -> None:
    """The tasks that `first` finds, then each one that changes while the filter holds for it, and once more when it no longer does."""
    app.resume = "no longer watching"
    heard: asyncio.Queue[str] = asyncio.Queue()
    # Heard from before the listing on: a change in between comes twice rather than never.
    stop = queue.subscribe(lambda event: heard.put_nowait(getattr(event, "task_id", "")), "task.*")
    try:
        tasks = await first()
        app.out.lines([task_record(task) for task in reversed(tasks)], columns, titles=True)
        shown = {task.id: _look(task) for task in tasks}
        while True:
            async with while_read():
                id = await heard.get()
            task = await _changed(queue, id)
            if task is None or shown.get(task.id) == _look(task):
                continue
            fits = _fits(where, task)
            if fits or task.id in shown:
                app.out.lines([task_record(task)], columns)
            # The latest come last, so that the first to be forgotten are those that nothing has happened to for longest.
            shown.pop(task.id, None)
            if fits:
                shown[task.id] = _look(task)
            if len(shown) > _REMEMBERED:
                del shown[next(iter(shown))]
    finally:
        stop()


async def _changed(queue: AsyncDoor, task_id: str) -> Task | None:
    from inferq.errors import TaskNotFound

    try:
        return await queue.get(task_id)
    except TaskNotFound:
        return None  # removed meanwhile


def _look(task: Task) -> tuple[Any, ...]:
    """What makes a line worth printing again."""
    return (task.state, task.attempt, task.priority, task.code)


def _fits(where: Query, task: Task) -> bool:
    import time

    from inferq.query import matches, search

    return matches(task, search(where, int(time.time() * 1000)))
