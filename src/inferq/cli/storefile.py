"""`inferq db compact` and `inferq db migrate`: the store's file itself, its size and its schema."""

from __future__ import annotations

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say

_SIZES = ("before", "after", "free", "seconds", "dry_run")


@click.command(
    cls=Command,
    examples="""
        inferq db compact --dry-run
        inferq db compact
    """,
    exits=(Exit.CONFLICT, Exit.PERMISSION, Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=_SIZES,
)
@click.option("--dry-run", is_flag=True, help="Only say how much would come back.")
@output_options()
@click.pass_obj
def compact(app: App, dry_run: bool) -> None:
    """Give the space of removed tasks back to the disk.

    Removed tasks leave room in the file, which new ones use first: it need not be done. It copies what is kept, which needs as
    much free disk twice, and while it copies (about a second for 100 MB) nobody can submit or work: other processes wait, and
    after 10 seconds their writes fail. Above 256 MB it is refused while tasks run: `inferq drain --wait` first.
    """
    app.resume = "nothing was lost: the store is as it was, or compacted"

    async def main() -> None:
        import msgspec

        from inferq.cli.bar import Meter

        async with app.queue() as queue:
            with Meter(app) as meter:
                if not dry_run:
                    size = (await queue.store_stats()).file_bytes
                    meter.line(f"compacting {size / 1e6:,.1f} MB; nobody can write meanwhile")
                found = await queue.compact(dry_run=dry_run)
        record = msgspec.to_builtins(found)
        app.out.record(record, [Column(name.upper(), field(name)) for name in _SIZES], key="after")
        verb = "would come back" if dry_run else "came back"
        say(f"{(found.before - found.after) / 1e6:,.1f} MB {verb}: {found.before / 1e6:,.1f} MB before, {found.after / 1e6:,.1f} MB after")

    app.run(main())


_SCHEMA = ("path", "schema", "known", "applied", "pending", "backup")


@click.command(
    cls=Command,
    examples="""
        inferq db migrate --dry-run
        inferq --store ./old.db db migrate
        inferq --store ./old.db db migrate --to 6 --no-backup
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
    fields=_SCHEMA,
)
@click.option("--dry-run", is_flag=True, help="Only say what has been applied and what would be.")
@click.option("--to", type=click.IntRange(min=1), metavar="N", help="Not the newest schema but this one.")
@click.option("--backup/--no-backup", default=True, help="Whether a copy is made beside the store first (default: yes).")
@output_options()
@click.pass_obj
def migrate(app: App, dry_run: bool, to: int | None, backup: bool) -> None:
    """Bring a store of an older inferq to the newest schema.

    Whoever opens a store does the same, without the copy: this is for looking first, and for having a way back. No process may
    have the store open. It works on the store's file, so not over HTTP: give --store. A file of a newer inferq is refused.
    """
    from inferq.stores.sqlite import migrating

    url = app.store_url
    found = migrating.look(url) if dry_run else migrating.migrate(url, to=to, backup=backup)
    record = {name: getattr(found, name) for name in found.__struct_fields__}
    app.out.record(record, [Column(name.upper(), field(name)) for name in _SCHEMA], key="schema")
    if found.pending:
        say(f"schema {found.schema} of {found.known}; to be applied: {', '.join(found.pending)}")
    else:
        say(f"schema {found.schema}: the newest that this inferq knows")
