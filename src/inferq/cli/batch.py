"""`inferq batch`: list, show, watch and change batches, and collect their results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.bulk import sure
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, field, json_text, output_options, say
from inferq.cli.params import PRIORITY
from inferq.cli.reader import while_read
from inferq.cli.records import ago, iso, short_id

if TYPE_CHECKING:
    from inferq.batch import Batch
    from inferq.door import AsyncDoor

_HERE = "inferq.cli.batch"
VERBS = {
    "list": Verb(f"{_HERE}:list_", "List batches, newest first."),
    "show": Verb(f"{_HERE}:show", "Show a batch's counts."),
    "watch": Verb(f"{_HERE}:watch", "Watch a batch until it is finished, with one progress bar on stderr."),
    "results": Verb(f"{_HERE}:results", "Print results as JSON lines, in input order; as text only the answers."),
    "errors": Verb(f"{_HERE}:errors", "Count failures by code, the most frequent first, with an example of each."),
    "retry": Verb(f"{_HERE}:retry", "Make its failed tasks again, with their first places and a fresh budget of retries."),
    "pause": Verb(f"{_HERE}:pause", "Hold its waiting tasks; running ones go on. Their deadlines go on too."),
    "resume": Verb(f"{_HERE}:resume", "Let held tasks go on, each at its old place."),
    "cancel": Verb(f"{_HERE}:cancel", "Cancel what has not ended; it takes no more lines. `inferq batch retry --cancelled` undoes it."),
    "priority": Verb(
        f"{_HERE}:priority", "Change the priority of what waits. LEVEL is low (1), normal (5), high (10), critical (15) or any integer."
    ),
    "delete": Verb(f"{_HERE}:delete", "Remove a batch with its tasks and results, for good. Refused (6) while some of them wait or run."),
}
batch = LazyGroup(
    "batch",
    verbs=VERBS,
    aliases={"ls": "list"},
    help="Watch and change batches.\n\nBATCH is an id, the beginning of one, or a name. `inferq submit batch` makes them.",
    examples="""
        inferq batch list
        inferq batch results nightly > answers.jsonl
        inferq batch retry nightly --only timeout
    """,
    no_args_is_help=True,
)

FIELDS = (
    "id", "name", "state", "done", "total", "waiting", "running", "completed", "failed", "cancelled", "pruned", "input_tokens",
    "output_tokens", "created", "sealed", "finished", "held", "reason", "lines", "tenant", "source", "digest", "metadata",
)  # fmt: skip
COLUMNS = (
    Column("ID", field("id"), short_id),
    Column("NAME", field("name")),
    Column("STATUS", field("state")),
    Column("DONE", lambda record: f"{record['done']}/{record['total']}"),
    Column("FAILED", field("failed")),
    Column("RUNNING", field("running")),
    Column("TOKENS", lambda record: record["input_tokens"] + record["output_tokens"]),
    Column("CREATED", lambda record: iso(record["created"]), lambda record: ago(record["created"])),
    Column("FINISHED", lambda record: iso(record["finished"]), lambda record: ago(record["finished"])),
    Column("CANCELLED", field("cancelled"), wide=True),
    Column("SOURCE", field("source"), wide=True),
    Column("REASON", field("reason"), wide=True),
)
_EXITS = (Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE)


def record_of(found: Batch) -> dict[str, Any]:
    """A batch with every field, set or not."""
    made = found.to_dict()
    return {name: made[name] for name in FIELDS}


def _verb(name: str, *, examples: str, exits: tuple[Exit, ...] = (), **attrs: Any) -> Callable[[Callable[..., None]], click.Command]:
    def make(function: Callable[..., None]) -> click.Command:
        function = click.argument("batch_id", metavar="BATCH")(function)
        return click.command(name, cls=Command, examples=examples, exits=(*_EXITS, *exits), **attrs)(click.pass_obj(function))

    return make


@click.command(
    "list",
    cls=Command,
    examples="inferq batch list --unfinished\ninferq batch list --limit 5 -o json",
    exits=(Exit.UNREACHABLE,),
    fields=FIELDS,
)
@click.option("--unfinished", is_flag=True, help="Only those that are not finished.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@output_options()
@click.pass_obj
def list_(app: App, unfinished: bool, limit: int) -> None:
    """List batches, newest first."""

    async def run() -> None:
        async with app.queue() as queue:
            found = await queue.batches.list(unfinished=unfinished, limit=limit)
        app.out.records([record_of(entry) for entry in found], COLUMNS)

    app.run(run())


@_verb("show", examples="inferq batch show nightly\ninferq batch show 019ab3c4 --json=state,done,total", fields=FIELDS)
@output_options()
def show(app: App, batch_id: str) -> None:
    """Show a batch's counts."""
    _change(app, batch_id, _look)


