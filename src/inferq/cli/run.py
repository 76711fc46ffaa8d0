"""`inferq run`: ask a model through the queue, in this process, and stream the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.options import TaskOptions, task_options
from inferq.cli.output import output_options
from inferq.cli.stream import collect, follow, print_result
from inferq.cli.submit import conversation, submitted

if TYPE_CHECKING:
    from inferq.task import Submission


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": False},
    examples="""
        inferq run llama3.2 "Why is the sky blue?"
        inferq run smollm2 --executor llamacpp Tell me a joke
        git diff | inferq run llama3.2 "Write a commit message:" -
        inferq run llama3.2 --system "Answer in French" < question.txt
    """,
    exits=(Exit.FAILED, Exit.UNREACHABLE, Exit.REJECTED, Exit.INTERRUPTED),
    fields=("position", "kind", "text", "data"),
)
@click.argument("model", metavar="MODEL")
@click.argument("prompt", nargs=-1, metavar="[PROMPT|-]...")
@click.option("--messages", "--message", "messages", multiple=True, metavar="ROLE:TEXT", help="A message before the prompt, repeatable.")
@click.option("--system", help="The system message.")
@click.option("--stream/--no-stream", default=True, help="Print the answer as it comes (default), or at its end.")
@click.option("--thinking", is_flag=True, help="Also show what the model thinks, on stderr.")
@task_options
@output_options(formats=("text", "json", "jsonl"), default="text", ids=False)
@click.pass_obj
def run(
    app: App,
    model: str,
    prompt: tuple[str, ...],
    messages: tuple[str, ...],
    system: str | None,
    stream: bool,
    thinking: bool,
    task: TaskOptions,
) -> None:
    """Ask a model and stream the answer, through the queue.

    The chat waits in the queue like every other task, and this process works on the queue until it has ended: it needs no
    `inferq work` beside it. Only the answer goes to stdout. `-` in PROMPT stands for standard input, which is also read
    when nothing else is given. After Ctrl-C the task is handed back to the queue and goes on when a worker runs.
    """
    payload = {"messages": conversation(prompt, messages, system)}
    submission = task.submission(task.executor or "ollama", "chat", model=model, payload=payload, stream=stream)
    app.run(_run(app, submission, stream=stream, thinking=thinking))


async def _run(app: App, submission: Submission, *, stream: bool, thinking: bool) -> None:
    import asyncio

    async with app.queue(work=True) as queue:
        [handle] = await submitted(queue, [submission])
        left = "stopped; the task waits in the queue. Go on with `inferq work`, read it"
        app.resume = f"{left if app.works else 'no longer reading; the task goes on. Read it'} with: inferq tail {handle.id}"
        try:
            if stream:
                await follow(app, queue, handle.id, thinking=thinking)
            else:
                print_result(app, await collect(app, queue, handle.id))
        except asyncio.CancelledError:
            # Ctrl-C: whoever stops waiting does not want to wait for a grace either.
            await queue.close(grace=0)
            raise
