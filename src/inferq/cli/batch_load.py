"""`inferq submit batch`: a file of tasks, checked whole, watched with one bar, its results as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.bar import Bar
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.option import Option
from inferq.cli.output import json_text, output_options, say, warn
from inferq.cli.params import DURATION, INSTANT, PAIR, PRIORITY
from inferq.cli.stream import result_record

if TYPE_CHECKING:
    from inferq.batch import Batch, BatchItem, LineError
    from inferq.door import AsyncDoor
    from inferq.door.batches import AsyncBatch

_EXITS = (
    Exit.FAILED, Exit.PARTIAL, Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.REJECTED, Exit.INTERRUPTED,
)  # fmt: skip
FIELDS = ("batch_id", "batch_size", "status", "tasks", "duration_ms")
_TABLES = (".csv", ".tsv", ".xlsx")
_PATIENCE = 1.5
"""Seconds without any task running before the reason is told."""


def _task(*names: str, **attrs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, cls=Option, section="Task options", **attrs)


def _wait(*names: str, **attrs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, cls=Option, section="Waiting options", **attrs)


@click.command(
    "batch",
    cls=Command,
    examples="""
        inferq submit batch --file tasks.json --sync
        inferq submit batch --file questions.jsonl --model llama3.2 --prompt "{question}" --key id --resume --output-file answers.jsonl
        cat requests.jsonl | inferq submit batch --file - --name nightly --priority low
    """,
    exits=_EXITS,
    fields=FIELDS,
)
@click.option("--file", "file", required=True, metavar="FILE|-", help="JSON array or JSON lines; see docs/batches.md for the four shapes.")
@click.option("--prompt", metavar="TEMPLATE", help="Make a task of any object: {field} stands for its field, {{ for a brace.")
@click.option("--system", metavar="TEMPLATE", help="The system message that goes with --prompt.")
@click.option(
    "--action", type=click.Choice(["chat", "generate", "embed"]), default="chat", help="What --prompt asks for.", show_default=True
)
@click.option("--key", metavar="FIELD", help="The field (or a template of fields) that tells lines apart when loading again.")
@click.option("--name", metavar="NAME", help="A name of your own for the batch.")
@click.option("--resume", is_flag=True, help="Go on with the batch of this name or file: only lines that it does not have.")
@click.option("--skip-errors", is_flag=True, help="Submit the good lines although others are wrong.")
@click.option(
    "--max-errors", type=click.IntRange(min=0), default=100, metavar="N", help="Give up after so many wrong lines.", show_default=True
)
@_wait("--sync", "--wait", "sync", is_flag=True, help="Wait until all have ended, with one progress bar on stderr.")
@_wait(
    "--output-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write results as JSON lines, in input order, as they come; implies --sync.",
)
@_wait("--fail-fast", is_flag=True, help="Cancel the rest when a task fails; implies --sync.")
@_wait("--wait-timeout", type=DURATION, help="Wait no longer than this; the batch goes on.")
@_task("--model", default="", help="The model of lines that name none; may be a template with --prompt.")
@_task(
    "--priority",
    type=PRIORITY,
    metavar="LEVEL",
    help="Of lines that say none: low (1), normal (5), high (10), critical (15) or any integer.",
)
@_task("--executor", default="", metavar="NAME", help="What speaks to the backend, for lines that do not say.")
@_task("--backend", metavar="NAME", help="Only this configured backend.")
@_task("--remote/--no-remote", default=None, help="On a remote backend where one is open; never on a remote one.")
@_task("--option", "options", type=PAIR, multiple=True, metavar="K=V", help="A model option for lines that set none.")
@_task("--max-tokens", type=click.IntRange(min=1), metavar="N", help="At most so many tokens of answer, for lines that set no options.")
@_task("--tag", "tags", multiple=True, metavar="TAG", help="A tag for lines that have none.")
@_task("--meta", "metadata", type=PAIR, multiple=True, metavar="K=V", help="Metadata of the batch; V is JSON or text.")
@_task("--at", type=INSTANT, metavar="TIME", help="Not before this time, such as 2027-01-31T10:00:00Z, unless a line says its own.")
@_task("--delay", type=DURATION, metavar="DURATION", help="Not before this much time has passed, unless a line says its own time.")
@_task("--timeout", type=DURATION, metavar="DURATION", help="Limit of one attempt.")
@_task("--retries", type=click.IntRange(min=0), metavar="N", help="Attempts after the first; 0 means none.")
@output_options(formats=("text", "json", "jsonl", "id"), default="text", piped_default="json")
@click.pass_obj
def batch(app: App, /, **given: Any) -> None:
    """Submit a file of tasks.

    The whole file is checked first: when a line is wrong, nothing is submitted and each wrong line is named (2). JSON on
    stdout is one value; progress and errors go to stderr. Ctrl-C leaves the batch running and says how to go on.
    """
    app.run(_submit(app, given.pop("file"), given))


async def _submit(app: App, file: str, given: dict[str, Any]) -> None:
    from inferq.errors import BatchInvalid

    sync = given["sync"] or given["output_file"] is not None or given["fail_fast"]
    app.resume = f"nothing was submitted, or only a part of it; go on with the same command and --resume ({_again(file, given)})"
    begun = time.monotonic()
    async with app.queue() as queue:
        try:
            loaded = await _load(queue, file, given)
        except BatchInvalid as error:
            _tell(error.errors, error.count)
            if Path(file).suffix.lower() in _TABLES:
                error.args = (f"{error}. It looks like a table: docs/batches.md has the line that makes JSON lines of it",)
            raise
        if loaded.loaded.wrong:
            _tell(loaded.loaded.errors, loaded.loaded.wrong)
            warn(f"{loaded.loaded.wrong} wrong lines were left out")
        if loaded.loaded.skipped:
            say(f"{loaded.loaded.skipped} lines were there already")
        wrong = Exit.PARTIAL if loaded.loaded.wrong else Exit.OK
        if not sync:
            await _announce(app, queue, loaded.batch)
            app.end(wrong)
            return
        app.resume = f"the batch goes on; watch it with: inferq batch watch {loaded.id}"
        ended = await follow(
            app, queue, loaded, output=given["output_file"], fail_fast=given["fail_fast"], timeout=given["wait_timeout"], begun=begun
        )
        end = exit_of(ended)
        app.end(wrong if end is Exit.OK else end)


def _again(file: str, given: dict[str, Any]) -> str:
    named = f"--name {given['name']}" if given["name"] else "" if file != "-" else "give it a --name"
    return " ".join(part for part in (f"--file {file}", named) if part)


async def _load(queue: AsyncDoor, file: str, given: dict[str, Any]) -> AsyncBatch:
    from inferq.cli.output import stdin_is_terminal

    if file == "-" and stdin_is_terminal():
        say("reading the batch from the terminal; end it with Ctrl-D")
    if given["at"] is not None and given["delay"] is not None:
        raise click.UsageError("--at and --delay say the same thing: give one")
    options = dict(given["options"]) | ({"max_tokens": given["max_tokens"]} if given["max_tokens"] is not None else {})
    fields: dict[str, Any] = {
        "backend": given["backend"], "remote": given["remote"], "options": options, "tags": list(given["tags"]),
        "timeout": given["timeout"], "max_retries": given["retries"],
    }  # fmt: skip
    source: Path | IO[bytes] = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer) if file == "-" else Path(file)
    return await queue.batches.from_jsonl(
        source,
        name=given["name"],
        model=given["model"],
        prompt=given["prompt"],
        system=given["system"],
        action=given["action"],
        key=given["key"],
        executor=given["executor"],
        priority=given["priority"],
        at=given["at"] if given["delay"] is None else datetime.now(UTC) + timedelta(seconds=given["delay"]),
        fields={name: value for name, value in fields.items() if value not in (None, [], {})},
        resume=given["resume"],
        skip_errors=given["skip_errors"],
        max_errors=given["max_errors"],
        metadata=dict(given["metadata"]),
    )


def _tell(errors: list[LineError], count: int) -> None:
    for error in errors:
        say(str(error), color="red")
    if count > len(errors):
        say(f"... and {count - len(errors)} more", color="red")


def exit_of(batch: Batch) -> Exit:
    """0 when all completed, 1 when none did, 3 otherwise."""
    if batch.completed == batch.total:
        return Exit.OK
    return Exit.PARTIAL if batch.completed else Exit.FAILED


# ── what is printed ─────────────────────────────────────────────────────────────────────────────────────────────────


async def _announce(app: App, queue: AsyncDoor, made: Batch) -> None:
    if app.out.format == "id":
        app.out.write(made.id)
    elif app.out.format == "text":
        app.out.write(made.id)
        say(f"{made.total:,} tasks submitted; watch them with: inferq batch watch {made.id}")
    elif app.out.format == "jsonl":
        async for item in _lines(queue, made.id):
            app.out.write(json_text(_entry(item, status="submitted")))
    else:
        await _whole(app, queue, made, {"status": "submitted"}, lambda item: _entry(item, status="submitted"))


async def _whole(app: App, queue: AsyncDoor, made: Batch, head: dict[str, Any], entry: Callable[[BatchItem], dict[str, Any]]) -> None:
    """One JSON object, its tasks written as they are read: a batch may be longer than memory."""
    fields = {"batch_id": made.id, "batch_size": made.total, **head}
    wanted = app.out.fields or FIELDS
    shown = {name: value for name, value in fields.items() if name in wanted}
    if "tasks" not in wanted:
        app.out.write(json_text(shown))
        return
    app.out.write(json_text(shown)[:-1] + (', "tasks": [' if shown else '"tasks": ['), end="")
    first = True
    async for item in _lines(queue, made.id):
        app.out.write(("" if first else ", ") + json_text(entry(item)), end="")
        first = False
    app.out.write("]}")


async def _lines(queue: AsyncDoor, batch_id: str) -> AsyncIterator[BatchItem]:
    """Every line of a batch as it stands, in input order."""
    after = 0
    while page := await queue.batches.items(batch_id, after=after, limit=200):
        for item in page:
            after = item.line
            yield item


def _entry(item: BatchItem, *, status: str) -> dict[str, Any]:
    """The forerunners' shape of a submitted task."""
    return {"task_id": item.task_id, "type": item.action, "model": item.model, "status": status}


