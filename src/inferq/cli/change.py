"""The verbs that change tasks and the queue: cancel, retry, priority, delete, pause, resume."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import click

from inferq.cli import ids as ids_
from inferq.cli.app import App
from inferq.cli.bulk import bulk, one_way, query_options, sure
from inferq.cli.exits import Exit, together
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say
from inferq.cli.params import PRIORITY
from inferq.cli.records import ENDED_COLUMNS, TASK_FIELDS, level, task_record

if TYPE_CHECKING:
    from inferq.door import AsyncDoor

_MOST: Final = 10_000
_EXITS = (Exit.PARTIAL, Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE)


async def _change(app: App, given: tuple[str, ...], act: Callable[[AsyncDoor, str], Awaitable[str | None]]) -> None:
    """Change each task and print it as it is afterwards; or the one whose id the change gave."""
    ids = ids_.given(given)
    changed: list[str] = []
    async with app.queue() as queue:

        async def one(task_id: str) -> None:
            changed.append(await act(queue, task_id) or task_id)

        ends = await ids_.each(queue, ids, one)
        records = [task_record(await queue.get(task_id)) for task_id in changed]
    columns = [*ENDED_COLUMNS[:2], Column("PRIORITY", level)]
    app.out.records(records, columns)
    app.end(together(ends))


@click.command(
    cls=Command,
    examples="""
        inferq cancel 019ab3c4-d5e6-7f01
        inferq cancel 019ab3c4-d5e6-7f01 019ab3c4-d5e6-7f02 --reason "wrong model"
        inferq cancel --query 'tag:nightly created:-2h' --dry-run
        inferq cancel --query tag:nightly --yes
    """,
    exits=_EXITS,
    fields=(*TASK_FIELDS, "note"),
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--reason", default="", help="Kept with the task and shown to whoever waits for it.")
@query_options
@output_options()
@click.pass_obj
def cancel(app: App, ids: tuple[str, ...], reason: str, query: str | None, dry_run: bool, yes: bool) -> None:
    """Cancel tasks, waiting or running.

    A waiting task ends at once; a running one too, and its call to the backend is closed. IDs may be unique prefixes;
    `-` reads them from standard input. An error with one does not stop the others. With --query all tasks that pass the
    filter are shown, asked about and cancelled, with one progress line; 3 tells that some could not be.
    """
    one_way(ids, query, dry_run=dry_run)
    if query is not None:
        app.run(bulk(app, "cancel", query, dry_run=dry_run, yes=yes, reason=reason))
    else:
        app.run(_change(app, ids, lambda queue, task_id: queue.cancel(task_id, reason=reason)))


@click.command(
    cls=Command,
    examples="""
        inferq retry 019ab3c4-d5e6-7f01
        inferq list -q --status failed --since 1h | inferq retry -
        inferq retry --query 'state:failed error:timeout created:-1d' --yes
        inferq retry 019ab3c4-d5e6-7f01 --model qwen3 --priority high
    """,
    exits=_EXITS,
    fields=(*TASK_FIELDS, "note"),
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--now", is_flag=True, help="Also tasks that wait for their time: a delay, or the next attempt.")
@click.option("--priority", type=PRIORITY, metavar="LEVEL", help="At this priority.")
@click.option("--model", help="As a new task, with this model; the old one stays as it is.")
@click.option("--backend", metavar="NAME", help="As a new task, on this backend; the old one stays as it is.")
@query_options
@output_options()
@click.pass_obj
def retry(app: App, /, ids: tuple[str, ...], query: str | None, dry_run: bool, yes: bool, **how: Any) -> None:
    """Make failed or cancelled tasks again.

    They wait with their first place in line and a fresh budget of retries. IDs may be unique prefixes; `-` reads them
    from standard input. An error with one does not stop the others. --query takes all that pass the filter. With --model or
    --backend what was asked is submitted as a new task, which is printed; its metadata name the old one as `retry_of`.
    """
    one_way(ids, query, dry_run=dry_run)
    again = _Again(**how)
    if query is None:
        app.run(again.make(app, ids))
    elif again.is_plain:
        app.run(bulk(app, "retry", query, dry_run=dry_run, yes=yes))
    else:
        app.run(again.make_all(app, query, dry_run=dry_run, yes=yes))


class _Again:
    """How tasks are made again."""

    def __init__(self, *, now: bool, priority: int | None, model: str | None, backend: str | None) -> None:
        self._now = now
        self._priority = priority
        self._other = {name: value for name, value in (("model", model), ("backend", backend)) if value is not None}
        if now and self._other:
            raise click.UsageError("--now is for the tasks themselves; with --model or --backend new ones are made")

    @property
    def is_plain(self) -> bool:
        return not (self._now or self._other) and self._priority is None

    async def make(self, app: App, given: tuple[str, ...]) -> None:
        if self._other:
            await _change(app, given, self._submitted)
        else:
            await _change(app, given, lambda queue, task_id: queue.retry(task_id, priority=self._priority, now=self._now))

    async def _submitted(self, queue: AsyncDoor, task_id: str) -> str:
        from inferq.errors import WrongState
        from inferq.task import State

        task = await queue.get(task_id)
        if task.state not in (State.FAILED, State.CANCELLED):
            raise WrongState(f"expected task {task_id} to be failed or cancelled, but it is {task.state}")
        return (await queue.submit_again(task_id, priority=self._priority, **self._other)).id

    async def make_all(self, app: App, query: str, *, dry_run: bool, yes: bool) -> None:
        """Those that pass the filter when it is asked; a bounded number, because each is a call of its own."""
        states = "failed,cancelled,scheduled" if self._now else "failed,cancelled"
        found = []
        async with app.queue() as queue:
            async for task in queue.iterate(f"{query} state:{states}"):
                found.append(task)
                if len(found) > _MOST:
                    raise click.UsageError(f"more than {_MOST:,} tasks pass this filter: narrow it, or leave --priority, --model, ... out")
        if dry_run:
            app.out.records([task_record(task) for task in found], ENDED_COLUMNS[:2])
            say(f"would make {len(found):,} tasks again")
            return
        sure(f"make {len(found):,} tasks again?", yes=yes)
        if found:
            await self.make(app, tuple(task.id for task in found))


class _PriorityCommand(Command):
    """Takes a negative level as a number, not as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            for index, arg in enumerate(args):
                if re.fullmatch(r"-\d+", arg):
                    args = [*args[:index], *args[index + 1 :], "--", arg]
                    break
        return super().parse_args(ctx, args)


