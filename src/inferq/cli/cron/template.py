"""The options of `cron add` and `cron update`, and the template that they make or change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from inferq.cli.option import Option
from inferq.cli.params import DURATION, PAIR, PRIORITY, message

TYPES = ("chat", "generate", "embed")
_CATCH_UP = {"none": "skip", "last": "once", "all": "all"}


def _option(section: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    def make(*names: str, **attrs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return click.option(*names, cls=Option, section=section, **attrs)

    return make


_when, _what = _option("Options"), _option("Task options")
_OPTIONS = (
    _when("--schedule", "--cron", "expression", metavar="EXPRESSION", help='Five fields such as "0 9 * * 1-5", or @hourly, @daily, ...'),
    _when("--tz", "--timezone", "tz", metavar="ZONE", help="Time zone such as Europe/Berlin (default: UTC)."),
    _when("--enabled/--disabled", "enabled", default=None, help="Whether it fires; --enabled=false works too."),
    _when("--misfire", type=click.Choice(["skip", "once", "all"]), help="Fires that nobody made in time: none, the newest (default), all."),
    _when("--catch-up", "catch_up", type=click.Choice([*_CATCH_UP]), help="The same in other words: none, last, all."),
    _when("--window", type=DURATION, metavar="DURATION", help="How old a missed fire may be (default: 1h)."),
    _when("--overlap", type=click.Choice(["allow", "skip", "queue", "cancel"]), help="A fire while the last task runs (default: skip)."),
    _when("--jitter", type=DURATION, metavar="DURATION", help="Fire a fixed share of this later, so that not all do at once."),
    _when("--start-within", type=DURATION, metavar="DURATION", help="Fail a task that has not started so long after it was made."),
    _when("--end-within", type=DURATION, metavar="DURATION", help="Fail a task that has not ended so long after it was made."),
    _when("--metadata", metavar="JSON", help="An object kept with the schedule."),
    _when("--meta", type=PAIR, multiple=True, metavar="K=V", help="One entry of it, repeatable; V is JSON or text."),
    _what("--type", "kind", type=click.Choice(TYPES), help="What the task asks for (default: chat)."),
    _what("--model", help="The model."),
    _what("--prompt", help="The prompt; {scheduled_at:%Y-%m-%d} stands for the time it fires at."),
    _what("--messages", "--message", "messages", multiple=True, metavar="ROLE:TEXT", help="A message of a chat, repeatable."),
    _what("--system", help="The system message."),
    _what("--input", "inputs", multiple=True, metavar="TEXT", help="A text to embed, repeatable."),
    _what("--stream/--no-stream", default=None, help="Whether the pieces of the answer are kept."),
    _what("--priority", type=PRIORITY, metavar="LEVEL", help="low (1), normal (5), high (10), critical (15) or any integer."),
    _what("--executor", metavar="NAME", help="What speaks to the backend (default: ollama)."),
    _what("--backend", metavar="NAME", help="Only this configured backend."),
    _what("--option", "options", type=PAIR, multiple=True, metavar="K=V", help="A model option such as temperature=0.2."),
    _what("--field", "fields", type=PAIR, multiple=True, metavar="K=V", help="A further field of the request such as format=json."),
    _what("--tag", "tags", multiple=True, metavar="TAG", help="A tag to find its tasks by."),
    _what("--timeout", type=DURATION, metavar="DURATION", help="Limit of one attempt."),
    _what("--retries", type=click.IntRange(min=0), metavar="N", help="Attempts after the first; 0 means none."),
    _what("--file", metavar="FILE|-", help="JSON of the task, for any executor and action; the other options add to it."),
)
_NAMES = (
    "expression", "tz", "enabled", "misfire", "catch_up", "window", "overlap", "jitter", "start_within", "end_within", "metadata", "meta",
    "kind", "model", "prompt", "messages", "system", "inputs", "stream", "priority", "executor", "backend", "options", "fields", "tags",
    "timeout", "retries", "file",
)  # fmt: skip


def schedule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; they reach the command as one argument, `said`."""

    @functools.wraps(command)
    def gathered(*args: Any, **values: Any) -> Any:
        return command(*args, said=Said({name: values.pop(name) for name in _NAMES}), **values)

    made: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


