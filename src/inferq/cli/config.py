"""`inferq config`: the settings in force and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, cell, field, output_options, say, warn

config = LazyGroup(
    "config",
    verbs={
        "show": Verb("inferq.cli.config:show", "Print the settings in force."),
        "path": Verb("inferq.cli.config:path", "Print which configuration files are read, most important first."),
    },
    help="Show the settings and where they come from.",
    examples="""
        inferq config show --sources
        inferq config path
    """,
    no_args_is_help=True,
)


@click.command(
    cls=Command,
    examples="""
        inferq config show
        inferq config show --sources
        inferq config show worker store.url
        inferq --config inferq.toml config show -o json
    """,
    exits=(Exit.NOT_FOUND,),
    fields=("key", "value", "source"),
)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--sources", is_flag=True, help="Also say where each value comes from.")
@output_options()
@click.pass_obj
def show(app: App, keys: tuple[str, ...], sources: bool) -> None:
    """Print the settings in force.

    KEY is a setting or a group such as `worker`. Secrets are masked. Arguments win over the environment, that over files,
    those over defaults.
    """
    loaded = app.loaded()
    rows = [{"key": key, "value": value, "source": str(source)} for key, value, source in loaded.rows()]
    if keys:
        for key in keys:
            if not any(_under(row["key"], key) for row in rows):
                warn(f"inferq: no setting is called {key!r}; `inferq config show` lists them")
                app.end(Exit.NOT_FOUND)
        rows = [row for row in rows if any(_under(row["key"], key) for key in keys)]
    for note in loaded.notes:
        say(note)
    columns = [Column("KEY", field("key")), Column("VALUE", _value)]
    if sources or app.out.format in ("wide", "csv"):
        columns.append(Column("SOURCE", field("source")))
    app.out.records(rows, columns, key="key")


def _under(key: str, asked: str) -> bool:
    return key == asked or key.startswith(f"{asked}.")


def _value(row: Any) -> str:
    return "none" if row["value"] is None else cell(row["value"])


@click.command(
    cls=Command,
    examples="""
        inferq config path
        inferq config path -q | xargs cat
    """,
    exits=(Exit.NOT_FOUND,),
    fields=("path", "read"),
)
@output_options()
@click.pass_obj
def path(app: App) -> None:
    """Print which configuration files are read, most important first.

    When none is (5), the places where one would be found go to stderr.
    """
    loaded = app.loaded()
    records = [{"path": str(file), "read": True} for file in loaded.files]
    app.out.records(records, [Column("PATH", field("path"))], key="path")
    if not records:
        from inferq.config import Places
        from inferq.config.files import NAMES

        places = Places.here()
        looked: list[Path] = [places.cwd, places.user, *places.system]
        say(f"no configuration file; put {' or '.join(NAMES)} into one of {', '.join(map(str, looked))}")
        app.end(Exit.NOT_FOUND)
