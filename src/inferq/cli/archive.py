"""`inferq db export` and `inferq db import`: the whole store as JSON lines, to another store, machine or version."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, naming_stdout, output_options, say, warn

if TYPE_CHECKING:
    from inferq.archive import Imported
    from inferq.door.archive import ArchiveDoor, Told

_SHOWN: Final = 20
"""Refused lines that are told one by one."""


@click.command(
    cls=Command,
    examples="""
        inferq db export inferq-monday.jsonl
        inferq db export - | gzip > inferq-monday.jsonl.gz
        inferq db export - | inferq --url http://other:7125 db import -
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=("path", "bytes"),
)
@click.argument("file", metavar="FILE|-")
@click.option("--keys", is_flag=True, help="Also the keys of servers, as hashes: who has one can go on using it there.")
@output_options()
@click.pass_obj
def export(app: App, file: str, keys: bool) -> None:
    """Write the whole store as JSON lines, while work goes on.

    Tasks with payloads, results and attempts, batches, schedules, webhooks, limits of tenants and switches of backends, all of
    one moment; `inferq db import` takes them into any store. No secrets: webhooks come without theirs, disabled. Streams and the
    logs of events and calls stay behind, and what runs is written as waiting: `inferq drain --wait` first leaves nothing running.
    `-` is standard output; an existing FILE is refused.
    """
    if file != "-" and Path(file).exists():
        raise click.UsageError(f"{file} exists already; an export never overwrites: choose another name or remove it")
    app.resume = "nothing was written" if file != "-" else "what was written is no whole archive"
    size = app.run(_export(app, file, keys=keys))
    if file == "-":
        say(f"exported {_megabytes(size)}")
        return
    record = {"path": str(Path(file).absolute()), "bytes": size}
    app.out.record(record, [Column("PATH", field("path")), Column("BYTES", field("bytes"))], key="path")


async def _export(app: App, file: str, *, keys: bool) -> int:
    from inferq.cli.bar import Meter

    async with app.queue() as queue:
        with Meter(app) as meter:

            def told(size: int) -> None:
                meter.line(f"exported {_megabytes(size)}")

            if file != "-":
                return await queue.archive.export(file, keys=keys, told=told)
            return await _to_stdout(queue.archive, told, keys=keys)


async def _to_stdout(archive: ArchiveDoor, told: Told, *, keys: bool) -> int:
    size = 0
    pieces: Any = archive.pieces(keys=keys)
    async with aclosing(pieces):
        async for piece in pieces:
            with naming_stdout():
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            size += len(piece)
            told(size)
    return size


_FIELDS = ("tasks", "batches", "records", "pauses", "present", "wrong", "whole", "dry_run", "errors")


@click.command(
    "import",
    cls=Command,
    examples="""
        inferq db import inferq-monday.jsonl --dry-run
        inferq db import inferq-monday.jsonl
        gunzip -c inferq-monday.jsonl.gz | inferq --store ./new.db db import -
    """,
    exits=(Exit.PARTIAL, Exit.PERMISSION, Exit.NOT_FOUND, Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=_FIELDS,
)
@click.argument("file", metavar="FILE|-")
@click.option("--dry-run", is_flag=True, help="Say what would come of it, keep nothing.")
@output_options()
@click.pass_obj
def import_(app: App, file: str, dry_run: bool) -> None:
    """Take an archive of `inferq db export` into the store, empty or not.

    What is there already, by id, stays as it is: the same archive again adds nothing, and after an interruption it goes on
    where it was. Lines that cannot be kept are told with number and reason and passed over (exit code 3). Tasks keep their ids,
    states and order, and stand behind those that are there. Waiting ones run as soon as somebody works here: `inferq drain` first
    when they should not yet. `-` is standard input.
    """
    app.resume = "what was read is kept; the same command goes on where it was"
    found = app.run(_import(app, file, dry_run=dry_run))
    added = found.added
    record = {
        "tasks": added.get("task", 0),
        "batches": added.get("batch", 0),
        "records": added.get("record", 0),
        "pauses": added.get("pause", 0),
        "present": found.present,
        "wrong": found.wrong,
        "whole": found.whole,
        "dry_run": found.dry_run,
        "errors": [{"line": one.line, "reason": one.reason} for one in found.errors],
    }
    for one in found.errors[:_SHOWN]:
        warn(f"line {one.line}: {one.reason}")
    if found.wrong > _SHOWN:
        warn(f"and {found.wrong - _SHOWN:,} others")
    app.out.record(record, [Column(name.upper(), field(name)) for name in _FIELDS[:-1]], key="tasks")
    app.end(Exit.PARTIAL if found.wrong else Exit.OK)


async def _import(app: App, file: str, *, dry_run: bool) -> Imported:
    from inferq.cli.bar import Meter

    async with app.queue() as queue:
        with Meter(app) as meter:
            total = _size(file)

            def told(size: int) -> None:
                share = f" of {_megabytes(total)}" if total else ""
                meter.line(f"{'checked' if dry_run else 'imported'} {_megabytes(size)}{share}")

            if file != "-":
                return await queue.archive.load(file, dry_run=dry_run, told=told)
            from inferq.door.archive import read_pieces

            source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
            return await queue.archive.take(read_pieces(source, told), dry_run=dry_run)


def _size(file: str) -> int:
    """Bytes of a file, 0 where nobody can say. Raises OSError."""
    if file == "-":
        return 0
    found = os.stat(file)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
