"""What commands print: data on stdout in six formats, everything else on stderr, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

import click

from inferq.cli.option import Option

Record = Mapping[str, Any]
FORMATS = ("table", "wide", "json", "jsonl", "csv", "id")

# Text of models and users must not move the cursor, retitle the window or forge lines of a table.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DANGEROUS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


_NUMBER = re.compile(r"[+-][\d.,:]+(?:e[+-]?\d+)?|-")


class Column(NamedTuple):
    """A column: its title, its cell from a record, and the same for people (a terminal) where that differs."""

    title: str
    value: Callable[[Record], Any]
    human: Callable[[Record], Any] | None = None
    wide: bool = False


def field(name: str) -> Callable[[Record], Any]:
    """The cell that is a record's field."""
    return lambda record: record.get(name)


def say(text: str, *, color: str | None = None, choice: str | None = None) -> None:
    """A line for people, on stderr. `choice` is --color, for where no command runs any more."""
    shown = safe(text)
    click.echo(click.style(shown, fg=color) if color else shown, err=True, color=_colored(sys.stderr, choice))


def aside(text: str) -> None:
    """What a model thinks and a program complains of, on stderr: as it is into a pipe, made harmless for a terminal."""
    sys.stdout.flush()
    sys.stderr.write(safe(text) if sys.stderr.isatty() else text)
    sys.stderr.flush()


def warn(text: str) -> None:
    """A line about something that is not right, on stderr."""
    say(text, color="yellow")


def stdin_is_terminal() -> bool:
    return sys.stdin.isatty()


def stdout_is_terminal() -> bool:
    return sys.stdout.isatty()


def _colored(stream: TextIO, choice: str | None = None) -> bool:
    ctx = click.get_current_context(silent=True)
    choice = choice or getattr(ctx.obj if ctx is not None else None, "color", "auto")
    if choice != "auto":
        return bool(choice == "always")
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


@contextmanager
def naming_stdout() -> Iterator[None]:
    """What goes wrong inside is said of standard output: a full disk behind a redirection. A closed pipe stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def safe(text: str) -> str:
    """The text with control characters shown instead of sent, line ends and tabs kept."""
    return _DANGEROUS.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    char = match.group()
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}.get(char, f"\\u{ord(char):04x}")


def json_text(value: Any) -> str:
    """Compact JSON for a cell."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def cell(value: Any) -> str:
    """A value as one line of text without control characters."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list | tuple):
        value = json_text(value)
    return _CONTROL.sub(_shown, str(value))


class Output:
    """How one command prints its data; set by -o, --json and -q."""

    def __init__(self) -> None:
        self.chosen: str | None = None
        self.fields: tuple[str, ...] = ()
        self.default = "table"
        self.piped_default: str | None = None

    @property
    def format(self) -> str:
        if self.chosen is not None:
            return self.chosen
        if self.piped_default is not None and not stdout_is_terminal():
            return self.piped_default
        return self.default

    def choose(self, wanted: str, *, by: str) -> None:
        if self.chosen is not None and self.chosen != wanted:
            raise click.UsageError(f"{by} contradicts -o {self.chosen}: give one of them")
        self.chosen = wanted

    def write(self, text: str, *, end: str = "\n") -> None:
        """Text of a model or of a user: as it is into a pipe, made harmless for a terminal."""
        stream = sys.stdout
        shown = safe(text) if stream.isatty() else text
        # A lone surrogate cannot be encoded; show it instead of failing after the work is done.
        with naming_stdout():
            stream.write((shown + end).encode("utf-8", "backslashreplace").decode("utf-8"))
            stream.flush()

    def json(self, value: Any) -> None:
        """One JSON value: indented on a terminal, one line otherwise; of an object, the chosen fields."""
        if isinstance(value, Mapping):
            value = self._picked(value)
        self.write(_json(value, pretty=stdout_is_terminal() and self.format != "jsonl"))

    def records(self, records: Iterable[Record], columns: Sequence[Column], *, key: str = "id") -> None:
        """Several records in the chosen format."""
        if self.format == "id":
            for record in records:
                self.write(cell(record.get(key)))
        elif self.format == "json":
            self.json([self._picked(record) for record in records])
        elif self.format == "jsonl":
            for record in records:
                self.write(_json(self._picked(record)))
        elif self.format == "csv":
            self._csv(list(records), columns)
        else:
            wanted = [column for column in columns if self.format == "wide" or not column.wide]
            _table(list(records), wanted)

    def lines(self, records: Sequence[Record], columns: Sequence[Column], *, key: str = "id", titles: bool = False) -> None:
        """Records of a list that goes on: a line each, in a table under `titles` where those are asked for; JSON is an object a line."""
        wanted = [column for column in columns if self.format == "wide" or not column.wide]
        match self.format:
            case "json" | "jsonl":
                for record in records:
                    self.write(_json(self._picked(record)))
            case "id":
                self.records(records, columns, key=key)
            case "csv":
                self._csv([*records], columns, titles=titles)
            case _:
                if titles:
                    self.write("\t".join(column.title for column in wanted))
                for record in records:
                    self.write("\t".join(cell(column.value(record)) for column in wanted))

    def record(self, record: Record, columns: Sequence[Column], *, key: str = "id") -> None:
        """One record in the chosen format; as a table it stands upright, a line a column."""
        if self.format == "json":
            self.json(record)
        elif self.format in ("table", "wide"):
            wanted = [column for column in columns if self.format == "wide" or not column.wide]
            self.pairs([(column.title, _shown_cell(column, record)) for column in wanted])
        else:
            self.records([record], columns, key=key)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, a line each; without a value the line is left out."""
        lines = [(name, value) for name, value in pairs if value != ""]
        if not stdout_is_terminal():
            for name, value in lines:
                self.write(f"{name}\t{value}")
            return
        width = max((len(name) for name, _ in lines), default=0)
        for name, value in lines:
            self.write(f"{name:<{width}}  {value}")

    def _picked(self, record: Record) -> Record:
        if not self.fields:
            return record
        if unknown := [name for name in self.fields if name not in record]:
            raise click.UsageError(f"no field is called {unknown[0]!r}; the fields are {', '.join(record)}")
        return {name: record[name] for name in self.fields}

    def _csv(self, records: list[Record], columns: Sequence[Column], *, titles: bool = True) -> None:
        import csv
        import io

        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        if titles:
            writer.writerow(self.fields or [column.title.lower() for column in columns])
        if self.fields:
            writer.writerows([_formula_safe(cell(value)) for value in self._picked(r).values()] for r in records)
        else:
            writer.writerows([_formula_safe(cell(column.value(r))) for column in columns] for r in records)
        self.write(buffer.getvalue(), end="")


