"""What people write on the command line, read into values: priorities, durations, instants, pairs, places, lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

T = TypeVar("T")

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Base = click.ParamType[Any]  # generic for the type checker only: older click cannot subscript it
else:
    _Base = click.ParamType


class Parsed(_Base, Generic[T]):
    """A parameter type from a function that raises ValueError with what was expected and what came."""

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T | Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from inferq.cli.complete import complete

        return complete(ctx, param, incomplete)


def priority(text: str) -> int:
    """`low`, `normal`, `high`, `critical` or any integer."""
    from inferq.task import priority_number

    return priority_number(text)


def duration(text: str) -> float:
    """Seconds from `90`, `10m`, `1h30m`, `250ms`."""
    from inferq.clock import seconds

    return seconds(text)


def instant(text: str) -> datetime:
    """An RFC 3339 time with its zone, such as `2027-01-31T10:00:00Z`."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None or "T" not in text.upper().replace(" ", "T"):
        raise ValueError(f"expected a time with its zone such as 2027-01-31T10:00:00Z or 2027-01-31T10:00:00+01:00, got {text!r}")
    return made


def duration_or_instant(text: str) -> float | datetime:
    """A duration from now, or an instant."""
    try:
        return duration(text)
    except ValueError:
        pass
    try:
        return instant(text)
    except ValueError:
        raise ValueError(f"expected a duration such as 10m or a time such as 2027-01-31T10:00:00Z, got {text!r}") from None


def since(text: str) -> int:
    """Unix milliseconds: of a duration ago (`2h`), of a day (`2027-01-31`, local time) or of an instant."""
    try:
        return int((datetime.now(UTC) - timedelta(seconds=duration(text))).timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        # Without a zone it is the reader's own: `--since` looks back at what this person saw.
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a duration such as 2h, a day such as 2027-01-31 or a time, got {text!r}") from None


def pair(text: str) -> tuple[str, Any]:
    """`k=v`, where v is a JSON value or else a text."""
    import msgspec

    name, separator, written = text.partition("=")
    if not separator or not name.strip():
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    try:
        value = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError):
        value = written
    return name.strip(), value


def text_pair(text: str) -> tuple[str, str]:
    """`k=v`, both texts."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def header(text: str) -> tuple[str, str]:
    """`Name: value`, as curl writes it."""
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise ValueError(f"expected 'Name: value', got {text!r}")
    return name.strip(), value.strip()


def place(text: str) -> tuple[int, int]:
    """`ATTEMPT-INDEX`, a chunk's place in a stream."""
    attempt, separator, index = text.partition("-")
    if separator and attempt.isdecimal() and index.isdecimal():
        return int(attempt), int(index)
    raise ValueError(f"expected ATTEMPT-INDEX such as 1-20, got {text!r}")


def comma_list(text: str) -> tuple[str, ...]:
    """`a,b,c`; blanks around names and empty names do not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def priorities(text: str) -> tuple[int, ...]:
    """A comma list of priorities."""
    return tuple(priority(part) for part in comma_list(text))


def states(text: str) -> tuple[Any, ...]:
    """A comma list of states."""
    from inferq.task import State

    found = []
    for part in comma_list(text):
        try:
            found.append(State(part.lower()))
        except ValueError:
            raise ValueError(f"expected one of {', '.join(State)}, got {part!r}") from None
    return tuple(found)


SORTS = ("-created", "created", "-finished", "finished", "-scheduled", "scheduled")
"""The orders of a listing; spelled out here, so that help needs no import of the filter language (a test compares them)."""

PRIORITY = Parsed("priority", priority)
DURATION = Parsed("duration", duration)
INSTANT = Parsed("time", instant)
UNTIL = Parsed("duration|time", duration_or_instant)
SINCE = Parsed("duration|time", since)
PAIR = Parsed("name=value", pair)
TEXT_PAIR = Parsed("name=value", text_pair)
HEADER = Parsed("name: value", header)
PLACE = Parsed("attempt-index", place)
NAMES = Parsed("a,b,...", comma_list)
PRIORITIES = Parsed("a,b,...", priorities)
STATES = Parsed("a,b,...", states)

ROLES = ("system", "developer", "user", "assistant", "tool")


def message(text: str) -> dict[str, str]:
    """A chat message from `role:content`, split at the first colon only; without a known role all of it is the user's."""
    role, separator, content = text.partition(":")
    if separator and role.strip().lower() in ROLES:
        return {"role": role.strip().lower(), "content": content.removeprefix(" ")}
    return {"role": "user", "content": text}


def joined(lists: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """Comma lists given several times, as one."""
    return tuple(item for part in lists for item in part)


def stdin_text() -> str:
    """All of standard input as UTF-8 text; bytes that are not become U+FFFD."""
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def written_or_piped(words: Sequence[str], *, what: str) -> str | None:
    """The text given as words, each `-` replaced by standard input; without words what is piped; None when that is nothing.

    Standard input is read only when `-` asks for it or nothing else was given: a script's open pipe never blocks a command.
    """
    from inferq.cli.output import say, stdin_is_terminal

    if not words:
        if stdin_is_terminal():
            return None
        # Nothing in the pipe is no text: cron and CI give programs an empty standard input.
        return stdin_text().rstrip("\n") or None
    if "-" in words and stdin_is_terminal():
        say(f"reading the {what} from the terminal; end it with Ctrl-D")
    piped = stdin_text().rstrip("\n") if "-" in words else ""
    if list(words) == ["-"]:
        return piped
    blocks: list[str] = []
    for word in words:
        if word == "-":
            blocks.append(f"\n\n{piped}\n\n")
        else:
            blocks.append(word if not blocks or blocks[-1].endswith("\n") else f" {word}")
    return "".join(blocks).strip("\n")


def json_file(path: str) -> Any:
    """The JSON value in a file, or in standard input for `-`; several lines of JSON objects become a list."""
    import msgspec

    name = "standard input" if path == "-" else path
    data = sys.stdin.buffer.read() if path == "-" else _bytes_of(path)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        problem = str(error)
    try:
        return [msgspec.json.decode(line) for line in data.splitlines() if line.strip()]
    except msgspec.DecodeError:
        raise click.UsageError(f"{name} is neither JSON nor JSON lines: {problem}") from None


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
