"""`inferq drain`: the whole queue out of service, before its machine is stopped or its store is moved."""

from __future__ import annotations

from typing import Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say
from inferq.cli.params import DURATION

_FIELDS = ("draining", "running", "waiting", "queue")


@click.command(
    cls=Command,
    examples="""
        inferq drain --wait
        inferq drain --wait --timeout 10m && systemctl stop inferq
        inferq drain --json=running
        inferq resume
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.INTERRUPTED),
    fields=_FIELDS,
)
@click.option("--wait", is_flag=True, help="Return when no task runs any more, in any process.")
@click.option("--timeout", type=DURATION, help="With --wait: no longer than this; it goes on draining.")
@output_options()
@click.pass_obj
def drain(app: App, wait: bool, timeout: float | None) -> None:
    """Take the whole queue out of service: no process starts a task.

    Running tasks finish. New tasks are still taken, are on disk like any other, and wait. Beside `inferq pause`, servers of
    this queue also answer 503 on /readyz with the reason, so that whoever balances load sends nothing more here. Messages
    to webhooks wait too. It survives restarts; `inferq resume` undoes it.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout bounds --wait: give both or neither")
    app.resume = "it goes on draining; `inferq drain --wait` waits again, `inferq resume` undoes it"
    app.run(_drain(app, wait=wait, timeout=timeout))


async def _drain(app: App, *, wait: bool, timeout: float | None) -> None:
    from inferq.cli.bar import Meter

    async with app.queue() as queue:
        await queue.drain()
        if wait:
            with Meter(app) as meter:
                await queue.idle(timeout, lambda running: meter.line(f"draining: {running:,} still running"))
        stats = await queue.stats()
        waiting = stats.states["pending"] + stats.states["scheduled"]
        record: dict[str, Any] = {
            "draining": stats.draining,
            "running": stats.states["running"],
            "waiting": waiting,
            "queue": queue.url,
        }
    app.out.record(record, [Column(name.upper(), field(name)) for name in _FIELDS], key="queue")
    say("drained: nothing runs" if not record["running"] else "draining: `inferq drain --wait` returns when nothing runs")