def outcome(item: BatchItem) -> dict[str, Any]:
    """The forerunners' shape of an ended task, with its line and key."""
    made = _entry(item, status=str(item.state) if item.state is not None else "pruned") | {"line": item.line}
    if item.key is not None:
        made["key"] = item.key
    if item.result is not None:
        made["result"] = result_record(item.result)
    if item.error or item.code:
        made |= {"error": item.error, "code": item.code}
    return made


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def follow(
    app: App,
    queue: AsyncDoor,
    handle: AsyncBatch,
    *,
    output: str | None = None,
    fail_fast: bool = False,
    timeout: float | None = None,
    begun: float | None = None,
) -> Batch:
    """Wait for a batch with one bar, write its results as they come, and print what became of it."""
    import asyncio

    begun = time.monotonic() if begun is None else begun
    streaming = app.out.format == "jsonl"
    with _written(output) as file, Bar(app) as bar:
        watcher = asyncio.create_task(_watch(app, queue, handle, bar, fail_fast=fail_fast))
        try:
            async with asyncio.timeout(timeout):
                if file is not None or streaming:
                    async for item in handle.results():
                        if file is not None:
                            file.write(json_text(outcome(item)).encode() + b"\n")
                            file.flush()
                        if streaming:
                            app.out.write(json_text(outcome(item)))
                ended = await watcher
        except TimeoutError:
            say(f"timed out after {timeout:g} s; the batch goes on. Watch it with: inferq batch watch {handle.id}")
            raise click.exceptions.Exit(int(Exit.TIMEOUT)) from None
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    seconds = time.monotonic() - begun
    if app.out.format == "id":
        app.out.write(ended.id)
    elif app.out.format == "text":
        print_totals(app, ended, seconds)
    elif app.out.format == "json":
        await _whole(app, queue, ended, {"duration_ms": round(seconds * 1000)}, outcome)
    return ended


