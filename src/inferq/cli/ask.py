"""The verbs that ask: list, status, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, QueryCommand
from inferq.cli.output import Column, Record, cell, field, json_text, output_options, say, stdout_is_terminal
from inferq.cli.params import NAMES, PRIORITIES, SINCE, SORTS, STATES, joined
from inferq.cli.records import (
    ATTEMPT_COLUMNS,
    TASK_COLUMNS,
    TASK_FIELDS,
    attempt_record,
    level,
    moment,
    task_record,
)

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.query import Query
    from inferq.store import Cursor
    from inferq.task import Task

_FIELDS = (*TASK_FIELDS, "note")
_EXPLAINED = 50
"""Waiting tasks of one listing for which the reason is looked up."""


@click.command(
    "list",
    cls=QueryCommand,
    examples="""
        inferq list state:failed created:>-2h
        inferq list 'model:qwen3* priority:>=high -tag:test' -o wide
        inferq list --status failed --since 2h
        inferq list --status pending --limit 0 --json=id,model,created
    """,
    exits=(Exit.UNREACHABLE,),
    fields=_FIELDS,
)
@click.argument("query", nargs=-1, metavar="[QUERY]...")
@click.option(
    "--status", "--state", "states", type=STATES, multiple=True, help="scheduled, pending, running, completed, failed, cancelled; also a,b."
)
@click.option("--type", "--action", "actions", type=NAMES, multiple=True, help="chat, generate, embed, ...; also a,b.")
@click.option("--priority", "priorities", type=PRIORITIES, multiple=True, help="Names or numbers; also a,b.")
@click.option("--model", "models", type=NAMES, multiple=True, help="Models; also a,b.")
@click.option("--executor", "executors", type=NAMES, multiple=True, help="Executors; also a,b.")
@click.option("--tenant", "tenants", type=NAMES, multiple=True, help="Tenants; also a,b.")
@click.option("--tag", help="Tasks that carry this tag.")
@click.option("--since", type=SINCE, help="Submitted within 2h, or after 2027-01-31 or a time.")
@click.option("--until", type=SINCE, help="Submitted before that.")
@click.option(
    "--sort", type=click.Choice(SORTS), help="Newest first is -created; by finished for ended tasks, by scheduled for scheduled ones."
)
@click.option("--limit", type=click.IntRange(min=0), help="At most so many; 0 is all.  [default: 50]")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out the first so many that match.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor (printed when there is more).")
@click.option("-w", "--watch", is_flag=True, help="Go on with what changes, until Ctrl-C: redrawn on a terminal, a line each elsewhere.")
@output_options()
@click.pass_obj
def list_(
    app: App,
    /,
    query: tuple[str, ...],
    sort: str | None,
    limit: int | None,
    offset: int,
    after: str | None,
    watch: bool,
    **filters: Any,
) -> None:
    """List tasks, newest first.

    QUERY is the filter language: FIELD:VALUE,... conditions that must all hold, `-` before one that must not, and words
    that occur in what was asked. Options narrow it further. NOTE says why a task waits, or why it failed. Piped, the table
    is tab-separated and untruncated.
    """
    where = _where(query, sort=sort, **filters)
    most = where.limit or 50 if limit is None else limit
    app.run((_watch_list if watch else _list)(app, where, limit=most, offset=offset, after=after))


def _where(
    query: tuple[str, ...], *, sort: str | None, tag: str | None, since: int | None, until: int | None, priorities: Any, **names: Any
) -> Query:
    """What the words and the options say together."""
    from inferq.query import Query, parse
    from inferq.store import Filter

    said = parse(" ".join(query))
    lists: dict[str, Any] = {name: joined(value) for name, value in names.items()}
    options = Filter(tag=tag, since=since, until=until, priorities=joined(priorities), **lists).query()
    return Query((*said.terms, *options.terms), sort or said.sort, said.limit)


async def _list(app: App, where: Query, *, limit: int, offset: int, after: Cursor | None) -> None:
    async with app.queue() as queue:
        await _print(app, queue, where, limit=limit, offset=offset, after=after)


async def _watch_list(app: App, where: Query, *, limit: int, offset: int, after: Cursor | None) -> None:
    from inferq.cli import watch

    async with app.queue() as queue:

        async def draw() -> bool:
            await _print(app, queue, where, limit=limit, offset=offset, after=after)
            return True

        async def first() -> list[Task]:
            return (await _gather(queue, where, limit=limit, offset=offset, after=after))[0]

        if stdout_is_terminal() and app.out.format in ("table", "wide"):
            await watch.drawn(app, queue, draw)
        else:
            await watch.listed(app, queue, where, TASK_COLUMNS, first)


async def _print(app: App, queue: AsyncDoor, where: Query, *, limit: int, offset: int, after: Cursor | None) -> None:
    tasks, more = await _gather(queue, where, limit=limit, offset=offset, after=after)
    notes = await _reasons(queue, tasks) if app.out.format in ("table", "wide") else {}
    app.out.records([task_record(task, note=notes.get(task.id, "")) for task in tasks], TASK_COLUMNS)
    if more is not None:
        say(f"more: --after {more}")
    elif not tasks and stdout_is_terminal():
        say("no tasks match; submit one with `inferq submit` or `inferq run`")


async def _gather(queue: AsyncDoor, where: Query, *, limit: int, offset: int, after: Cursor | None) -> tuple[list[Task], Cursor | None]:
    """As many as asked for (0: all), page by page, and the cursor to go on after them; None with the very last."""
    tasks: list[Task] = []
    while True:
        wanted = limit + offset - len(tasks) if limit else 1000
        page = await queue.list(where, limit=min(wanted, 1000), after=after)
        tasks += page.tasks
        after = page.after
        if after is None or (limit and len(tasks) >= limit + offset):
            return tasks[offset:], after


async def _reasons(queue: AsyncDoor, tasks: list[Task]) -> dict[str, str]:
    """Why the first waiting ones wait."""
    from contextlib import suppress

    from inferq.errors import TaskNotFound
    from inferq.task import WAITING

    waiting = [task.id for task in tasks if task.state in WAITING][:_EXPLAINED]
    found = {}
    for task_id in waiting:
        with suppress(TaskNotFound):  # it has ended and gone meanwhile
            found[task_id] = await queue.why(task_id)
    return found


@click.command(
    cls=Command,
    examples="""
        inferq status
        inferq status -o json
        inferq status 019ab3c4-d5e6-7f01
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=_FIELDS,
)
@click.argument("task_id", required=False, metavar="[ID]")
@click.option("-w", "--watch", is_flag=True, help="Go on with what changes, until Ctrl-C or the task's end.")
@output_options()
@click.pass_obj
def status(app: App, task_id: str | None, watch: bool) -> None:
    """Show the queue's numbers, or where one task stands.

    ID may be a unique prefix. Watched, it is redrawn on a terminal and a line for each change elsewhere.
    """
    app.run(_status_of(app, task_id, follow=watch) if task_id else _statistics(app, follow=watch))