class Said:
    """What was said about a schedule."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def times(self) -> dict[str, Any]:
        """Fields of the schedule itself, only those that were said."""
        given = self._values
        names = ("expression", "tz", "enabled", "misfire", "window", "overlap", "jitter", "start_within", "end_within")
        made = {name: given[name] for name in names if given[name] is not None}
        if given["catch_up"] is not None:
            if "misfire" in made:
                raise click.UsageError("--misfire and --catch-up say the same thing: give one")
            made["misfire"] = _CATCH_UP[given["catch_up"]]
        if given["metadata"] is not None or given["meta"]:
            made["metadata"] = {**_object(given["metadata"], "--metadata"), **dict(given["meta"])}
        return made

    @property
    def changes_task(self) -> bool:
        """Whether anything was said about the task."""
        names = _NAMES[_NAMES.index("kind") :]
        return any(self._values[name] is not None and self._values[name] != () for name in names)

    def task(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The template: the one of the file, or the one before, or a new one, with what was said set in it."""
        given = self._values
        task = self._from_file() or dict(before or {})
        if not task or given["kind"] is not None:
            task["action"] = given["kind"] or "chat"
            task.pop("type", None)
        for name in ("executor", "model", "backend", "priority", "stream", "timeout"):
            if given[name] is not None:
                task[name] = given[name]
        task.setdefault("executor", "ollama")
        if given["retries"] is not None:
            task["max_retries"] = given["retries"]
        if given["tags"]:
            task["tags"] = list(given["tags"])
        if given["options"]:
            task["options"] = {**task.get("options", {}), **dict(given["options"])}
        task["payload"] = self._payload(task.get("action", task.get("type", "")), dict(task.get("payload", {})))
        return task

    def _from_file(self) -> dict[str, Any]:
        from inferq.cli.params import json_file

        path = self._values["file"]
        if path is None:
            return {}
        value = json_file(path)
        if not isinstance(value, dict) or not value:
            raise click.UsageError(f"{path}: expected a JSON object with executor, action and payload, got {type(value).__name__}")
        return value

    def _payload(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        given = self._values
        if action == "chat":
            payload |= self._conversation(payload)
        else:
            if given["messages"]:
                raise click.UsageError(f"--messages belongs to a chat, and this is {action}")
            for name in ("prompt", "system"):
                if given[name] is not None:
                    payload[name] = given[name]
        if given["inputs"]:
            if action != "embed":
                raise click.UsageError(f"--input belongs to embed, and this is {action}; give --prompt or --type embed")
            payload["input"] = given["inputs"][0] if len(given["inputs"]) == 1 else list(given["inputs"])
        return payload | dict(given["fields"])

    def _conversation(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The messages of a chat: what was said replaces what there was, but a system message stays until another is given."""
        given, before = self._values, payload.get("messages", [])
        said = [message(text) for text in given["messages"]]
        if given["prompt"] is not None:
            said.append({"role": "user", "content": given["prompt"]})
        if not said and given["system"] is None:
            return {}
        first = [one for one in before if isinstance(one, dict) and one.get("role") == "system"]
        if given["system"] is not None:
            first = [{"role": "system", "content": given["system"]}]
        elif any(one["role"] == "system" for one in said):
            first = []
        rest = said or [one for one in before if not isinstance(one, dict) or one.get("role") != "system"]
        return {"messages": [*first, *rest]}


def _object(text: str | None, option: str) -> dict[str, Any]:
    import msgspec

    if text is None:
        return {}
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{option}: expected a JSON object, got: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{option}: expected a JSON object, got {text}")
    return value