async def _look(queue: AsyncDoor, batch_id: str) -> Batch:
    return await queue.batches.get(batch_id)


def _change(app: App, batch_id: str, act: Callable[[AsyncDoor, str], Awaitable[Batch]]) -> None:
    """Do it and print the batch as it is then."""

    async def run() -> None:
        async with app.queue() as queue:
            found = await act(queue, batch_id)
        app.out.record(record_of(found), COLUMNS)

    app.run(run())


@_verb(
    "watch",
    examples="inferq batch watch nightly\ninferq batch watch nightly -o jsonl > answers.jsonl",
    exits=(Exit.FAILED, Exit.PARTIAL, Exit.INTERRUPTED),
    fields=("batch_id", "batch_size", "tasks", "duration_ms"),
)
@click.option("--output-file", type=click.Path(dir_okay=False), metavar="FILE", help="Write results as JSON lines, in input order.")
@output_options(formats=("text", "json", "jsonl", "id"), default="text")
def watch(app: App, batch_id: str, output_file: str | None) -> None:
    """Watch a batch until it is finished, with one progress bar on stderr.

    Ctrl-C leaves it running. The exit code tells how it ended: 0 all completed, 1 none, 3 some.
    """
    from inferq.cli.batch_load import exit_of, follow

    async def run() -> None:
        async with app.queue() as queue:
            handle = await queue.batches.handle(batch_id)
            app.resume = f"the batch goes on; watch it again with: inferq batch watch {handle.id}"
            ended = await follow(app, queue, handle, output=output_file)
        app.end(exit_of(ended))

    app.run(run())


_RESULT_FIELDS = ("task_id", "type", "model", "status", "line", "key", "result", "error", "code")


