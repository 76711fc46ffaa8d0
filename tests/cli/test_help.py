"""The help is complete, its examples parse, and docs/cli.md is what the program says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from calls import parse

from inferq.cli import docs, root
from inferq.cli.exits import MEANING, Exit
from inferq.cli.groups import Command, LazyGroup

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> Iterator[tuple[str, click.Command]]:
    def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, LazyGroup):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from walk(below, f"{path} {name}")

    yield from walk(root, "inferq")


ALL = dict(commands())


def test_the_page_of_the_documentation_is_current() -> None:
    assert PAGE.read_text() == docs.document(), "run `python -m inferq.cli.docs > docs/cli.md`"


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_a_line_of_help_and_two_to_four_examples(path: str) -> None:
    command = ALL[path]
    assert isinstance(command, Command | LazyGroup)
    assert (command.help or "").strip()
    assert 2 <= len(command.examples) <= 4
    for param in command.params:
        assert isinstance(param, click.Argument) or getattr(param, "help", None), f"{param.name} says nothing"


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if isinstance(command, LazyGroup)])
def test_the_line_in_the_list_is_the_first_line_of_the_command(path: str) -> None:
    group = ALL[path]
    assert isinstance(group, LazyGroup)
    for name, verb in group.verbs.items():
        assert (ALL[f"{path} {name}"].help or "").strip().splitlines()[0] == verb.short


def example_calls() -> list[tuple[str, str]]:
    return [(path, example) for path, command in ALL.items() for example in getattr(command, "examples", [])]


@pytest.mark.parametrize(("path", "example"), example_calls())
def test_every_example_is_a_call_that_parses(path: str, example: str) -> None:
    calls = [shlex.split(call) for call in calls_in(example)]
    assert calls, example
    for words in calls:
        parse(words)


def calls_in(line: str) -> Iterator[str]:
    """The inferq calls in a line of shell: cut at pipes, redirections and substitutions that stand outside quotes."""
    yield from (call for inner in re.findall(r"\$\((.*?)\)", line) for call in calls_in(inner))
    line = re.sub(r"\$\(.*?\)", "ID", line)
    quote, start = "", 0
    parts: list[str] = []
    for index, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "|<>&":
            parts.append(line[start:index])
            start = index + 1
    for part in [*parts, line[start:]]:
        program, _, rest = part.strip().partition(" ")
        if program == "inferq":
            yield rest


def test_every_exit_code_is_documented_and_stable() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "PARTIAL": 3, "PERMISSION": 4, "NOT_FOUND": 5, "CONFLICT": 6, "UNREACHABLE": 7,
        "TIMEOUT": 8, "REJECTED": 9, "INTERRUPTED": 130,
    }  # fmt: skip
    assert set(MEANING) == set(Exit)
