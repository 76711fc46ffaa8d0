"""Changing all tasks that pass a filter: a preview, a question, one progress bar, an exit code that tells how it went."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, cell, field, output_options, say, stdin_is_terminal
from inferq.cli.params import DURATION, STATES, joined
from inferq.cli.records import ago, iso, short_id, span

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.operation import Operation
    from inferq.operation import Verb as Change

F = TypeVar("F", bound=Callable[..., Any])

OPERATION_FIELDS: Final = (
    "id", "verb", "q", "state", "priority", "reason", "expected", "more", "matched", "done", "failed", "failures", "examples",
    "bound", "who", "tenant", "error", "created", "updated", "finished",
)  # fmt: skip
_STEP, _FILE_STEP = 0.2, 5.0
_COLUMNS: Final = (
    Column("ID", field("id"), short_id),
    Column("VERB", field("verb")),
    Column("STATE", field("state")),
    Column("DONE", field("done")),
    Column("FAILED", field("failed")),
    Column("QUERY", field("q")),
    Column("CREATED", lambda record: iso(record["created"]), lambda record: ago(record["created"])),
    Column("WHO", field("who"), wide=True),
    Column("ERROR", field("error"), wide=True),
)
_EXAMPLES: Final = (
    Column("ID", field("id"), short_id),
    Column("STATUS", field("state")),
    Column("TYPE", field("action")),
    Column("MODEL", field("model")),
    Column("CREATED", lambda record: iso(record["created"]), lambda record: ago(record["created"])),
    Column("ASKED", field("asked")),
)


def query_options(command: F) -> F:
    """Adds --query, --dry-run and --yes."""
    command = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")(command)
    command = click.option("--dry-run", is_flag=True, help="With --query: count and show examples, change nothing.")(command)
    return click.option("--query", "-Q", "query", metavar="QUERY", help="All tasks that pass this filter, as `inferq list` takes it.")(
        command
    )


def one_way(ids: tuple[str, ...], query: str | None, *, dry_run: bool) -> None:
    """Raises UsageError unless there are either ids or a query."""
    if bool(ids) == (query is not None):
        raise click.UsageError("expected IDs or --query QUERY, got both" if ids else "expected IDs or --query QUERY, got neither")
    if dry_run and query is None:
        raise click.UsageError("--dry-run goes with --query; ids say already what is meant")


def sure(question: str, *, yes: bool, otherwise: str = "--yes to do it, or --dry-run to look first") -> None:
    """Ask for a yes. Raises UsageError (2) where nobody can be asked, Abort for a no."""
    if yes:
        return
    if not (stdin_is_terminal() and sys.stderr.isatty()):
        raise click.UsageError(f"{cell(question)} Nobody can be asked here: add {otherwise}")
    if not click.confirm(cell(question), err=True):
        say("nothing was changed")
        raise click.exceptions.Exit(int(Exit.USAGE))


async def bulk(app: App, verb: Change, query: str, *, dry_run: bool, yes: bool, priority: int | None = None, reason: str = "") -> None:
    """Preview, ask, carry out, tell."""
    async with app.queue() as queue:
        start = queue.operations.start
        seen = await start(verb, query, priority=priority, reason=reason, dry_run=True)
        if dry_run:
            _show_preview(app, seen)
            return
        if not seen.expected:
            say(f"no task that can be changed by {verb} passes this filter")
            app.out.record(record_of(seen), _COLUMNS)
            return
        if not yes:
            _tell_examples(seen)
        sure(f"{_what(seen)}?", yes=yes)
        begun = await start(verb, query, priority=priority, reason=reason, expected=seen.expected, bound=seen.bound)
        app.resume = f"left where it stands; a worker or server goes on with it. Stop it with: inferq operations stop {begun.id}"
        over = await _follow(app, queue, begun)
    app.out.record(record_of(over), _COLUMNS)
    _end(app, over)


def record_of(operation: Operation) -> dict[str, Any]:
    import msgspec

    made: dict[str, Any] = msgspec.to_builtins(operation)
    return made


def _what(seen: Operation) -> str:
    more = "at least " if seen.more else ""
    to = ""
    if seen.priority is not None:
        from inferq.task import priority_name

        to = f" to {priority_name(seen.priority)}"
    names = {"cancel": "cancel", "retry": "retry", "priority": "change the priority of", "delete": "remove for good"}
    return f"{names[seen.verb]} {more}{seen.expected:,} task{'' if seen.expected == 1 else 's'}{to}"


def _show_preview(app: App, seen: Operation) -> None:
    if app.out.format in ("table", "wide", "csv", "id"):
        app.out.records(record_of(seen)["examples"], _EXAMPLES)
        say(f"would {_what(seen)}" + (f"; the first {len(seen.examples)} are shown" if seen.expected > len(seen.examples) else ""))
    else:
        app.out.record(record_of(seen), _COLUMNS)


def _tell_examples(seen: Operation) -> None:
    for one in seen.examples[:5]:
        say(f"  {one.id[:18]}  {one.state}  {one.action}  {one.model}  {one.asked}")
    if seen.expected > 5:
        say(f"  ... and {seen.expected - min(5, len(seen.examples)):,} more")


async def _follow(app: App, queue: AsyncDoor, begun: Operation) -> Operation:
    """Until it is over, with one line on a terminal and a line now and then elsewhere."""
    from inferq.errors import WaitTimeout

    loop = asyncio.get_running_loop()
    began = told = loop.time()
    while True:
        try:
            over = await queue.operations.wait(begun.id, _STEP)
        except WaitTimeout:
            now = await queue.operations.get(begun.id)
            line = (
                f"{now.matched:,} of {'at least ' if now.more else ''}{now.expected:,}, {now.failed:,} failed, {span(loop.time() - began)}"
            )
            if app.redraws:
                sys.stderr.write(f"\r\x1b[2K{now.verb}: {line}")
                sys.stderr.flush()
            elif app.progress and loop.time() - told >= _FILE_STEP:
                told = loop.time()
                say(f"{now.verb}: {line}")
            continue
        if app.redraws:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
        return over


def _end(app: App, over: Operation) -> None:
    for failure in over.failures:
        say(f"inferq: {failure.error}", color="red")
    if over.failed > len(over.failures):
        say(f"inferq: and {over.failed - len(over.failures):,} others", color="red")
    if over.state == "failed":
        say(f"inferq: it did not end well: {over.error}", color="red")
        app.end(Exit.FAILED)
    if over.failed or over.state == "stopped":
        app.end(Exit.PARTIAL)


# ── purge ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command(
    cls=Command,
    examples="""
        inferq purge --state completed --older-than 7d --dry-run
        inferq purge --state failed,cancelled --older-than 30d --yes
    """,
    exits=(Exit.FAILED, Exit.PARTIAL, Exit.CONFLICT, Exit.UNREACHABLE),
    fields=OPERATION_FIELDS,
)
@click.option("--state", "states", type=STATES, multiple=True, required=True, help="completed, failed, cancelled; also a,b.")
@click.option("--older-than", type=DURATION, required=True, help="Ended longer ago than this, such as 7d.")
@click.option("--dry-run", is_flag=True, help="Count and show examples, remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@output_options()
@click.pass_obj
def purge(app: App, states: tuple[tuple[Any, ...], ...], older_than: float, dry_run: bool, yes: bool) -> None:
    """Remove ended tasks that are old, with their results.

    There is no undo. What retention keeps anyway is set in the configuration (store.retention).
    """
    from inferq.query.writing import duration

    names = [str(state) for state in joined(states)]
    if unfinished := [name for name in names if name not in ("completed", "failed", "cancelled")]:
        raise click.UsageError(f"only ended tasks can be removed: expected completed, failed or cancelled, got {unfinished[0]}")
    query = f"state:{','.join(names)} finished:<-{duration(round(older_than * 1000))}"
    app.run(bulk(app, "delete", query, dry_run=dry_run, yes=yes))


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────────

_HERE: Final = "inferq.cli.bulk"
operations = LazyGroup(
    "operations",
    verbs={
        "list": Verb(f"{_HERE}:list_", "List the latest bulk operations, newest first."),
        "show": Verb(f"{_HERE}:show", "Show how far a bulk operation is."),
        "stop": Verb(f"{_HERE}:stop", "Stop a bulk operation after the tasks it is at. What was changed stays so."),
    },
    help="Bulk changes that are or were made.\n\nThey begin with --query of cancel, retry, priority and delete, or over HTTP.",
    examples="""
        inferq operations list
        inferq operations show 019ab3c4-d5e6-7f01-8000-000000000001 -o json
        inferq operations stop 019ab3c4-d5e6-7f01-8000-000000000001
    """,
)


@click.command(
    "list",
    cls=Command,
    examples="""
        inferq operations list
        inferq operations list --json=id,state,done
    """,
    exits=(Exit.UNREACHABLE,),
    fields=OPERATION_FIELDS,
)
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="At most so many.")
@output_options()
@click.pass_obj
def list_(app: App, limit: int) -> None:
    """List the latest bulk operations, newest first."""

    async def run() -> list[Operation]:
        async with app.queue() as queue:
            return await queue.operations.list(limit=limit)

    app.out.records([record_of(one) for one in app.run(run())], _COLUMNS)


def _one(app: App, id: str, *, stop: bool) -> None:
    async def run() -> Operation:
        async with app.queue() as queue:
            return await (queue.operations.stop(id) if stop else queue.operations.get(id))

    app.out.record(record_of(app.run(run())), (Column("ID", field("id")), *_COLUMNS[1:]))


@click.command(
    cls=Command,
    examples="""
        inferq operations show 019ab3c4-d5e6-7f01-8000-000000000001
        inferq operations show 019ab3c4-d5e6-7f01-8000-000000000001 --json=failures
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=OPERATION_FIELDS,
)
@click.argument("operation_id", metavar="ID")
@output_options()
@click.pass_obj
def show(app: App, operation_id: str) -> None:
    """Show how far a bulk operation is."""
    _one(app, operation_id, stop=False)


@click.command(
    cls=Command,
    examples="""
        inferq operations stop 019ab3c4-d5e6-7f01-8000-000000000001
        inferq operations stop $(inferq operations list -q --limit 1)
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=OPERATION_FIELDS,
)
@click.argument("operation_id", metavar="ID")
@output_options()
@click.pass_obj
def stop(app: App, operation_id: str) -> None:
    """Stop a bulk operation after the tasks it is at. What was changed stays so."""
    _one(app, operation_id, stop=True)
