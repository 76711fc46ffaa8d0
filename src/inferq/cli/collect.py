"""The verbs that wait for tasks: result, wait, tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inferq.cli import ids as ids_
from inferq.cli.app import App
from inferq.cli.exits import Exit, together
from inferq.cli.groups import Command
from inferq.cli.output import output_options, say
from inferq.cli.params import DURATION, PLACE
from inferq.cli.records import ENDED_COLUMNS, TASK_FIELDS, task_record
from inferq.cli.stream import collect, follow, print_result, waiting_line

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.task import Task

RESULT_FIELDS = (
    "id", "task_id", "text", "message", "embeddings", "data", "finish_reason", "model", "usage", "backend", "remote",
    "executed_on", "worker", "attempts", "tried", "timing", "raw",
)  # fmt: skip


@click.command(
    cls=Command,
    examples="""
        inferq result 019ab3c4-d5e6-7f01
        inferq result $(inferq submit chat --model llama3.2 "hi" -q) --wait --timeout 5m
        inferq list -q --tag nightly | inferq result - -o jsonl
    """,
    exits=(Exit.FAILED, Exit.PARTIAL, Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.INTERRUPTED),
    fields=RESULT_FIELDS,
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--wait", is_flag=True, help="Wait until it has ended; without, an unfinished task is an error (6).")
@click.option("--timeout", type=DURATION, help="Wait no longer than this (implies --wait); the task goes on.")
@output_options(formats=("text", "json", "jsonl", "id"), default="text", ids=False)
@click.pass_obj
def result(app: App, ids: tuple[str, ...], wait: bool, timeout: float | None) -> None:
    """Print what tasks answered.

    A failed task is an error (1). IDs may be unique prefixes; `-` reads them from standard input; several results are
    printed in the order asked for.
    """
    app.run(_results(app, ids_.given(ids), wait=wait or timeout is not None, timeout=timeout))


async def _results(app: App, ids: list[str], *, wait: bool, timeout: float | None) -> None:
    from inferq.errors import WrongState

    async with app.queue() as queue:
        app.resume = f"no longer waiting; go on with: inferq result {' '.join(ids[:3])} --wait"

        async def one(task_id: str) -> None:
            if not wait and not (task := await queue.get(task_id)).state.is_final:
                raise WrongState(f"task {task_id} has not ended: it is {task.state}; wait for it with --wait")
            print_result(app, await collect(app, queue, task_id, timeout=timeout))

        ends = await ids_.each(queue, ids, one)
    app.end(together(ends))


@click.command(
    cls=Command,
    examples="""
        inferq wait 019ab3c4-d5e6-7f01 && echo done
        inferq wait --timeout 10m tag:nightly model:qwen3
        inferq wait --any 019ab3c4-d5e6-7f01 019ab3c4-d5e6-7f02
    """,
    exits=(Exit.FAILED, Exit.PARTIAL, Exit.NOT_FOUND, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.INTERRUPTED),
    fields=(*TASK_FIELDS, "note"),
)
@click.argument("ids", nargs=-1, metavar="[ID...|QUERY]")
@click.option("--query", "-Q", "query", metavar="QUERY", help="All tasks that pass this filter now and have not ended.")
@click.option("--all/--any", "all_", default=True, help="Until all have ended (default), or the first one.")
@click.option("--timeout", type=DURATION, help="Wait no longer than this; the tasks go on.")
@output_options()
@click.pass_obj
def wait(app: App, ids: tuple[str, ...], query: str | None, all_: bool, timeout: float | None) -> None:
    """Wait until tasks have ended.

    The exit code tells how: 0 all completed, 1 all failed or were cancelled, 3 some of each, 8 time is up. IDs may be
    unique prefixes; `-` reads them from standard input. Words with a colon are a QUERY, as `inferq list` takes it.
    """
    if query is None and any(":" in one for one in ids):
        ids, query = (), " ".join(ids)
    if bool(ids) == (query is not None):
        raise click.UsageError(f"expected IDs or --query QUERY, got {'both' if ids else 'neither'}")
    app.run(_wait(app, ids_.given(ids) if ids else [], query=query, all_=all_, timeout=timeout))


async def _wait(app: App, given: list[str], *, query: str | None, all_: bool, timeout: float | None) -> None:
    again = " ".join(given[:3]) if query is None else f"--query '{query}'"
    app.resume = f"no longer waiting; the tasks go on. Again with: inferq wait {again}"
    async with app.queue() as queue:
        if query is None:
            ids = [await queue.resolve(task_id) for task_id in given]
        else:
            ids = await _passing(queue, query)
            if not ids:
                say("no task that passes this filter waits or runs")
                return
        async with waiting_line(app, queue, ids[0]):
            ended, late = await _ended(queue, ids, all_=all_, timeout=timeout)
    app.out.records([task_record(task) for task in ended], ENDED_COLUMNS)
    if late:
        say(f"timed out after {timeout} s; {late} of {len(ids)} tasks have not ended and go on")
        app.end(Exit.TIMEOUT)
    app.end(together([Exit.OK if task.state == "completed" else Exit.FAILED for task in ended]))


_MOST = 10_000
"""Tasks that one command waits for."""


async def _passing(queue: AsyncDoor, query: str) -> list[str]:
    """The tasks that pass now and have not ended."""
    from inferq.query import Query, Term, Text, parse

    said = parse(query)
    unfinished = Term("state", tuple(map(Text, ("scheduled", "pending", "running"))))
    ids = [task.id async for task in queue.iterate(Query((*said.terms, unfinished), said.sort, said.limit or _MOST + 1))]
    if len(ids) > _MOST:
        raise click.UsageError(f"expected a filter that at most {_MOST:,} unfinished tasks pass, but more do; narrow it")
    return ids


async def _ended(
    queue: AsyncDoor,
    ids: list[str],
    *,
    all_: bool,
    timeout: float | None,
) -> tuple[list[Task], int]:
    """The tasks that ended in time, and how many of those waited for did not."""
    import asyncio

    watchers = [asyncio.create_task(queue.wait(task_id)) for task_id in ids]
    try:
        until = asyncio.ALL_COMPLETED if all_ else asyncio.FIRST_COMPLETED
        done, rest = await asyncio.wait(watchers, timeout=timeout, return_when=until)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    ended = [watcher.result() for watcher in watchers if watcher in done]
    return ended, 0 if done and not all_ else len(rest)


@click.command(
    cls=Command,
    examples="""
        inferq tail 019ab3c4-d5e6-7f01
        inferq tail 019ab3c4-d5e6-7f01 -o jsonl
        inferq tail 019ab3c4-d5e6-7f01 --from 1-20
    """,
    exits=(Exit.FAILED, Exit.NOT_FOUND, Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=("position", "kind", "text", "data"),
)
@click.argument("task_id", metavar="ID")
@click.option(
    "--from", "after", type=PLACE, default=(0, 0), metavar="ATTEMPT-INDEX", help="Begin after this chunk (jsonl shows positions)."
)
@click.option("--thinking", is_flag=True, help="Also show what the model thinks, on stderr.")
@output_options(formats=("text", "json", "jsonl"), default="text", ids=False)
@click.pass_obj
def tail(app: App, task_id: str, after: tuple[int, int], thinking: bool) -> None:
    """Attach to a task's stream, from its start.

    Works while it waits, while it runs and after it has ended, from any process. A script's stderr goes to stderr. When a
    new attempt begins, a line on stderr says that the text before is void. ID may be a unique prefix.
    """
    app.run(_tail(app, task_id, after, thinking=thinking))


async def _tail(app: App, task_id: str, after: tuple[int, int], *, thinking: bool) -> None:
    async with app.queue() as queue:
        task_id = await queue.resolve(task_id)
        app.resume = f"detached; the task goes on. Attach again with: inferq tail {task_id}"
        await follow(app, queue, task_id, after=after, thinking=thinking)