async def _status_of(app: App, given: str, *, follow: bool) -> None:
    from inferq.cli import watch
    from inferq.task import WAITING

    last: dict[str, Any] = {}

    async def draw() -> bool:
        task = await queue.get(task_id)
        record = task_record(task, note=await queue.why(task.id) if task.state in WAITING else "")
        if not follow or (stdout_is_terminal() and app.out.format in ("table", "wide")):
            app.out.record(record, (Column("ID", field("id")), *TASK_COLUMNS[1:]))
        elif record != last:
            app.out.lines([record], TASK_COLUMNS, titles=not last)
        last.update(record)
        return not task.state.is_final

    async with app.queue() as queue:
        task_id = await queue.resolve(given)
        await (watch.drawn(app, queue, draw) if follow else draw())


async def _statistics(app: App, *, follow: bool) -> None:
    from inferq.cli import watch

    last: dict[str, Any] = {}

    async def draw() -> bool:
        stats = await _numbers(app, queue)
        if not follow or (stdout_is_terminal() and app.out.format in ("table", "wide")):
            _print_numbers(app, {**stats, **await _troubles(queue)})
        elif stats != last:
            flat = {**stats["states"], **stats}
            app.out.lines([flat], [Column(name.upper(), field(name)) for name in (*stats["states"], "total")], titles=not last)
        last.clear()
        last.update(stats)
        return True

    async with app.queue() as queue:
        await (watch.drawn(app, queue, draw) if follow else draw())


async def _numbers(app: App, queue: AsyncDoor) -> dict[str, Any]:
    from contextlib import suppress

    import msgspec

    from inferq.errors import Forbidden

    address = app.address()
    stats: dict[str, Any] = msgspec.to_builtins(await queue.stats(), str_keys=True)
    # The door that is open to ask this is no worker; a server has the store open and may be one. A tenant's key is not told.
    stats["processes"] = None
    with suppress(Forbidden):
        stats["processes"] = (await queue.store_stats()).instances - (not address.is_server)
    stats |= {"queue": queue.url, "chosen_by": address.source}
    for ours in ("workers_active", "workers_idle"):
        # They tell of this process only, and it does not work.
        del stats[ours]
    return stats


async def _troubles(queue: AsyncDoor) -> dict[str, Any]:
    """What an operator looks for next: the task that waits longest and why, and the backends that take none."""
    from contextlib import suppress

    from inferq.cli.backends import standing
    from inferq.errors import Forbidden, TaskNotFound

    oldest, shut = None, {}
    for task in (await queue.list("state:pending -executor:webhook sort:created", limit=1)).tasks:
        with suppress(TaskNotFound):  # it has ended and gone meanwhile
            oldest = {"id": task.id, "created": task.created, "why": await queue.why(task.id)}
    with suppress(Forbidden):
        shut = {info.name: said for info in await queue.backends.list() if info.workers and (said := standing(info)) != "up"}
    return {"oldest": oldest, "backends_closed": shut}


