"""`inferq config`: the settings in force and where each comes from; a file to begin with, and what is wrong with one."""

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
        "validate": Verb("inferq.cli.config:validate", "Check a configuration file, or everything that is in force."),
        "init": Verb("inferq.cli.config:init", "Write a configuration file with every setting as a comment."),
        "schema": Verb("inferq.cli.config:schema", "Print the JSON Schema of the configuration file."),
        "path": Verb("inferq.cli.config:path", "Print which configuration files are read, most important first."),
    },
    help="Show, check and write settings.",
    examples="""
        inferq config init
        inferq config validate
        inferq config show --sources
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


@click.command(
    cls=Command,
    examples="""
        inferq config validate
        inferq config validate inferq.toml && systemctl reload inferq
        inferq config validate deploy/inferq.yaml -o json
    """,
    exits=(Exit.USAGE,),
    fields=("file", "problem"),
)
@click.argument("file", required=False, metavar="[FILE]")
@output_options()
@click.pass_obj
def validate(app: App, file: str | None) -> None:
    """Check a configuration file, or everything that is in force.

    Every mistake is reported at once with its file, line and key, and what was probably meant; then the exit code is 2.
    Variables count, because files refer to them. Backends' settings are checked by their executors; nothing is connected to.
    """
    problems, files = _problems(app, file)
    records = [{"file": file or "", "problem": problem} for problem in problems]
    if problems or app.out.format not in ("table", "wide"):
        app.out.records(records, [Column("PROBLEM", field("problem"))], key="problem")
    if problems:
        say(f"inferq: {len(problems)} mistake{'s' if len(problems) > 1 else ''}", color="red")
        app.end(Exit.USAGE)
    say(f"{', '.join(files) or 'no file; defaults and environment'}: everything is in order")


def _problems(app: App, file: str | None) -> tuple[list[str], list[str]]:
    from inferq.engine import Backend
    from inferq.errors import ConfigError

    if file is not None:
        app.config = file
    try:
        loaded = app.loaded()
    except ConfigError as error:
        return str(error).splitlines(), []
    problems: list[str] = []
    for backend in loaded.settings.backends:
        try:
            Backend.from_settings(backend)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and the other backends are checked all the same
            place = f"backends.{backend.name}"
            said = str(error) if str(error).startswith(f"{place}.") else f"{place}: {str(error).removeprefix(f'{backend.name}: ')}"
            problems.append(f"{loaded.sources[f'{place}.executor']}: {said}")
    for note in loaded.notes:
        say(note)
    return problems, [str(path) for path in loaded.files]


@click.command(
    cls=Command,
    examples="""
        inferq config init
        inferq config init --format yaml
        inferq config init --user
        inferq config init deploy/inferq.toml --force
    """,
    exits=(Exit.CONFLICT, Exit.PERMISSION),
    fields=("path",),
)
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--format", "form", type=click.Choice(["toml", "yaml"]), help="Format of the file (default: by its name, else toml).")
@click.option("--user", is_flag=True, help="Into your configuration directory instead of here.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@output_options()
@click.pass_obj
def init(app: App, file: str | None, form: str | None, user: bool, force: bool) -> None:
    """Write a configuration file with every setting as a comment.

    Each has its meaning, unit and default, so that the file changes nothing until a line is uncommented. Without FILE it is
    inferq.toml (or .yaml) in this directory.
    """
    from inferq.config.saving import write
    from inferq.config.template import template
    from inferq.errors import Conflict

    target = _target(file, form, user=user)
    if not force and target.exists():
        raise Conflict(f"{target} is there already; nothing was changed. Replace it with --force, or name another file")
    write(target, template("toml" if target.suffix == ".toml" else "yaml").encode())
    app.out.record({"path": str(target)}, [Column("PATH", field("path"))], key="path")
    say("change it, check it with `inferq config validate`")


def _target(file: str | None, form: str | None, *, user: bool) -> Path:
    if file is None:
        from inferq.config import Places

        places = Places.here()
        return (places.user if user else places.cwd) / f"inferq.{form or 'toml'}"
    if user:
        raise click.UsageError("--user and FILE say where the file goes: give one of them")
    target = Path(file)
    kinds = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
    if target.suffix.lower() not in kinds:
        raise click.UsageError(f"expected a name that ends in .toml, .yaml or .yml, got {file!r}")
    if form not in (None, kinds[target.suffix.lower()]):
        raise click.UsageError(f"--format {form} contradicts the name {file!r}")
    if target.name == "pyproject.toml":
        raise click.UsageError("pyproject.toml belongs to other tools too; name an inferq.toml")
    return target


@click.command(
    cls=Command,
    examples="""
        inferq config schema > inferq.schema.json
        inferq config schema | jq .properties.worker
    """,
)
@click.pass_obj
def schema(app: App) -> None:
    """Print the JSON Schema of the configuration file.

    Editors complete and check with it: in TOML `#:schema ./inferq.schema.json`, in YAML
    `# yaml-language-server: $schema=inferq.schema.json`, in JSON the key `$schema`.
    """
    from inferq.config.schema import document

    app.out.write(document(), end="")
