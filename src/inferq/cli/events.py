"""`inferq events`: the log of what happened, printed or followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, Record, cell, field, json_text, output_options, stdout_is_terminal
from inferq.cli.reader import while_read
from inferq.cli.records import SHORT_ID, iso

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.events import Event

_OWN = ("position", "at", "type", "task_id")


def event_record(event: Event) -> dict[str, Any]:
    """An event with all its fields."""
    record = {name: getattr(event, name) for name in event.__struct_fields__}
    return {"position": event.position, "at": event.at, "type": event.type, "task_id": record.get("task_id", "")} | record


def _detail(record: Record) -> str:
    said = {name: value for name, value in record.items() if name not in _OWN and value not in (None, "")}
    return " ".join(f"{name}={value if isinstance(value, str) else json_text(value)}" for name, value in said.items())


def _clock(record: Record) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(record["at"] / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]


EVENT_COLUMNS = (
    Column("POSITION", field("position")),
    Column("TIME", lambda record: iso(record["at"]), _clock),
    Column("TYPE", field("type")),
    Column("TASK", field("task_id"), lambda record: str(record["task_id"])[:SHORT_ID]),
    Column("DETAIL", _detail),
)


async def past(queue: AsyncDoor, *types: str, after: int = 0, task_id: str = "") -> AsyncIterator[Event]:
    """The events that have happened by now."""
    last = (await queue.store_stats()).last_event
    if last <= after:
        return
    async for event in queue.events(after=after):
        if event.position > last:
            return
        if (not types or event.type in types) and (not task_id or getattr(event, "task_id", "") == task_id):
            yield event
        if event.position >= last:
            return


@click.command(
    cls=Command,
    examples="""
        inferq events --follow
        inferq events task.failed 'queue.*' --after 0
        inferq events --follow -o jsonl | jq .type
    """,
    exits=(Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=("position", "at", "type", "task_id", "..."),
)
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--after", type=click.IntRange(min=0), help="Begin after this position; 0 is the beginning of the log.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="Without --follow and --after: the last so many; 0 is all."
)
@output_options()
@click.pass_obj
def events(app: App, types: tuple[str, ...], follow: bool, after: int | None, limit: int) -> None:
    """Print what happened, or follow what happens.

    TYPE is an event's name or a pattern such as `task.*`; none means all. Each event has a position to resume after.
    """
    from inferq.events import EVENT_TYPES, type_filter

    try:
        wanted = type_filter(types)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = tuple(name for name in EVENT_TYPES if wanted(name))
    app.run(_follow(app, chosen, after) if follow else _print(app, chosen, after, limit))


async def _print(app: App, types: tuple[str, ...], after: int | None, limit: int) -> None:
    async with app.queue() as queue:
        found = [event_record(event) async for event in past(queue, *types, after=after or 0)]
    app.out.records(found if after is not None or not limit else found[-limit:], EVENT_COLUMNS, key="task_id")


async def _follow(app: App, types: tuple[str, ...], after: int | None) -> None:
    last = after
    try:
        async with app.queue() as queue, while_read():
            async for event in queue.events(*types, after=after):
                last = event.position
                _print_one(app, event_record(event))
    finally:
        if last is not None:
            app.resume = f"go on with: inferq events --follow --after {last}"


def _print_one(app: App, record: Record) -> None:
    # A table cannot be laid out before its end, so a followed one is printed as lines.
    if app.out.format not in ("table", "wide"):
        app.out.records([record], EVENT_COLUMNS, key="task_id") if app.out.format != "json" else app.out.json(record)
        return
    cells = [cell((c.human or c.value)(record) if stdout_is_terminal() else c.value(record)) for c in EVENT_COLUMNS]
    app.out.write("  ".join(cells) if stdout_is_terminal() else "\t".join(cells))