def _print_numbers(app: App, stats: dict[str, Any]) -> None:
    if app.out.format in ("json", "jsonl", "id"):
        app.out.record(stats, [], key="total")
        return
    from inferq.task import priority_name

    rows = [("state", name, count) for name, count in stats["states"].items()]
    rows += [("total", "", stats["total"])]
    by_priority = sorted(stats["pending_by_priority"].items(), key=lambda item: -int(item[0]))
    rows += [("pending, priority", priority_name(int(number)), count) for number, count in by_priority]
    rows += [("pending, lane", lane, count) for lane, count in sorted(stats["pending_by_lane"].items())]
    rows += [("executed", "on local backends", stats["executed_local"]), ("executed", "on remote backends", stats["executed_remote"])]
    rows += [("processes", "with the store open", stats["processes"])] if stats["processes"] is not None else []
    rows += [("queue", stats["queue"], stats["chosen_by"])]
    rows += [("oldest pending", stats["oldest"]["why"], moment(stats["oldest"]["created"]))] if stats["oldest"] else []
    rows += [("backend", name, said) for name, said in stats["backends_closed"].items()]
    rows += [("paused", scope, "yes") for scope in stats["paused"]]
    rows += [("draining", "no task starts until `inferq resume`", "yes")] if stats["draining"] else []
    columns = [Column("WHAT", field("what")), Column("WHICH", field("which")), Column("COUNT", field("count"))]
    app.out.records([{"what": what, "which": which, "count": count} for what, which, count in rows], columns)


@click.command(
    cls=Command,
    examples="""
        inferq show 019ab3c4-d5e6-7f01
        inferq show 019ab3c4-d5e6-7f01 --attempts
        inferq show 019ab3c4-d5e6-7f01 --request -o json
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=(*_FIELDS, "attempts", "events"),
)
@click.argument("task_id", metavar="ID")
@click.option("--request", is_flag=True, help="Only the request: what was asked for.")
@click.option("--attempts", is_flag=True, help="Only the attempts.")
@click.option("--events", is_flag=True, help="Only what happened to it.")
@output_options()
@click.pass_obj
def show(app: App, task_id: str, request: bool, attempts: bool, events: bool) -> None:
    """Show everything about one task.

    Without a choice: the task, its request and its attempts. ID may be a unique prefix.
    """
    if request + attempts + events > 1:
        raise click.UsageError("give one of --request, --attempts and --events, or none for everything")
    part = "request" if request else "attempts" if attempts else "events" if events else "all"
    app.run(_show(app, task_id, part))


async def _show(app: App, task_id: str, part: str) -> None:
    from inferq.cli.events import EVENT_COLUMNS, event_record, past
    from inferq.task import WAITING

    async with app.queue() as queue:
        task_id = await queue.resolve(task_id)
        task = await queue.get(task_id)
        note = await queue.why(task_id) if task.state in WAITING else ""
        tries = [attempt_record(attempt) for attempt in await queue.attempts(task_id)]
        happened = [event_record(event) async for event in past(queue, task_id=task_id)] if part == "events" else []
    record = task_record(task, note=note)
    asked = _request(record)
    if part == "request":
        app.out.pairs(_lines(asked)) if app.out.format in ("table", "wide") else app.out.record(asked, [], key="model")
    elif part == "attempts":
        app.out.records(tries, ATTEMPT_COLUMNS, key="number")
    elif part == "events":
        app.out.records(happened, EVENT_COLUMNS, key="position")
    elif app.out.format in ("table", "wide"):
        app.out.pairs(_page(record))
        if tries:
            app.out.write("")
            app.out.records(tries, ATTEMPT_COLUMNS)
    else:
        app.out.record({**record, "attempts": tries}, TASK_COLUMNS)


_REQUEST = (
    "executor", "action", "model", "backend", "priority", "tenant", "tags", "metadata", "key", "scheduled_at", "timeout",
    "idle_timeout", "start_deadline", "deadline", "max_retries", "at_most_once", "stream", "remote", "batch", "schedule",
    "options", "payload",
)  # fmt: skip


def _request(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in _REQUEST}


def _lines(record: Record) -> list[tuple[str, str]]:
    return [
        (name, json_text(value) if isinstance(value, dict | list) else cell(value))
        for name, value in record.items()
        if value not in ({}, [])
    ]


def _page(record: Record) -> list[tuple[str, str]]:
    """One task for people: where it stands first, then what it is, then its request."""
    moments = {name: moment(record[name]) for name in ("created", "due", "started", "finished")}
    head = {name: record[name] for name in ("id", "state", "code", "note")}
    rest = {name: record[name] for name in ("attempt", "failures", "lost", "worker", "lane", "size", "estimate")}
    return _lines({**head, **moments, **rest, **_request(record), "priority": level(record)})
