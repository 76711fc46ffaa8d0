"""`inferq serve`: the server until a signal; `inferq health`: is it ready."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import say, warn
from inferq.cli.params import DURATION

if TYPE_CHECKING:
    from inferq.config import Settings
    from inferq.queue import AsyncQueue
    from inferq.server.serving import Server

log: Final = logging.getLogger("inferq.server")


@click.command(
    cls=Command,
    examples="""
        inferq serve
        inferq serve --port 8080 --workers 8 --data-dir ./data
        inferq serve --no-work
        inferq serve --demo
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
)
@click.option("--host", help="Address to listen on; any but this machine's own needs keys (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 takes a free one (default: 7125).")
@click.option("--workers", "--slots", "slots", type=click.IntRange(min=1), help="Tasks that run here at the same time.")
@click.option("--no-work", is_flag=True, help="Run no tasks here: others do, with `inferq work`.")
@click.option("--insecure", is_flag=True, help="Listen on a public address although there are no keys.")
@click.option("--grace", type=DURATION, help="Time that running tasks get to finish when it stops.")
@click.option("--demo", is_flag=True, help="To try it: a store that is thrown away, and a backend that only plays a model.")
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each task.")
@click.pass_obj
def serve(app: App, /, quiet: bool, browse: bool, no_work: bool, demo: bool, insecure: bool, grace: float | None, **told: Any) -> None:
    """Serve the queue over HTTP, and run its tasks.

    REST, event streams and a WebSocket on one port; docs/server.md has the routes. The first Ctrl-C or SIGTERM stops it
    gracefully: it is not ready any more, starts no more tasks, lets running ones finish within the grace, ends streams.
    The second stops it now. SIGHUP reads the configuration again. --demo needs no model: its backend plays one, by the executor
    echo, and answers with what it was asked.
    """
    app.service = True
    app.extra |= {
        "server.host": told["host"],
        "server.port": told["port"],
        "server.insecure": insecure or None,
        "worker.slots": told["slots"],
        "worker.shutdown_grace": grace,
    }
    check_extra()
    import asyncio

    import uvloop

    with _demo(app) if demo else nullcontext(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, quiet=quiet, browse=browse, work=not no_work))


@contextmanager
def _demo(app: App) -> Iterator[None]:
    """A store of its own for as long as the server runs. Raises UsageError where a store was named."""
    import shutil
    import tempfile

    if app.url or app.local is not None or app.data_dir or app.profile:
        raise click.UsageError("--demo has a store of its own, which is thrown away: leave --store, --data-dir, --local and --profile out")
    place = tempfile.mkdtemp(prefix="inferq-demo-")
    app.demo = True
    app.url = f"{place}/demo.db"
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_extra() -> None:
    """Raises ClickException where the extra `server` is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("uvicorn", "uvloop", "httptools", "websockets", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"the server needs further packages ({', '.join(missing)}): pip install 'inferq[server]'")


async def _serve(app: App, *, quiet: bool, browse: bool, work: bool) -> None:
    from inferq.cli import tasklog
    from inferq.cli.reload import on_hangup
    from inferq.cli.work import discovered, tell_discovered
    from inferq.server import create_app
    from inferq.server.listening import allow_descriptors, bound, check_public
    from inferq.server.serving import Server, run_until_stopped

    settings = app.loaded().settings
    async with app.store() as queue:
        app.works = work
        await check_public(queue)
        allow_descriptors(settings.server.max_connections)
        listening = bound(settings.server.host, settings.server.port)
        try:
            if not quiet:
                # Before the first task can end.
                tasklog.follow(queue.store)
            found = await discovered(queue) if work else []
            if work:
                await queue.start_work()
            server = Server(create_app(queue))

            def ready() -> None:
                _greet(server, queue, settings, work=work, browse=browse)
                tell_discovered(found)

            # What is loaded stays: the collector need not look through it again and again while requests wait.
            gc.collect()
            gc.freeze()
            with on_hangup(app, queue):
                await run_until_stopped(server, queue, listening, ready=ready)
        finally:
            listening.close()
    log.info("stopped", extra={"event": "server.stopped"})


def _greet(server: Server, queue: AsyncQueue, settings: Settings, *, work: bool, browse: bool) -> None:
    url = server.url
    backends = [backend.name for backend in queue.places()] if work else []
    slots = settings.worker.slots if work else 0
    about = {"event": "server.started", "url": url, "store": queue.url, "slots": slots, "backends": backends}
    doing = f"{slots} slots; backends: {', '.join(backends)}" if work else "no tasks run here"
    log.info("serving %s on %s; %s; Ctrl-C stops", queue.url, url, doing, extra=about)
    if sys.stderr.isatty() and settings.log.format != "json":
        say(f"  page      {url}/")
        say(f'  Python    connect("{url}")')
        say(f"  shell     inferq --url {url} list")
        if settings.backends[0].name == "demo":
            say(f'  try it    inferq --url {url} run demo --executor echo "say this back"')
        if not work:
            say("  to do     inferq work        # in another terminal: nothing runs without it")
    if browse:
        import webbrowser

        webbrowser.open(url)


@click.command(
    cls=Command,
    examples="""
        inferq health
        inferq --url http://127.0.0.1:7125 health
    """,
    exits=(Exit.UNREACHABLE,),
)
@click.option("-q", "--quiet", is_flag=True, help="Only the exit code.")
@click.pass_obj
def health(app: App, quiet: bool) -> None:
    """Ask whether the server is ready.

    The exit code is 0 when it is and 7 when it is not: made for container probes. Without --url it asks
    the address that the configuration says `inferq serve` listens on.
    """
    url = _address(app)
    problem = _ask(url)
    if problem:
        if not quiet:
            warn(f"{url}: {problem}")
        app.end(Exit.UNREACHABLE)
    elif not quiet:
        say(f"{url}: ready")


def _address(app: App) -> str:
    given = app.address().url if app.profile and not app.url else app.url or os.environ.get("INFERQ_URL", "")
    if given.startswith(("http://", "https://")):
        return given.rstrip("/")
    server = app.loaded().settings.server
    # An address to listen on everywhere is reached here.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(server.host, server.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


def _ask(url: str) -> str:
    """What is wrong; empty when it is ready."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=4)
    try:
        connection.request("GET", f"{parts.path}/readyz")
        answer = connection.getresponse()
        text = answer.read(2000).decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"no answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"not ready (status {answer.status}): {text}"
