"""`inferq version` and `inferq completion`."""

from __future__ import annotations

import sys

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options


def version_text() -> str:
    """`inferq 1.2.3`."""
    return f"inferq {_version()}"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("inferq")
    except PackageNotFoundError:
        return "unknown (not installed)"


@click.command(
    cls=Command,
    examples="""
        inferq version
        inferq version -o json
    """,
    fields=("inferq", "python", "platform"),
)
@output_options()
@click.pass_obj
def version(app: App) -> None:
    """Print the version."""
    record = {"inferq": _version(), "python": sys.version.split()[0], "platform": sys.platform}
    if app.out.format in ("table", "wide"):
        app.out.write(version_text())
    else:
        app.out.record(record, [Column(name.upper(), field(name)) for name in record], key="inferq")


@click.command(
    cls=Command,
    examples="""
        inferq completion bash > ~/.local/share/bash-completion/completions/inferq
        inferq completion zsh > "${fpath[1]}/_inferq"
        inferq completion fish > ~/.config/fish/completions/inferq.fish
    """,
    exits=(Exit.USAGE,),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(app: App, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from inferq.cli import root

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no completion for {shell!r} here")
    app.out.write(made(root, {}, "inferq", "_INFERQ_COMPLETE").source())
