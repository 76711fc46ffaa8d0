"""The options that every submitting command shares, and the submission they make."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.option import Option
from inferq.cli.params import DURATION, INSTANT, PAIR, PRIORITY, UNTIL, json_file

if TYPE_CHECKING:
    from inferq.task import Submission

_SECTION = "Task options"


def _option(*names: str, **attrs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, cls=Option, section=_SECTION, **attrs)


_OPTIONS = (
    _option(
        "--priority",
        type=PRIORITY,
        metavar="LEVEL",
        help="low (1), normal (5), high (10), critical (15) or any integer; higher goes first.",
    ),
    _option("--executor", metavar="NAME", help="What speaks to the backend: `inferq executors` lists them."),
    _option("--backend", metavar="NAME", help="Only this configured backend."),
    _option("--remote/--no-remote", default=None, help="On a remote backend where one is open; never on a remote one."),
    _option(
        "--option", "options", type=PAIR, multiple=True, metavar="K=V", help="A model option such as temperature=0.2; V is JSON or text."
    ),
    _option(
        "--field",
        "fields",
        type=PAIR,
        multiple=True,
        metavar="K=V",
        help="A further field of the request such as format=json; V is JSON or text.",
    ),
    _option("--schema", metavar="FILE|-", help="The answer of a chat or completion must be JSON that this JSON Schema allows."),
    _option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="At most so many tokens of answer."),
    _option("--tag", "tags", multiple=True, metavar="TAG", help="A tag to find it by."),
    _option("--meta", "metadata", type=PAIR, multiple=True, metavar="K=V", help="Metadata kept with it; V is JSON or text."),
    _option("--key", metavar="KEY", help="Idempotency key: the same key and request is the same task."),
    _option("--tenant", metavar="NAME", help="On whose account it runs."),
    _option("--at", type=INSTANT, metavar="TIME", help="Not before this time, such as 2027-01-31T10:00:00Z."),
    _option("--delay", type=DURATION, metavar="DURATION", help="Not before this much time has passed, such as 10m."),
    _option("--deadline", type=UNTIL, metavar="WHEN", help="Fail it when it has not ended by then: 1h, or a time."),
    _option("--start-deadline", type=UNTIL, metavar="WHEN", help="Fail it when it has not started by then: 1h, or a time."),
    _option("--timeout", type=DURATION, metavar="DURATION", help="Limit of one attempt."),
    _option("--idle-timeout", type=DURATION, metavar="DURATION", help="Limit of the silence between two chunks."),
    _option("--retries", type=click.IntRange(min=0), metavar="N", help="Attempts after the first; 0 means none."),
    _option("--at-most-once", is_flag=True, help="Fail an attempt that was lost instead of making another."),
)


class TaskOptions:
    """The values of the task options; `submission` adds what the verb itself knows."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    @property
    def executor(self) -> str | None:
        executor: str | None = self.values["executor"]
        return executor

    def submission(self, executor: str, action: str, *, model: str = "", payload: dict[str, Any], stream: bool = False) -> Submission:
        """What to submit. Only what was said is set, so that the queue's own defaults hold for the rest."""
        from inferq.intake import submission_from

        given = self.values
        options = dict(given["options"])
        if given["max_tokens"] is not None:
            options["max_tokens"] = given["max_tokens"]
        said = {
            "priority": given["priority"],
            "backend": given["backend"],
            "remote": given["remote"],
            "key": given["key"],
            "tenant": given["tenant"],
            "timeout": given["timeout"],
            "idle_timeout": given["idle_timeout"],
            "max_retries": given["retries"],
            "scheduled_at": self._scheduled(),
            "deadline": _instant(given["deadline"]),
            "start_deadline": _instant(given["start_deadline"]),
        }
        fixed = {
            "executor": executor,
            "action": action,
            "model": model,
            "payload": {**payload, **self._shape(executor, action), **dict(given["fields"])},
            "options": options,
            "tags": list(given["tags"]),
            "metadata": dict(given["metadata"]),
            "at_most_once": given["at_most_once"],
            "stream": stream,
        }
        return submission_from(fixed | {name: value for name, value in said.items() if value is not None})

    def _shape(self, executor: str, action: str) -> dict[str, Any]:
        """The schema of the answer, in the words of the executor. Raises UsageError, OSError."""
        file = self.values["schema"]
        if file is None:
            return {}
        if action not in ("chat", "generate"):
            raise click.UsageError(f"--schema is for the answers of chats and completions, not for {action}")
        schema = json_file(file)
        if not isinstance(schema, dict):
            raise click.UsageError(f"--schema {file}: expected a JSON Schema, which is an object, got {type(schema).__name__}")
        if executor == "ollama":
            return {"format": schema}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}

    def _scheduled(self) -> int | None:
        at, delay = self.values["at"], self.values["delay"]
        if at is not None and delay is not None:
            raise click.UsageError("--at and --delay say the same thing: give one")
        return _instant(at if at is not None else delay)


def _instant(value: float | datetime | None) -> int | None:
    """Unix milliseconds of an instant, or of a duration from now."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    return int((time.time() + value) * 1000)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the task options; they reach the command as one argument, `task`."""
    names = [
        "priority", "executor", "backend", "remote", "options", "fields", "schema", "max_tokens", "tags", "metadata", "key", "tenant", "at",
        "delay",
        "deadline", "start_deadline", "timeout", "idle_timeout", "retries", "at_most_once",
    ]  # fmt: skip

    @functools.wraps(command)
    def gathered(*args: Any, **values: Any) -> Any:
        return command(*args, task=TaskOptions({name: values.pop(name) for name in names}), **values)

    made: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        made = option(made)
    return made
