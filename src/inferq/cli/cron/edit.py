"""The verbs of `inferq cron` that change: add, update, enable, disable, remove, run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.cron.records import SCHEDULE_COLUMNS, SCHEDULE_FIELDS, schedule_record
from inferq.cli.cron.template import Said, schedule_options
from inferq.cli.exits import Exit, exit_of, together
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say, stdout_is_terminal
from inferq.cli.params import DURATION, stdin_text

if TYPE_CHECKING:
    from inferq.door.schedules import SchedulesDoor
    from inferq.schedule import Schedule

_SWITCHED = (Exit.PARTIAL, Exit.NOT_FOUND, Exit.UNREACHABLE)


class _CronCommand(Command):
    """Takes the forerunner's `--enabled=false` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        switches = {
            "--enabled=true": "--enabled",
            "--enabled=false": "--disabled",
            "--stream=true": "--stream",
            "--stream=false": "--no-stream",
        }
        return super().parse_args(ctx, [switches.get(arg, arg) for arg in args])


@click.command(
    cls=_CronCommand,
    examples="""
        inferq cron add --name daily --schedule "0 9 * * 1-5" --model qwen3 --prompt "Summary of {scheduled_at:%Y-%m-%d}"
        inferq cron add --name vectors --cron "*/30 * * * *" --type embed --model nomic-embed-text --input "a text" --overlap queue
        inferq cron add --name backup --schedule @daily --file task.json --misfire all --window 2d
    """,
    exits=(Exit.CONFLICT, Exit.UNREACHABLE),
    fields=SCHEDULE_FIELDS,
)
@click.option("--name", required=True, help="Its name, unique.")
@schedule_options
@output_options()
@click.pass_obj
def add(app: App, name: str, said: Said) -> None:
    """Add a schedule.

    Its task is checked now, like a submission. A name that is taken is refused: `cron update` changes a schedule,
    `cron apply` makes several be as a file says.
    """
    fields = said.times()
    if "expression" not in fields:
        raise click.UsageError('there is no schedule: give it with --schedule, such as --schedule "0 9 * * 1-5"')
    task = said.task()
    app.run(_one(app, lambda schedules: schedules.put(name, fields.pop("expression"), task=task, replace=False, **fields)))


async def _one(app: App, change: Callable[[SchedulesDoor], Awaitable[Schedule]]) -> None:
    async with app.queue() as queue:
        made = await change(queue.schedules)
    app.out.record(schedule_record(made), SCHEDULE_COLUMNS, key="name")
    if made.enabled and stdout_is_terminal():
        say("its tasks are made by any process that works: `inferq work` or `inferq serve`")


@click.command(
    cls=_CronCommand,
    examples="""
        inferq cron update daily --schedule "30 8 * * 1-5"
        inferq cron update daily --prompt "Another summary" --priority high --overlap queue
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=SCHEDULE_FIELDS,
)
@click.argument("name")
@schedule_options
@output_options()
@click.pass_obj
def update(app: App, name: str, said: Said) -> None:
    """Change a schedule.

    What is said is set, the rest stays. Another time counts from now on. NAME is a name, an id, or the beginning of an id.
    """
    fields = said.times()
    if not fields and not said.changes_task:
        raise click.UsageError("nothing to change was given; see `inferq cron update --help`")

    async def change(schedules: SchedulesDoor) -> Schedule:
        if said.changes_task:
            from inferq.door.schedules import template_fields

            before = template_fields((await schedules.get(name)).task)
            fields["task"] = said.task(before)
        return await schedules.update(name, **fields)

    app.run(_one(app, change))


async def _each(app: App, given: tuple[str, ...], act: Callable[[SchedulesDoor, str], Awaitable[Any]]) -> None:
    """Do it for each name; an error with one does not stop the others."""
    from inferq.errors import InferqError

    names = list(dict.fromkeys(part for name in given for part in (stdin_text().split("\n") if name == "-" else [name]) if part))
    done: list[dict[str, Any]] = []
    ends: list[Exit] = []
    async with app.queue() as queue:
        for name in names:
            try:
                schedule = await queue.schedules.get(name)
                done.append(schedule_record(await act(queue.schedules, schedule.name) or schedule))
                ends.append(Exit.OK)
            except InferqError as error:
                if len(names) == 1:
                    raise
                say(f"inferq: {error}", color="red")
                ends.append(exit_of(error))
    app.out.records(done, SCHEDULE_COLUMNS, key="name")
    app.end(together(ends))


@click.command(
    cls=Command,
    examples="inferq cron enable daily\ninferq cron list -q --disabled | inferq cron enable -",
    exits=_SWITCHED,
    fields=SCHEDULE_FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def enable(app: App, names: tuple[str, ...]) -> None:
    """Let schedules fire, from now on.

    What was missed meanwhile is not made up for. `-` reads names from standard input.
    """
    app.run(_each(app, names, lambda schedules, name: schedules.enable(name)))


@click.command(
    cls=Command, examples="inferq cron disable daily\ninferq cron disable daily nightly", exits=_SWITCHED, fields=SCHEDULE_FIELDS
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def disable(app: App, names: tuple[str, ...]) -> None:
    """Let schedules fire no more.

    Their tasks go on. `-` reads names from standard input.
    """
    app.run(_each(app, names, lambda schedules, name: schedules.disable(name)))


@click.command(
    cls=Command, examples="inferq cron remove daily\ninferq cron remove daily -o json > daily.json", exits=_SWITCHED, fields=SCHEDULE_FIELDS
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def remove(app: App, names: tuple[str, ...]) -> None:
    """Remove schedules; their tasks go on.

    What was removed is printed: its JSON is all that is needed to add it again. `-` reads names from standard input.
    """
    app.run(_each(app, names, lambda schedules, name: schedules.remove(name)))


@click.command(
    cls=Command,
    examples="""
        inferq cron run daily
        inferq cron run daily --wait
    """,
    exits=(Exit.FAILED, Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.REJECTED, Exit.INTERRUPTED),
    fields=("task_id", "schedule"),
)
@click.argument("name")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key makes one task.")
@click.option("--wait", "--sync", "wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--wait-timeout", type=DURATION, help="Wait no longer than this; the task goes on.")
@output_options()
@click.pass_obj
def run(app: App, name: str, key: str | None, wait: bool, wait_timeout: float | None) -> None:
    """Make a schedule's task now.

    Whatever its times and policies say, enabled or not.
    """
    app.run(_run(app, name, key, wait=wait or wait_timeout is not None, timeout=wait_timeout))


async def _run(app: App, name: str, key: str | None, *, wait: bool, timeout: float | None) -> None:
    from inferq.cli.stream import collect, print_result

    async with app.queue() as queue:
        handle = await queue.schedules.run(name, key=key)
        app.resume = f"no longer waiting; the task goes on. Collect it with: inferq result {handle.id} --wait"
        if wait:
            print_result(app, await collect(app, queue, handle.id, timeout=timeout))
            return
    columns = [Column("ID", field("task_id")), Column("SCHEDULE", field("schedule"))]
    app.out.record({"task_id": handle.id, "schedule": name}, columns, key="task_id")
