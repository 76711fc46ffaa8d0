"""Writes docs/cli.md from the commands themselves: `python -m inferq.cli.docs > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from inferq.cli import root
from inferq.cli.exits import MEANING

_INTRODUCTION = """\
# The command line

<!-- Written by `python -m inferq.cli.docs > docs/cli.md`; a test compares. -->

Data goes to stdout, everything else to stderr. On a terminal, lists are tables; in a pipe they are the same columns,
tab-separated under one line of titles, untruncated and without colour. `-o json`, `-o jsonl`, `-o csv`, `-q` (ids only) and
`--json=field,...` are for programs: their shape is stable, the text's is not. Times in JSON are Unix milliseconds.

An id may be shortened to any unique prefix. Where several ids are taken, `-` reads them from standard input. Durations are
written `90`, `10m`, `1h30m` or `250ms`; times with their zone, `2027-01-31T10:00:00Z`. A priority is `low` (1), `normal` (5),
`high` (10), `critical` (15) or any integer.

Standard input is read only where `-` asks for it, or where the text that a command needs was not given and something is
piped in; a command never waits silently at a terminal.

`list` and `status` take `--watch`: on a terminal they are redrawn when something happens, in a pipe each change is a line. Progress
goes to stderr: one line that is drawn over on a terminal, plain lines elsewhere; `--progress plain` and `--no-progress` say otherwise.
`inferq completion bash|zsh|fish` prints a script with which the shell completes commands, options, ids of the tasks that a verb is
for, states, models, executors, backends, names of schedules, settings, and the fields of `--json=`.

The first Ctrl-C stops waiting: the task goes on, and a line says how to come back to it. A second one ends the command at once.
Options win over the environment, that over configuration files, those over defaults: `inferq config show --sources` shows
which one decided. `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb` are heeded. Control characters in texts of models and users are
shown, not sent, when the output is a terminal.

## Exit codes

| code | meaning |
|---|---|
"""


def document() -> str:
    """The whole page."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANING.items())
    note = (
        "\nA command on several things ends with their common code, else with 3. A closed pipe (`inferq list | head -1`) ends "
        "a command quietly with 0.\n\n## Commands\n"
    )
    pages = [f"\n### {' '.join(path)}\n\n```text\n{text}\n```\n" for path, text in helps()]
    return _INTRODUCTION + codes + note + "".join(pages)


def helps() -> Iterator[tuple[list[str], str]]:
    """The help of every command, in the order of the main help."""
    yield from _walk(root, None, "inferq")


def _walk(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[list[str], str]]:
    # A fixed width: the page must not depend on the terminal that writes it.
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, **command.context_settings)
    yield context.command_path.split(), command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                yield from _walk(found, context, below)


if __name__ == "__main__":
    sys.stdout.write(document())
