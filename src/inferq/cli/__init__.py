"""The command line `inferq`: the table of its verbs, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from inferq.cli.app import App, env_flag, global_options
from inferq.cli.exits import Exit, exit_of
from inferq.cli.groups import LazyGroup, Verb
from inferq.cli.output import naming_stdout, say

_COMPLETION = "_INFERQ_COMPLETE"
_WORK, _ASK, _CHANGE, _KEEP = "Do work", "Ask", "Change", "Set up and look after"

VERBS = {
    "run": Verb("inferq.cli.run:run", "Ask a model and stream the answer, through the queue.", _WORK),
    "submit": Verb("inferq.cli.submit:submit", "Put a task into the queue.", _WORK),
    "serve": Verb("inferq.cli.serve:serve", "Serve the queue over HTTP, and run its tasks.", _WORK),
    "work": Verb("inferq.cli.work:work", "Run tasks until stopped.", _WORK),
    "list": Verb("inferq.cli.ask:list_", "List tasks, newest first.", _ASK),
    "status": Verb("inferq.cli.ask:status", "Show the queue's numbers, or where one task stands.", _ASK),
    "show": Verb("inferq.cli.ask:show", "Show everything about one task.", _ASK),
    "result": Verb("inferq.cli.collect:result", "Print what tasks answered.", _ASK),
    "wait": Verb("inferq.cli.collect:wait", "Wait until tasks have ended.", _ASK),
    "tail": Verb("inferq.cli.collect:tail", "Attach to a task's stream, from its start.", _ASK),
    "events": Verb("inferq.cli.events:events", "Print what happened, or follow what happens.", _ASK),
    "cancel": Verb("inferq.cli.change:cancel", "Cancel tasks, waiting or running.", _CHANGE),
    "retry": Verb("inferq.cli.change:retry", "Make failed or cancelled tasks again.", _CHANGE),
    "priority": Verb("inferq.cli.change:priority", "Change the priority of waiting tasks.", _CHANGE),
    "delete": Verb("inferq.cli.change:delete", "Remove ended tasks with their results, for good.", _CHANGE),
    "purge": Verb("inferq.cli.bulk:purge", "Remove ended tasks that are old, with their results.", _CHANGE),
    "operations": Verb("inferq.cli.bulk:operations", "Bulk changes that are or were made.", _CHANGE),
    "pause": Verb("inferq.cli.change:pause", "Start no more tasks: none at all, of one lane or model, or on one backend.", _CHANGE),
    "resume": Verb("inferq.cli.change:resume", "Undo a pause or a drain.", _CHANGE),
    "drain": Verb("inferq.cli.drain:drain", "Take the whole queue out of service: no process starts a task.", _CHANGE),
    "batch": Verb("inferq.cli.batch:batch", "Watch and change batches.", _CHANGE),
    "cron": Verb("inferq.cli.cron:cron", "Tasks that come again at set times.", _CHANGE),
    "backends": Verb("inferq.cli.backends:backends", "Where tasks run, and whether they may.", _KEEP),
    "models": Verb("inferq.cli.models:models", "Fetch, list, load and unload models.", _KEEP),
    "executors": Verb("inferq.cli.models:executors", "List the executors that are installed.", _KEEP),
    "config": Verb("inferq.cli.config:config", "Show, check and write settings.", _KEEP),
    "profile": Verb("inferq.cli.profile:profile", "Name servers and stores, and choose among them.", _KEEP),
    "open": Verb("inferq.cli.page:open_", "Open the server's page in the browser.", _KEEP),
    "openapi": Verb("inferq.cli.page:openapi", "Print the API of the server as OpenAPI 3.1.", _KEEP),
    "health": Verb("inferq.cli.serve:health", "Ask whether the server is ready.", _KEEP),
    "doctor": Verb("inferq.cli.doctor:doctor", "Check environment, store, backends and models.", _KEEP),
    "bench": Verb("inferq.cli.bench:bench", "Measure submits, whole lives of tasks and the disk, on this machine or at a server.", _KEEP),
    "keys": Verb("inferq.cli.keys:keys", "Keys of a server, and limits of tenants.", _KEEP),
    "webhooks": Verb("inferq.cli.webhooks:webhooks", "Who is told over HTTP of what happens.", _KEEP),
    "audit": Verb("inferq.cli.keys:audit", "List state-changing calls of servers, newest first.", _KEEP),
    "db": Verb("inferq.cli.db:db", "Back up, carry over, check and measure the store.", _KEEP),
    "completion": Verb("inferq.cli.about:completion", "Print the completion script of a shell.", _KEEP),
    "version": Verb("inferq.cli.about:version", "Print the version.", _KEEP),
}

root = LazyGroup(
    "inferq",
    verbs=VERBS,
    aliases={"ls": "list", "worker": "work"},
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, _, value: _print_version(ctx) if value else None,
            help="Print the version.",
        ),
    ],
    no_args_is_help=True,
    help="The durable queue in front of your LLMs.",
    epilog="Exit codes are the same for all commands; docs/cli.md has the table.",
    examples="""
        inferq run smollm2 --executor llamacpp "Why is the sky blue?"
        inferq submit chat --model llama3.2 --priority high "Summarise this" - < notes.txt
        inferq work
        inferq list --status failed --since 2h
    """,
)


def _print_version(ctx: click.Context) -> None:
    from inferq.cli.about import version_text

    click.echo(version_text())
    ctx.exit()


_BROKEN_OFF: Final = ("connection_lost", "request_timeout", "store_full")
"""Codes of errors that come in the middle of what a command does, which may have been done in part."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = [*(sys.argv[1:] if args is None else args)]
    app = App()
    app.debug = env_flag("INFERQ_DEBUG")
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115 - until the end
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - until the end
    try:
        code = _run(given, app)
        with naming_stdout():
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough.
        _discard()
        return int(Exit.OK)
    except OSError as error:
        if error.filename != "standard output":
            raise
        _discard()
        return _complain(_line(error), Exit.FAILED, app)
    return code