def _written(output: str | None) -> AbstractContextManager[IO[bytes] | None]:
    return nullcontext() if output is None else Path(output).open("wb")


async def _watch(app: App, queue: AsyncDoor, handle: AsyncBatch, bar: Bar, *, fail_fast: bool) -> Batch:
    begun, told = time.monotonic(), not app.progress
    async for step in handle.progress(every=bar.every):
        bar.show(step)
        if fail_fast and step.failed and step.batch.reason is None and not step.batch.ended:
            say("a task failed: the rest is cancelled (--fail-fast)")
            await handle.cancel("another task of its batch failed")
        if not told and not step.done and not step.batch.running and time.monotonic() - begun > _PATIENCE:
            told = True
            if items := await queue.batches.items(handle.id, limit=1, results=False):
                bar.say(f"waiting: {await queue.why(items[0].task_id)}")
        if step.batch.ended:
            return step.batch
    return await handle.refresh()


def print_totals(app: App, ended: Batch, seconds: float) -> None:
    """The forerunners' totals, for people."""
    rate = 100 * ended.completed / ended.total if ended.total else 100.0
    app.out.pairs([
        ("batch", ended.id),
        ("total", f"{ended.total}"),
        ("completed", f"{ended.completed}"),
        ("failed", f"{ended.failed}"),
        ("cancelled", f"{ended.cancelled}"),
        ("success rate", f"{rate:.1f} %"),
        ("duration", f"{seconds:.1f} s"),
        ("tokens", f"{ended.input_tokens + ended.output_tokens}"),
    ])  # fmt: skip
