"""Calls of the command line, taken apart as the program would, without running them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from inferq.cli import root
from inferq.cli.app import App
from inferq.cli.groups import LazyGroup


def parse(words: Sequence[str]) -> click.Context:
    """The command that these words (without `inferq`) call, with all its values. Raises click's errors."""
    command: click.Command = root
    context = root.make_context("inferq", list(words), obj=App())
    rest = [*context._protected_args, *context.args]
    while isinstance(command, LazyGroup):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]
    return context
