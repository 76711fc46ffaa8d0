"""`inferq db`: back up, check and measure the store."""

from __future__ import annotations

from pathlib import Path

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, field, output_options, say

db = LazyGroup(
    "db",
    verbs={
        "backup": Verb("inferq.cli.db:backup", "Write a consistent copy of the store while work goes on."),
        "export": Verb("inferq.cli.archive:export", "Write the whole store as JSON lines, while work goes on."),
        "import": Verb("inferq.cli.archive:import_", "Take an archive of `inferq db export` into the store, empty or not."),
        "check": Verb("inferq.cli.db:check", "Look for damage in the store."),
        "compact": Verb("inferq.cli.storefile:compact", "Give the space of removed tasks back to the disk."),
        "migrate": Verb("inferq.cli.storefile:migrate", "Bring a store of an older inferq to the newest schema."),
        "stats": Verb("inferq.cli.db:stats", "Print the store's numbers."),
    },
    help="Back up, carry over, check and measure the store.",
    examples="""
        inferq db backup /backups/inferq-monday.db
        inferq db check
    """,
    no_args_is_help=True,
)


@click.command(
    cls=Command,
    examples="""
        inferq db backup /backups/inferq-monday.db
        inferq --url sqlite:////backups/inferq-monday.db list
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
    fields=("path", "bytes"),
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@output_options()
@click.pass_obj
def backup(app: App, file: Path) -> None:
    """Write a consistent copy of the store while work goes on.

    The copy is a store of its own. An existing FILE is refused.
    """
    if file.exists():
        raise click.UsageError(f"{file} exists already; a backup never overwrites: choose another name or remove it")
    app.run(_backup(app, file))
    record = {"path": str(file.absolute()), "bytes": file.stat().st_size}
    app.out.record(record, [Column("PATH", field("path")), Column("BYTES", field("bytes"))], key="path")


async def _backup(app: App, file: Path) -> None:
    async with app.queue() as queue:
        await queue.backup(file)


@click.command(
    cls=Command,
    examples="""
        inferq db check
        inferq db check -o json
    """,
    exits=(Exit.FAILED, Exit.UNREACHABLE),
    fields=("problem",),
)
@output_options()
@click.pass_obj
def check(app: App) -> None:
    """Look for damage in the store.

    Prints a line for each problem; none, and exit code 0, when it is sound.
    """
    problems = app.run(_check(app))
    if app.out.format not in ("table", "wide") or problems:
        app.out.records([{"problem": text} for text in problems], [Column("PROBLEM", field("problem"))], key="problem")
    say(f"{len(problems)} problems in {app.address().url}" if problems else f"{app.address().url} is sound")
    app.end(Exit.FAILED if problems else Exit.OK)


async def _check(app: App) -> list[str]:
    async with app.queue() as queue:
        return await queue.check()


@click.command(
    cls=Command,
    examples="""
        inferq db stats
        inferq db stats -o json
    """,
    exits=(Exit.UNREACHABLE,),
    fields=("url", "durability", "schema", "file_bytes", "wal_bytes", "tasks", "last_event", "instances", "disk_bytes", "disk_free_bytes"),
)
@output_options()
@click.pass_obj
def stats(app: App) -> None:
    """Print the store's numbers."""
    app.run(_stats(app))


async def _stats(app: App) -> None:
    async with app.queue() as queue:
        found = await queue.store_stats()
    record = {name: getattr(found, name) for name in found.__struct_fields__}
    app.out.record(record, [Column(name, field(name)) for name in record], key="url")
