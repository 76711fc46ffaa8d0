"""`inferq work`: a worker until a signal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.params import DURATION

if TYPE_CHECKING:
    from inferq.executors.discovery import Discovered
    from inferq.queue import AsyncQueue

log: Final = logging.getLogger("inferq.worker")
places: Final = logging.getLogger("inferq.backends")


@click.command(
    cls=Command,
    examples="""
        inferq work
        inferq work --slots 8 --grace 2m
        inferq work --backend gpu-1 --slots 4
        inferq work --data-dir ./data --quiet
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
)
@click.option("--slots", type=click.IntRange(min=1), help="Tasks at the same time.")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this configured backend; repeatable.")
@click.option("--grace", type=DURATION, help="Time that running tasks get to finish when it stops.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each task.")
@click.pass_obj
def work(app: App, slots: int | None, backends: tuple[str, ...], grace: float | None, quiet: bool) -> None:
    """Run tasks until stopped.

    Any number of workers may share a store. The first Ctrl-C or SIGTERM stops it gracefully: no new tasks, running ones
    finish within the grace or are handed back. The second stops it now. SIGHUP reads the configuration again: limits,
    backends and the log change at once, what needs a new start is named. One line for each task that ends goes to the log,
    which is JSON lines on stderr unless that is a terminal or the settings say otherwise.
    """
    app.service = True
    app.only = backends
    app.extra |= {"worker.slots": slots, "worker.shutdown_grace": grace}
    app.run(_work(app, quiet=quiet))


async def _work(app: App, *, quiet: bool) -> None:
    from inferq.cli import tasklog
    from inferq.cli.reload import on_hangup

    settings = app.loaded().settings

    def ready() -> None:
        backends = [backend.name for backend in queue.places()]
        about = {"event": "worker.started", "store": app.store_url, "slots": settings.worker.slots, "backends": backends}
        text = "working on %s with %s slots; backends: %s; Ctrl-C stops, SIGHUP reloads the configuration"
        log.info(text, app.store_url, settings.worker.slots, ", ".join(backends), extra=about)
        tell_discovered(found)

    async with app.store() as queue:
        app.works = True
        if not quiet:
            # Before the first task can end.
            tasklog.follow(queue.store)
        found = await discovered(queue)
        await queue.start_work()
        with on_hangup(app, queue):
            await queue.run_until_stopped(ready=ready)
    log.info("stopped", extra={"event": "worker.stopped"})


async def discovered(queue: AsyncQueue) -> list[Discovered]:
    """What model servers of this machine there are to use, unless the settings say not to look."""
    return await queue.discover() if queue.settings.worker.discover else []


def tell_discovered(found: list[Discovered]) -> None:
    """Say what was found and what was not, and why."""
    for one in found:
        about = {"event": "backend.discovered", "server": one.title, "address": one.address, "found": one.found, "models": list(one.models)}
        if one.found:
            count = "1 model" if len(one.models) == 1 else f"{len(one.models)} models"
            places.info("found %s at %s (%s): %s", one.title, one.address, count, one.note, extra=about)
        else:
            places.info("no %s at %s: %s", one.title, one.address, one.note, extra=about)
