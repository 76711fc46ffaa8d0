"""`inferq work`: a worker until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import cell, say
from inferq.cli.params import DURATION
from inferq.cli.records import SHORT_ID, span

if TYPE_CHECKING:
    from inferq.events import Event

_TOLD = ("task.completed", "task.failed", "task.cancelled", "task.retrying", "task.rescued")


@click.command(
    cls=Command,
    examples="""
        inferq work
        inferq work --slots 8 --grace 2m
        inferq work --data-dir ./data --quiet
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
)
@click.option("--slots", type=click.IntRange(min=1), help="Tasks at the same time.")
@click.option("--grace", type=DURATION, help="Time that running tasks get to finish when it stops.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each task.")
@click.pass_obj
def work(app: App, slots: int | None, grace: float | None, quiet: bool) -> None:
    """Run tasks until stopped.

    Any number of workers may share a store. The first Ctrl-C or SIGTERM stops it gracefully: no new tasks, running ones
    finish within the grace or are handed back. The second stops it now. One line for each task that ends goes to stderr.
    """
    app.service = True
    app.extra |= {"worker.slots": slots, "worker.shutdown_grace": grace}
    app.run(_work(app, quiet=quiet))


async def _work(app: App, *, quiet: bool) -> None:
    settings = app.loaded().settings
    backends = ", ".join(backend.name for backend in settings.backends)
    async with app.queue(work=True) as queue:
        say(f"working on {app.store_url} with {settings.worker.slots} slots; backends: {backends}; Ctrl-C stops")
        if not quiet:
            queue.subscribe(lambda event: say(line(event)), *_TOLD)
        await queue.run_until_stopped()
    say("stopped")


def line(event: Event) -> str:
    """What happened to a task, on one line."""
    name = event.type.removeprefix("task.")
    said = [f"{name:<9}", getattr(event, "task_id", "")[:SHORT_ID]]
    if (ran := getattr(event, "ran_ms", None)) is not None:
        said.append(f"waited {span(getattr(event, 'waited_ms', 0) / 1000)}, ran {span(ran / 1000)}")
    if (attempt := getattr(event, "attempt", 1)) > 1:
        said.append(f"attempt {attempt}")
    if code := getattr(event, "code", None):
        said.append(code)
    if error := getattr(event, "error", "") or getattr(event, "reason", ""):
        said.append(cell(error))
    return " ".join(said)