@click.command(
    cls=_PriorityCommand,
    examples="""
        inferq priority 019ab3c4-d5e6-7f01 critical
        inferq priority 019ab3c4-d5e6-7f01 -3
        inferq priority --query 'tag:nightly state:pending' low --yes
    """,
    exits=_EXITS,
    fields=(*TASK_FIELDS, "note"),
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.argument("level", type=PRIORITY, metavar="LEVEL")
@query_options
@output_options()
@click.pass_obj
def priority(app: App, ids: tuple[str, ...], level: int, query: str | None, dry_run: bool, yes: bool) -> None:
    """Change the priority of waiting tasks.

    LEVEL is low (1), normal (5), high (10), critical (15) or any integer; higher goes first. A running or ended task is
    refused. IDs may be unique prefixes; `-` reads them from standard input. --query takes all that pass the filter.
    """
    one_way(ids, query, dry_run=dry_run)
    if query is not None:
        app.run(bulk(app, "priority", query, dry_run=dry_run, yes=yes, priority=level))
    else:
        app.run(_change(app, ids, lambda queue, task_id: queue.set_priority(task_id, level)))


@click.command(
    cls=Command,
    examples="""
        inferq delete 019ab3c4-d5e6-7f01 --yes
        inferq delete --query 'state:failed tag:test' --dry-run
        inferq delete --query 'batch:nightly state:ended' --yes
    """,
    exits=_EXITS,
    fields=("id",),
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@query_options
@output_options()
@click.pass_obj
def delete(app: App, ids: tuple[str, ...], query: str | None, dry_run: bool, yes: bool) -> None:
    """Remove ended tasks with their results, for good.

    There is no undo, so it asks; a script says --yes. A waiting or running task is refused: cancel it first. IDs may be
    unique prefixes; `-` reads them from standard input. --query takes all ended tasks that pass the filter.
    """
    one_way(ids, query, dry_run=dry_run)
    if query is not None:
        app.run(bulk(app, "delete", query, dry_run=dry_run, yes=yes))
        return
    given = ids_.given(ids)
    sure(f"remove {len(given)} task{'' if len(given) == 1 else 's'} for good?", yes=yes)
    app.run(_delete(app, given))


async def _delete(app: App, ids: list[str]) -> None:
    gone: list[str] = []
    async with app.queue() as queue:

        async def one(task_id: str) -> None:
            await queue.delete(task_id)
            gone.append(task_id)

        ends = await ids_.each(queue, ids, one)
    app.out.records([{"id": task_id} for task_id in gone], [Column("REMOVED", field("id"))])
    app.end(together(ends))


async def _switch(app: App, words: tuple[str, ...], *, paused: bool) -> None:
    kind, name = _what(words)
    async with app.queue() as queue:
        if kind == "backend":
            await (queue.backends.disable(name, reason="paused") if paused else queue.backends.enable(name))
        else:
            await (queue.pause(name) if paused else queue.resume(name))
        scopes = sorted(await queue.paused())
        scopes += [f"backend {info.name}" for info in await queue.backends.list() if info.state == "disabled"]
    app.out.records([{"id": scope, "scope": scope} for scope in scopes], [Column("PAUSED", field("scope"))])
    if not scopes:
        say("nothing is paused")


def _what(words: tuple[str, ...]) -> tuple[str, str]:
    """Whether it is a backend or a scope of the queue, and which. Raises UsageError."""
    match words:
        case () | ("queue",):
            return "scope", "*"
        case ("backend", name):
            return "backend", name
        case ("model", name):
            return "scope", f"*/{name}"
        case (lane,) if lane not in ("backend", "model"):
            return "scope", lane
    raise click.UsageError(f"expected nothing, a lane, `backend NAME` or `model NAME`, got {' '.join(words)!r}")


_SCOPE_HELP = """SCOPE is a lane as `inferq status` shows it, such as ollama/llama3.2; `model NAME` a model in all lanes; `backend NAME` a
backend, as `inferq backends disable` and `enable` do; without it, or as `queue`, everything."""


@click.command(
    cls=Command,
    examples="""
        inferq pause
        inferq pause ollama/llama3.2
        inferq pause model llama3.2
        inferq pause backend gpu-1
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=("id", "scope"),
)
@click.argument("scope", nargs=-1, metavar="[SCOPE]")
@output_options()
@click.pass_obj
def pause(app: App, scope: tuple[str, ...]) -> None:
    app.run(_switch(app, scope, paused=True))


pause.help = f"""Start no more tasks: none at all, of one lane or model, or on one backend.

Running tasks go on. Prints what is paused now. {_SCOPE_HELP}"""


@click.command(
    cls=Command,
    examples="""
        inferq resume
        inferq resume ollama/llama3.2
        inferq resume backend gpu-1
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=("id", "scope"),
)
@click.argument("scope", nargs=-1, metavar="[SCOPE]")
@output_options()
@click.pass_obj
def resume(app: App, scope: tuple[str, ...]) -> None:
    app.run(_switch(app, scope, paused=False))


resume.help = f"""Undo a pause or a drain.

Without SCOPE it undoes `inferq pause` without one, and `inferq drain`. Prints what is still paused. {_SCOPE_HELP}"""
