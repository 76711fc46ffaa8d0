"""The verbs of `inferq cron` that ask: list, show, history, test."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from inferq.cli.app import App
from inferq.cli.cron.records import SCHEDULE_COLUMNS, SCHEDULE_FIELDS, page, schedule_record
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say, stdout_is_terminal
from inferq.cli.params import INSTANT
from inferq.cli.records import TASK_COLUMNS, TASK_FIELDS, ago, task_record

_SHOWN = 5
"""Next fires on a schedule's page."""


@click.command(
    "list",
    cls=Command,
    examples="""
        inferq cron list
        inferq cron list --enabled --json=name,next_fire
        inferq cron list -q --disabled | inferq cron enable -
    """,
    exits=(Exit.UNREACHABLE,),
    fields=SCHEDULE_FIELDS,
)
@click.option("--enabled", "enabled", flag_value=True, default=None, type=bool, help="Only those that fire.")
@click.option("--disabled", "enabled", flag_value=False, type=bool, help="Only those that do not.")
@click.option("--limit", type=click.IntRange(min=1, max=10_000), default=100, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out the first so many.")
@click.option("--after", metavar="NAME", default="", help="Go on after this name (printed when there is more).")
@output_options()
@click.pass_obj
def list_(app: App, enabled: bool | None, limit: int, offset: int, after: str) -> None:
    """List schedules.

    They are sorted by name. NEXT RUN is when the next task is made, jitter and all; -o wide adds the policies and
    why the last fire made no task.
    """
    app.run(_list(app, enabled, limit=limit, offset=offset, after=after))


async def _list(app: App, enabled: bool | None, *, limit: int, offset: int, after: str) -> None:
    async with app.queue() as queue:
        found = await queue.schedules.list(enabled, limit=min(limit + offset + 1, 10_000), after=after)
    shown = found[offset : offset + limit]
    app.out.records([schedule_record(schedule) for schedule in shown], SCHEDULE_COLUMNS, key="name")
    if len(found) > offset + limit:
        say(f"more: --after {shown[-1].place}")
    elif not found and stdout_is_terminal():
        say("there are no schedules; add one with `inferq cron add`")


@click.command(
    cls=Command,
    examples="""
        inferq cron show daily-report
        inferq cron show daily-report -o json
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=SCHEDULE_FIELDS,
)
@click.argument("name")
@output_options()
@click.pass_obj
def show(app: App, name: str) -> None:
    """Show everything about one schedule.

    Its next fires are shown too. NAME is a name, an id, or the beginning of an id.
    """
    app.run(_show(app, name))


async def _show(app: App, name: str) -> None:
    async with app.queue() as queue:
        schedule = await queue.schedules.get(name)
        # Where the clock once stood ahead, its mark says from when on it fires again.
        after = datetime.fromtimestamp(max(schedule.mark / 1000, time.time()), UTC)
        fires = await queue.schedules.preview(schedule.expression, tz=schedule.tz, count=_SHOWN, after=after)
    if app.out.format in ("table", "wide"):
        app.out.pairs(page(schedule, [*fires] if schedule.enabled else []))
    else:
        app.out.record(schedule_record(schedule), SCHEDULE_COLUMNS, key="name")


@click.command(
    cls=Command,
    examples="""
        inferq cron history daily-report
        inferq cron history daily-report --limit 1 -q | inferq result -
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=(*TASK_FIELDS, "note"),
)
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=20, show_default=True, help="At most so many.")
@output_options()
@click.pass_obj
def history(app: App, name: str, limit: int) -> None:
    """List the tasks that a schedule made.

    Newest first, as far as retention keeps them.
    """
    app.run(_history(app, name, limit))


async def _history(app: App, name: str, limit: int) -> None:
    async with app.queue() as queue:
        tasks = await queue.schedules.history(name, limit=limit)
    app.out.records([task_record(task) for task in tasks], TASK_COLUMNS)


@click.command(
    cls=Command,
    examples="""
        inferq cron test "0 9 * * 1-5"
        inferq cron test --schedule "30 2 * * *" --tz Europe/Berlin --after 2026-10-24T12:00:00Z --count 3
    """,
    fields=("fire", "local", "description"),
)
@click.argument("expression", required=False)
@click.option("--schedule", "--cron", "option", metavar="EXPRESSION", help="The expression, instead of the argument.")
@click.option("--tz", "--timezone", default="UTC", show_default=True, metavar="ZONE", help="Time zone such as Europe/Berlin.")
@click.option("--count", type=click.IntRange(min=1, max=1000), default=5, show_default=True, help="How many fires.")
@click.option("--after", type=INSTANT, metavar="TIME", help="Fires after this time instead of now.")
@output_options()
@click.pass_obj
def test(app: App, expression: str | None, option: str | None, tz: str, count: int, after: datetime | None) -> None:
    """Say when an expression fires next.

    And what it means in words. EXPRESSION has five fields (minute, hour, day of month, month, day of week) or is
    @hourly, @daily, @weekly, @monthly,
    @yearly. No queue is needed.
    """
    if (expression is None) == (option is None):
        raise click.UsageError('expected one expression, such as: inferq cron test "0 9 * * 1-5"')
    from inferq.cron import describe, parse
    from inferq.door.schedules import preview

    text = expression if expression is not None else option or ""
    fires = preview(text, tz, count, after)
    words = describe(parse(text))
    records = [{"fire": round(at.timestamp() * 1000), "local": at.isoformat(timespec="seconds"), "description": words} for at in fires]
    if app.out.format in ("table", "wide"):
        say(words)
    columns = [Column("FIRE", field("local"))]
    if stdout_is_terminal():
        columns.append(Column("", lambda record: ago(record["fire"])))
    app.out.records(records, columns, key="local")
