"""What holds for every command, so that who knows one knows them all: formats, fields, data on stdout only, no question to a script."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import click
import pytest

from inferq.cli import root
from inferq.cli.groups import Command, LazyGroup


def commands(command: click.Command = root, path: str = "") -> dict[str, Command]:
    if isinstance(command, LazyGroup):
        context = click.Context(command)
        below = {name: command.get_command(context, name) for name in command.list_commands(context)}
        return {
            at: one for name, found in below.items() if found is not None for at, one in commands(found, f"{path} {name}".strip()).items()
        }
    assert isinstance(command, Command)
    return {path: command}


ALL = commands()
NO_RECORDS = {"serve", "work", "health", "config schema", "completion", "batch delete", "openapi"}
"""They run on, only do something, or print a document that has one form."""
TEXTS = {"run", "result", "tail", "submit batch", "batch watch", "batch results", "batch errors"}
"""They print answers, not records; their default is the text itself or a line of JSON."""


def flags(path: str) -> set[str]:
    return {name for param in ALL[path].params for name in param.opts}


@pytest.mark.parametrize("path", sorted(set(ALL) - NO_RECORDS))
def test_every_command_that_prints_records_takes_a_format_and_fields(path: str) -> None:
    assert {"-o", "--output", "--json"} <= flags(path)
    assert ALL[path].fields, "its help must list the fields of --json"


@pytest.mark.parametrize("path", sorted(set(ALL) - NO_RECORDS - TEXTS))
def test_every_command_that_prints_records_can_print_their_ids_only(path: str) -> None:
    assert {"-q", "--quiet"} <= flags(path)
    (output,) = [param for param in ALL[path].params if "--output" in param.opts]
    assert {"table", "wide", "json", "jsonl", "csv", "id"} <= set(output.type.choices)  # type: ignore[attr-defined] # it is a choice


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_command_takes_the_global_options(path: str) -> None:
    assert {"--config", "--data-dir", "--verbose", "--debug", "--no-progress"} <= flags(path) | {"--data-dir"}


@pytest.fixture
def things(cli: Any) -> None:
    """One of each: a task, a schedule, a key, a batch."""
    for line in (
        "submit chat --executor echo --model m x --tag t",
        "cron add --name daily --schedule '0 9 * * *' --model m --prompt p --executor echo",
        "keys create someone --role submit",
    ):
        ran = cli(*shlex.split(line))
        assert ran.code == 0, ran.err


LISTS = ["list", "events --limit 0", "cron list", "cron history daily", "batch list", "keys list", "audit", "executors", "config show"]


@pytest.mark.parametrize("line", LISTS)
def test_json_is_one_value_jsonl_a_value_a_line_csv_and_tables_have_titles(cli: Any, things: None, line: str) -> None:
    args = shlex.split(line)
    whole = cli(*args, "-o", "json")
    assert whole.code == 0, whole.err
    assert isinstance(whole.json, list)
    assert [json.loads(each) for each in cli(*args, "-o", "jsonl").lines] == whole.json or line == "audit"
    titles, *rows = cli(*args).lines
    assert all(row.count("\t") == titles.count("\t") for row in rows)
    assert len(rows) == len(whole.json)
    assert not any(re.search(r"\b1[5-9]\d{11}\b", row) for row in rows), "times in tables are RFC 3339"
    assert cli(*args, "-o", "csv").lines[0].count(",") >= titles.count("\t")
    assert cli(*args, "-q").code == 0


@pytest.mark.parametrize("line", LISTS)
def test_fields_of_the_help_are_fields_of_the_records(cli: Any, things: None, line: str) -> None:
    args = shlex.split(line)
    records = cli(*args, "-o", "json").json
    documented = ALL[" ".join(args[:2]) if " ".join(args[:2]) in ALL else args[0]].fields
    for record in records[:1]:
        chosen = [name for name in documented if name in record]
        assert chosen, (documented, list(record))
        assert list(cli(*args, f"--json={chosen[0]}").json[0]) == [chosen[0]]
        if "..." not in documented:
            assert set(record) <= set(documented)


def test_a_field_that_does_not_exist_is_named_with_those_that_do(cli: Any, things: None) -> None:
    ran = cli("list", "--json=stat")
    assert ran.code == 2
    assert "stat" in ran.err
    assert "state" in ran.err


DANGEROUS = [path for path, command in ALL.items() if {"--yes"} & {name for param in command.params for name in param.opts}]


def test_what_asks_before_it_acts_never_asks_a_script(cli: Any, things: None) -> None:
    assert DANGEROUS
    for path in DANGEROUS:
        wanted = [param for param in ALL[path].params if isinstance(param, click.Argument) and param.required]
        ran = cli(*path.split(), *("x" for _ in wanted))
        assert ran.code in (2, 5), (path, ran.err)