@_verb(
    "results",
    examples="inferq batch results nightly > answers.jsonl\ninferq batch results nightly --errors\ninferq batch results nightly --follow",
    exits=(Exit.INTERRUPTED,),
    fields=_RESULT_FIELDS,
)
@click.option("--errors", "only_errors", is_flag=True, help="Only lines that failed or were cancelled.")
@click.option("--follow", is_flag=True, help="Wait for those to come, to the end of the batch.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="LINE", help="Only lines after this one.")
@output_options(formats=("jsonl", "text"), default="jsonl", ids=False)
def results(app: App, batch_id: str, only_errors: bool, follow: bool, after: int) -> None:
    """Print results as JSON lines, in input order; as text only the answers.

    Lines that have not ended are left out, unless --follow waits for them.
    """
    app.run(_results(app, batch_id, only_errors=only_errors, follow=follow, after=after))


async def _results(app: App, batch_id: str, *, only_errors: bool, follow: bool, after: int) -> None:
    from inferq.cli.batch_load import outcome
    from inferq.cli.stream import text_of
    from inferq.task import State

    last = after
    async with app.queue() as queue, while_read():
        async for item in queue.batches.results(batch_id, follow=follow, after=after):
            last = item.line
            app.resume = f"go on with: inferq batch results {batch_id} --follow --after {last}"
            if only_errors and item.state in (State.COMPLETED, None):
                continue
            if app.out.format == "text":
                app.out.write(text_of(item.result) if item.result else f"{item.state}: {item.code or ''} {item.error}".strip())
            elif app.out.fields:
                app.out.records([dict.fromkeys(_RESULT_FIELDS) | outcome(item)], ())
            else:
                app.out.write(json_text(outcome(item)))


@_verb(
    "errors",
    examples="inferq batch errors nightly\ninferq batch errors nightly --json=code,count",
    fields=("code", "count", "example", "task_id"),
)
@output_options(ids=False)
def errors(app: App, batch_id: str) -> None:
    """Count failures by code, the most frequent first, with an example of each."""
    columns = (
        Column("CODE", field("code")),
        Column("COUNT", field("count")),
        Column("TASK", field("task_id")),
        Column("EXAMPLE", field("example")),
    )

    async def run() -> None:
        async with app.queue() as queue:
            found = await queue.batches.failures(batch_id)
        app.out.records([{name: getattr(entry, name) for name in entry.__struct_fields__} for entry in found], columns)

    app.run(run())


@_verb("retry", examples="inferq batch retry nightly\ninferq batch retry nightly --only timeout --only connect", fields=FIELDS)
@click.option("--only", "codes", multiple=True, metavar="CODE", help="Only tasks that failed with this code, repeatable.")
@click.option("--cancelled", is_flag=True, help="Cancelled ones too.")
@output_options()
def retry(app: App, batch_id: str, codes: tuple[str, ...], cancelled: bool) -> None:
    """Make its failed tasks again, with their first places and a fresh budget of retries."""

    async def act(queue: AsyncDoor, name: str) -> Batch:
        count = await queue.batches.retry_failed(name, only=codes, cancelled=cancelled)
        say(f"{count} tasks are made again")
        return await queue.batches.get(name)

    _change(app, batch_id, act)


@_verb("pause", examples="inferq batch pause nightly\ninferq batch pause 019ab3c4", fields=FIELDS)
@output_options()
def pause(app: App, batch_id: str) -> None:
    """Hold its waiting tasks; running ones go on. Their deadlines go on too."""
    _change(app, batch_id, lambda queue, name: queue.batches.pause(name))


@_verb("resume", examples="inferq batch resume nightly\ninferq batch resume 019ab3c4", fields=FIELDS)
@output_options()
def resume(app: App, batch_id: str) -> None:
    """Let held tasks go on, each at its old place."""
    _change(app, batch_id, lambda queue, name: queue.batches.resume(name))


@_verb("cancel", examples="inferq batch cancel nightly\ninferq batch cancel nightly --reason 'wrong prompt'", fields=FIELDS)
@click.option("--reason", default="", help="Kept with its tasks.")
@output_options()
def cancel(app: App, batch_id: str, reason: str) -> None:
    """Cancel what has not ended; it takes no more lines. `inferq batch retry --cancelled` undoes it."""
    _change(app, batch_id, lambda queue, name: queue.batches.cancel(name, reason=reason))


@_verb("priority", examples="inferq batch priority nightly low\ninferq batch priority 019ab3c4 20", fields=FIELDS)
@click.argument("level", type=PRIORITY)
@output_options()
def priority(app: App, batch_id: str, level: int) -> None:
    """Change the priority of what waits. LEVEL is low (1), normal (5), high (10), critical (15) or any integer."""

    async def act(queue: AsyncDoor, name: str) -> Batch:
        say(f"{await queue.batches.set_priority(name, level)} tasks were moved")
        return await queue.batches.get(name)

    _change(app, batch_id, act)


@_verb("delete", examples="inferq batch delete nightly\ninferq batch delete 019ab3c4 --yes --cancel", exits=(Exit.USAGE,))
@click.option("--cancel", "first", is_flag=True, help="Cancel what has not ended first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(app: App, batch_id: str, first: bool, yes: bool) -> None:
    """Remove a batch with its tasks and results, for good. Refused (6) while some of them wait or run."""

    async def run() -> None:
        async with app.queue() as queue:
            found = await queue.batches.get(batch_id)
            question = f"remove batch {found.name or found.id} with {found.total} tasks and their results, for good?"
            sure(question, yes=yes, otherwise="--yes to do it")
            if first:
                await queue.batches.cancel(found.id)
            await queue.batches.delete(found.id)
            say(f"removed {found.id}")

    app.run(run())
