"""`inferq submit`: chat, generate, embed, script, http and raw tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit, exit_of, together
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.option import Option
from inferq.cli.options import TaskOptions, task_options
from inferq.cli.output import FORMATS, Column, field, output_options, say, stdout_is_terminal
from inferq.cli.params import DURATION, HEADER, TEXT_PAIR, json_file, message, written_or_piped
from inferq.cli.stream import collect, follow, print_result

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.handle import AsyncHandle
    from inferq.task import Submission

submit = LazyGroup(
    "submit",
    verbs={
        "chat": Verb("inferq.cli.submit:chat", "Submit a chat."),
        "generate": Verb("inferq.cli.submit:generate", "Submit a completion of a prompt."),
        "embed": Verb("inferq.cli.submit:embed", "Submit texts to embed."),
        "batch": Verb("inferq.cli.batch_load:batch", "Submit a file of tasks."),
        "script": Verb("inferq.cli.submit:script", "Submit a program to run."),
        "http": Verb("inferq.cli.submit:http", "Submit an HTTP request to make."),
        "raw": Verb("inferq.cli.submit:raw", "Submit tasks as JSON, for any executor and action."),
    },
    help="Put a task into the queue.\n\nIt is on disk when the command returns, and runs when a worker does: see `inferq work`.",
    examples="""
        inferq submit chat --model llama3.2 "Why is the sky blue?"
        inferq submit script -- python report.py --month 11
    """,
    no_args_is_help=True,
)

_SUBMITTED = ("task_id", "status", "type", "model")
_COLUMNS = (
    Column("ID", field("task_id")),
    Column("TYPE", field("type")),
    Column("MODEL", field("model")),
    Column("STATUS", field("status")),
)
_EXITS = (Exit.FAILED, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.REJECTED, Exit.INTERRUPTED)


def _verb(name: str, *, examples: str, tasks: bool = True) -> Callable[[Callable[..., None]], click.Command]:
    """A submitting command: its own options, then how to wait, the task options and the output options."""

    def make(function: Callable[..., None]) -> click.Command:
        section: dict[str, Any] = {"cls": Option, "section": "Waiting options"}
        for decorate in (
            output_options(formats=("text", *FORMATS), default="text", piped_default="json"),
            task_options if tasks else _as_it_is,
            click.option("--wait-timeout", type=DURATION, help="Wait no longer than this; the task goes on.", **section),
            click.option("--wait", "--sync", "wait", is_flag=True, help="Wait for the result and print it.", **section),
            click.option(
                "--stream/--no-stream",
                default=None,
                help="Print the answer as it comes; --no-stream does not even keep the pieces.",
                **section,
            ),
        ):
            function = decorate(function)
        return click.command(name, cls=Command, examples=examples, exits=_EXITS, fields=_SUBMITTED)(click.pass_obj(function))

    return make


def _as_it_is(function: Callable[..., None]) -> Callable[..., None]:
    return function


class _Waiting:
    """How the submitter wants to go on."""

    def __init__(self, *, stream: bool | None, wait: bool, wait_timeout: float | None) -> None:
        self.stream = bool(stream)
        self.wait = wait or wait_timeout is not None
        self.timeout = wait_timeout


@_verb(
    "chat",
    examples="""
        inferq submit chat --model llama3.2 "Hello, how are you?"
        inferq submit chat --model llama3.2 --messages "system:Be brief" --messages "user:Hi, and bye"
        git diff | inferq submit chat --model llama3.2 "Explain this change:" - --priority high
        inferq result $(inferq submit chat --model llama3.2 "hi" -q) --wait
    """,
)
@click.argument("prompt", nargs=-1, metavar="[PROMPT|-]...")
@click.option("--model", required=True, help="The model.")
@click.option(
    "--messages", "--message", "messages", multiple=True, metavar="ROLE:TEXT", help="A message, repeatable; split at the first colon only."
)
@click.option("--system", help="The system message.")
def chat(
    app: App, prompt: tuple[str, ...], model: str, messages: tuple[str, ...], system: str | None, task: TaskOptions, **how: Any
) -> None:
    """Submit a chat.

    PROMPT is the last message of the user; `-` stands for standard input, which is also read when nothing else is given.
    A message without a role (system, developer, user, assistant, tool) is the user's; commas and further colons are text.
    """
    payload = {"messages": conversation(prompt, messages, system)}
    submission = task.submission(task.executor or "ollama", "chat", model=model, payload=payload, stream=how["stream"])
    app.run(_submit(app, [submission], _Waiting(**how)))


def conversation(prompt: Sequence[str], messages: Sequence[str], system: str | None) -> list[dict[str, str]]:
    """The messages of a chat: system, those given, and the prompt last."""
    made = [message(text) for text in messages]
    text = written_or_piped(prompt, what="prompt") if prompt or not made else None
    if text:
        made.append({"role": "user", "content": text})
    if not made:
        raise click.UsageError("there is no prompt: give it as an argument, with --messages, or pipe it in")
    return [{"role": "system", "content": system}, *made] if system is not None else made


@_verb(
    "generate",
    examples="""
        inferq submit generate --model llama3.2 --prompt "Once upon a time, "
        inferq submit generate --model qwen3 "def fib(n):" --option temperature=0 --max-tokens 200
        inferq submit generate --model llama3.2 --wait < prompt.txt
    """,
)
@click.argument("words", nargs=-1, metavar="[PROMPT|-]...")
@click.option("--model", required=True, help="The model.")
@click.option("--prompt", help="The prompt, instead of the argument.")
@click.option("--system", help="The system message.")
@click.option("--template", help="The prompt template, for executors that take one.")
@click.option("--raw", is_flag=True, help="No template at all, for executors that know this.")
def generate(
    app: App,
    words: tuple[str, ...],
    model: str,
    prompt: str | None,
    system: str | None,
    template: str | None,
    raw: bool,
    task: TaskOptions,
    **how: Any,
) -> None:
    """Submit a completion of a prompt.

    `-` stands for standard input, which is also read when no prompt is given.
    """
    if prompt is not None and words:
        raise click.UsageError("the prompt is given twice, as --prompt and as an argument: give it once")
    text = written_or_piped([prompt] if prompt is not None else words, what="prompt")
    if text is None:
        raise click.UsageError("there is no prompt: give it as an argument, with --prompt, or pipe it in")
    said = {"system": system, "template": template, "raw": raw or None}
    payload = {"prompt": text, **{name: value for name, value in said.items() if value is not None}}
    submission = task.submission(task.executor or "ollama", "generate", model=model, payload=payload, stream=how["stream"])
    app.run(_submit(app, [submission], _Waiting(**how)))


@_verb(
    "embed",
    examples="""
        inferq submit embed --model nomic-embed-text "one text, with commas"
        inferq submit embed --model nomic-embed-text --input "first" --input "second" --wait
        inferq submit embed --model nomic-embed-text < text.txt
    """,
)
@click.argument("texts", nargs=-1, metavar="[TEXT|-]...")
@click.option("--model", required=True, help="The model.")
@click.option("--input", "inputs", multiple=True, metavar="TEXT", help="A text, repeatable.")
@click.option("--truncate/--no-truncate", default=None, help="Cut what is too long instead of failing.")
def embed(
    app: App, texts: tuple[str, ...], model: str, inputs: tuple[str, ...], truncate: bool | None, task: TaskOptions, **how: Any
) -> None:
    """Submit texts to embed.

    Each TEXT is one input; `-` stands for standard input, which is also read when nothing else is given.
    """
    given = [*inputs, *texts]
    found = [written_or_piped([text], what="text") or "" for text in given] if given else [written_or_piped([], what="text")]
    if found == [None]:
        raise click.UsageError("there is nothing to embed: give a text as an argument, with --input, or pipe it in")
    payload: dict[str, Any] = {"input": found[0] if len(found) == 1 else found}
    if truncate is not None:
        payload["truncate"] = truncate
    submission = task.submission(task.executor or "ollama", "embed", model=model, payload=payload, stream=how["stream"])
    app.run(_submit(app, [submission], _Waiting(**how)))


@_verb(
    "script",
    examples="""
        inferq submit script -- python report.py --month 11
        inferq submit script --cwd jobs --env LEVEL=3 --wait -- sh nightly.sh
        inferq submit script --timeout 1m -- ls -l
    """,
)
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND [ARG]...")
@click.option("--cwd", metavar="DIR", help="Working directory, inside the one the backend allows.")
@click.option("--env", type=TEXT_PAIR, multiple=True, metavar="K=V", help="A variable of its environment, repeatable.")
@click.option("--stdin", "stdin", metavar="TEXT|-", help="Its standard input; - passes this command's on.")
def script(
    app: App, argv: tuple[str, ...], cwd: str | None, env: tuple[tuple[str, str], ...], stdin: str | None, task: TaskOptions, **how: Any
) -> None:
    """Submit a program to run.

    The words after `--` are the program and its arguments; no shell reads them. Its output is the result, and failing is
    what its exit code says.
    """
    payload: dict[str, Any] = {"argv": list(argv)}
    if cwd is not None:
        payload["cwd"] = cwd
    if env:
        payload["env"] = dict(env)
    if stdin is not None:
        payload["stdin"] = written_or_piped([stdin], what="script's input") or ""
    submission = task.submission(task.executor or "script", "execute", payload=payload, stream=how["stream"])
    app.run(_submit(app, [submission], _Waiting(**how)))


@_verb(
    "http",
    examples="""
        inferq submit http GET https://example.com/api/items --wait
        inferq submit http POST https://example.com/api --header "Accept: application/json" --data '{"a": 1}'
        inferq submit http PUT https://example.com/file --data - < body.json
    """,
)
@click.argument("method", metavar="METHOD")
@click.argument("address", metavar="URL")
@click.option("--header", "-H", "headers", type=HEADER, multiple=True, metavar="'NAME: VALUE'", help="A header, repeatable.")
@click.option("--data", metavar="TEXT|@FILE|-", help="The body: text, a file's content, or standard input.")
def http(
    app: App, method: str, address: str, headers: tuple[tuple[str, str], ...], data: str | None, task: TaskOptions, **how: Any
) -> None:
    """Submit an HTTP request to make.

    Private addresses are refused unless the backend's settings allow them.
    """
    payload: dict[str, Any] = {"method": method.upper(), "url": address}
    if headers:
        payload["headers"] = dict(headers)
    if data is not None:
        payload["body"] = Path(data[1:]).read_text() if data.startswith("@") else written_or_piped([data], what="body")
    submission = task.submission(task.executor or "http", "request", payload=payload, stream=how["stream"])
    app.run(_submit(app, [submission], _Waiting(**how)))


@_verb(
    "raw",
    examples="""
        inferq submit raw --file task.json
        inferq submit raw --file tasks.jsonl -q > ids
        echo '{"executor": "echo", "action": "echo", "payload": {"a": 1}}' | inferq submit raw --file - --wait
    """,
    tasks=False,
)
@click.option("--file", required=True, metavar="FILE|-", help="JSON of one task, of a list, or JSON lines.")
def raw(app: App, file: str, **how: Any) -> None:
    """Submit tasks as JSON, for any executor and action.

    A task is an object with executor, action and, as needed, model, payload, options, priority (a name or a number), key,
    tags, metadata, ... Several are kept all or none.
    """
    waiting = _Waiting(**how)
    value = json_file(file)
    submissions = [_read(item, number) for number, item in enumerate(value if isinstance(value, list) else [value], 1)]
    if not submissions:
        raise click.UsageError(f"{file} holds no task")
    if waiting.stream and len(submissions) > 1:
        raise click.UsageError("--stream follows one task, and the file holds several; use --wait")
    app.run(_submit(app, submissions, waiting))


def _read(item: Any, number: int) -> Submission:
    from inferq.errors import InvalidTask
    from inferq.intake import submission_from

    if not isinstance(item, dict):
        raise click.UsageError(f"task {number}: expected a JSON object, got {type(item).__name__}")
    try:
        return submission_from(item)
    except InvalidTask as error:
        raise click.UsageError(f"task {number}: {error}") from None


async def _submit(app: App, submissions: list[Submission], waiting: _Waiting) -> None:
    async with app.queue() as queue:
        ids = [handle.id for handle in await submitted(queue, submissions)]
        app.resume = f"no longer waiting; the task goes on. Collect it with: inferq result {ids[0]} --wait"
        if waiting.stream:
            await _stream(app, queue, ids[0])
        elif waiting.wait:
            app.end(together(await _collect(app, queue, ids, waiting.timeout)))
        else:
            await _announce(app, queue, submissions, ids)


async def submitted(queue: AsyncDoor, submissions: list[Submission]) -> list[AsyncHandle]:
    """Keep them all or none. What is wrong with the only one is said of its field, not of its place in a list."""
    from inferq.errors import InvalidTask

    try:
        return await queue.submit_many(submissions)
    except InvalidTask as error:
        raise (error.out_of("submissions[0]") if len(submissions) == 1 else error) from None


async def _stream(app: App, queue: AsyncDoor, task_id: str) -> None:
    if app.out.chosen is None:
        # Somebody who asks for a stream wants to see it come, also in a pipe.
        app.out.choose("text", by="--stream")
    await follow(app, queue, task_id)


async def _collect(app: App, queue: AsyncDoor, ids: list[str], timeout: float | None) -> list[Exit]:
    from inferq.errors import InferqError

    ends: list[Exit] = []
    for task_id in ids:
        try:
            print_result(app, await collect(app, queue, task_id, timeout=timeout))
            ends.append(Exit.OK)
        except InferqError as error:
            if len(ids) == 1:
                raise
            say(f"inferq: {error}", color="red")
            ends.append(exit_of(error))
    return ends


async def _announce(app: App, queue: AsyncDoor, submissions: list[Submission], ids: list[str]) -> None:
    made = [
        {"task_id": task_id, "status": "submitted", "type": submission.action, "model": submission.model}
        for task_id, submission in zip(ids, submissions, strict=True)
    ]
    if app.out.format == "text":
        for task_id in ids:
            app.out.write(task_id)
        if app.progress and stdout_is_terminal():
            say(f"submitted; {await queue.why(ids[0])}")
    elif len(made) == 1:
        app.out.record(made[0], _COLUMNS, key="task_id")
    else:
        app.out.records(made, _COLUMNS, key="task_id")