def _formula_safe(text: str) -> str:
    # A spreadsheet runs a cell that begins like this as a formula; a number with its sign is none.
    return f"'{text}" if text[:1] in ("=", "@", "+", "-") and not _NUMBER.fullmatch(text) else text


def _json(value: Any, *, pretty: bool = False) -> str:
    import msgspec

    data = msgspec.json.encode(value, enc_hook=str)
    return (msgspec.json.format(data, indent=2) if pretty else data).decode()


def _shown_cell(column: Column, record: Record) -> str:
    return cell((column.human or column.value)(record) if stdout_is_terminal() else column.value(record))


def _table(records: list[Record], columns: Sequence[Column]) -> None:
    if not stdout_is_terminal():
        lines = ["\t".join(column.title for column in columns)]
        lines += ["\t".join(cell(column.value(record)) for column in columns) for record in records]
        Output().write("\n".join(lines))
        return
    from rich.console import Console

    from inferq.cli.terminal import draw

    rows = [[_shown_cell(column, record) for column in columns] for record in records]
    colored = _colored(sys.stdout)
    console = Console(file=sys.stdout, color_system="standard" if colored else None, highlight=False)
    draw(console, [column.title for column in columns], rows)


def output_options(
    *,
    formats: Sequence[str] = FORMATS,
    default: str = "table",
    piped_default: str | None = None,
    ids: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds -o/--output, --json[=FIELDS] and -q/--quiet; they reach the command as `app.out`."""

    def output(ctx: click.Context) -> Output:
        made: Output = ctx.obj.out
        made.default, made.piped_default = default, piped_default
        return made

    def on_format(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            output(ctx).choose(value, by="--output")
        output(ctx)

    def on_json(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            out = output(ctx)
            out.fields = tuple(part.strip() for part in value.split(",") if part.strip())
            if out.chosen not in ("jsonl", "csv"):
                out.choose("json", by="--json")

    def on_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            output(ctx).choose("id", by="--quiet")

    shown = f"{default} on a terminal, {piped_default} when piped" if piped_default else default

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        section: dict[str, Any] = {"cls": Option, "section": "Output options", "expose_value": False}
        if ids:
            command = click.option("-q", "--quiet", is_flag=True, callback=on_quiet, help="Print ids only.", **section)(command)
        command = click.option("--json", metavar="[=FIELD,...]", callback=on_json, help="JSON: all fields, or only these.", **section)(
            command
        )
        return click.option(
            "-o",
            "--output",
            type=click.Choice([*formats]),
            is_eager=True,
            callback=on_format,
            help=f"Format of the data on stdout (default: {shown}).",
            **section,
        )(command)

    return add
