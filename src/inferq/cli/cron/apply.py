"""`inferq cron apply`: schedules as a file that is kept with the program they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say

if TYPE_CHECKING:
    from inferq.door.schedules import ScheduleFields, SchedulesDoor
    from inferq.schedule import Schedule

_COLUMNS = (Column("NAME", field("name")), Column("CHANGE", field("change")), Column("EXPRESSION", field("expression")))
_ALIASES = {"schedule": "expression", "cron": "expression", "cron_expr": "expression", "task_template": "task"}


@click.command(
    cls=Command,
    examples="""
        inferq cron apply -f crons.toml --dry-run
        inferq cron apply -f crons.toml
        inferq cron apply -f crons.toml --prune
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=("name", "change", "expression"),
)
@click.option("-f", "--file", "path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="TOML, YAML or JSON.")
@click.option("--prune", is_flag=True, help="Remove every schedule that the file does not name.")
@click.option("--dry-run", is_flag=True, help="Say what would change and change nothing.")
@output_options()
@click.pass_obj
def apply(app: App, path: Path, prune: bool, dry_run: bool) -> None:
    """Make the schedules be those of a file.

    Safe to run again and again. The file has a table `schedules` of names: each has `expression` and `task`, and
    may have tz, enabled, misfire, window,
    overlap, jitter, start_within, end_within and metadata. All of it is checked before anything changes. What is so already is left alone.
    """
    app.run(_apply(app, _read(path), prune=prune, dry_run=dry_run))


def _read(path: Path) -> list[ScheduleFields]:
    from inferq.config.files import read
    from inferq.errors import ConfigError, InvalidTask

    table = read(path).data
    entries = table.get("schedules")
    if not isinstance(entries, dict) or set(table) != {"schedules"}:
        raise ConfigError(f'{path}: expected one table `schedules`, such as [schedules.daily] with expression = "0 9 * * *"')
    made = []
    for name, entry in entries.items():
        try:
            made.append(_entry(name, entry))
        except InvalidTask as error:
            raise ConfigError(f"{path}: schedules.{name}.{error}") from None
    return made


def _entry(name: str, entry: Any) -> ScheduleFields:
    from inferq.door.schedules import FIELDS, ScheduleFields, checked_fields, template_fields, template_of
    from inferq.errors import InvalidTask

    if not isinstance(entry, dict):
        raise InvalidTask(f"expected a table with expression and task, got {type(entry).__name__}", field="expression")
    given: dict[str, Any] = {_ALIASES.get(str(key), str(key)): value for key, value in entry.items()}
    for key in given:
        if key not in FIELDS:
            raise InvalidTask(f"expected one of {', '.join(FIELDS)}, got this", field=key)
    for key in ("expression", "task"):
        if key not in given:
            raise InvalidTask("expected this field, got none", field=key)
    given["task"] = template_fields(given["task"])
    fields = checked_fields(ScheduleFields(name=name, **given))
    template_of(fields)
    return fields


async def _apply(app: App, wanted: list[ScheduleFields], *, prune: bool, dry_run: bool) -> None:
    from inferq.errors import ConfigError, InvalidTask

    async with app.queue() as queue:
        there = {schedule.place: schedule for schedule in await queue.schedules.list(limit=10_000)}
        records = []
        for fields in wanted:
            try:
                records.append(await _make(queue.schedules, fields, there.get(_place(fields, there)), dry_run=dry_run))
            except InvalidTask as error:
                before = f"; {len(records)} before it were applied" if records else ""
                raise ConfigError(f"schedules.{fields.name}.{error}{before}; mend the file and apply it again") from None
        for place in sorted(set(there) - {_place(fields, there) for fields in wanted}) if prune else ():
            if not dry_run:
                await queue.schedules.remove(place)
            records.append({"name": place, "change": "removed", "expression": there[place].expression})
    app.out.records(records, _COLUMNS, key="name")
    changed = sum(record["change"] != "unchanged" for record in records)
    say(f"{changed} of {len(records)} schedules {'would change' if dry_run else 'changed'}")


def _place(fields: ScheduleFields, there: Mapping[str, Schedule]) -> str:
    """Where the schedule is or will be. A tenant's key need not name its tenant: of that name there is one then."""
    from inferq.schedule import place_of

    place = place_of(fields.task.get("tenant") or "", fields.name)
    named = [schedule.place for schedule in there.values() if schedule.name == fields.name]
    return named[0] if place == fields.name and place not in there and len(named) == 1 else place


async def _make(schedules: SchedulesDoor, fields: ScheduleFields, before: Schedule | None, *, dry_run: bool) -> dict[str, Any]:
    import msgspec

    if dry_run:
        change = "created" if before is None else "changed" if _differs(fields, before) else "unchanged"
    else:
        given = {name: getattr(fields, name) for name in fields.__struct_fields__ if name not in ("name", "expression")}
        after = await schedules.put(fields.name, fields.expression, **given)
        moved = before is not None and msgspec.structs.replace(after, updated=before.updated) != before and _differs(fields, before)
        change = "created" if before is None else "changed" if moved else "unchanged"
    return {"name": fields.name, "change": change, "expression": fields.expression}


def _differs(fields: ScheduleFields, before: Schedule) -> bool:
    from inferq.door.schedules import template_of

    switched = fields.enabled is not None and fields.enabled != before.enabled
    same = (name for name in fields.__struct_fields__ if name not in ("task", "enabled"))
    return switched or before.task != template_of(fields) or any(getattr(fields, name) != getattr(before, name) for name in same)