def _discard() -> None:
    """What is still buffered for stdout goes nowhere: the interpreter's own flush at exit must not complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str], app: App) -> int:
    from inferq.errors import InferqError

    try:
        if _COMPLETION in os.environ:
            root.main(args, prog_name="inferq", complete_var=_COMPLETION, obj=app)
        # Not through `root.main`: it would end a closed pipe with 1, as if something had failed.
        with root.make_context("inferq", args, obj=app) as ctx:
            root.invoke(ctx)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (click.Abort, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)
    except click.ClickException as error:
        return _usage(error, app)
    except BrokenPipeError:
        raise
    except (InferqError, OSError) as error:
        if app.debug:
            raise
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise BrokenPipeError from error
        if isinstance(error, OSError) and error.filename == "standard output":
            raise
        code = _complain(_line(error), exit_of(error), app)
        if app.resume and isinstance(error, InferqError) and error.code in _BROKEN_OFF:
            say(app.resume)
        return code
    except Exception as error:  # a mistake of ours: still one line, and the way to see more
        if app.debug:
            raise
        kind = type(error).__name__
        return _complain(f"unexpected {kind}: {error}; run again with --debug for the traceback", Exit.FAILED, app)
    return int(Exit.OK)


def _usage(error: click.ClickException, app: App) -> int:
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return int(Exit.USAGE)
    hint = f" (see `{ctx.command_path} --help`)" if ctx is not None and "--help" not in error.format_message() else ""
    if isinstance(error, click.FileError):
        return _complain(error.format_message(), Exit.NOT_FOUND, app)
    return _complain(error.format_message().rstrip(".") + hint, Exit.USAGE, app)


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _complain(text: str, code: Exit, app: App) -> int:
    # Several mistakes of a configuration are several lines; anything else is one.
    for line in text.splitlines() if code is Exit.USAGE else [text]:
        say("inferq: " + " ".join(line.split()), color="red", choice=app.color)
    return int(code)


__all__ = ["main", "root"]
