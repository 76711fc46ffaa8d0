"""Ids as people give them: unique prefixes, several at once, or a list on standard input."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from inferq.cli.exits import Exit, exit_of
from inferq.cli.output import say
from inferq.cli.params import stdin_text
from inferq.errors import InferqError

if TYPE_CHECKING:
    from inferq.door import AsyncDoor


def given(ids: Sequence[str]) -> list[str]:
    """The ids of the command line, with `-` replaced by those on standard input; each once, in order."""
    found: list[str] = []
    for task_id in ids:
        found += stdin_text().split() if task_id == "-" else [task_id]
    if not found:
        raise click.UsageError("no ids came on standard input; give at least one")
    return list(dict.fromkeys(found))


async def each(queue: AsyncDoor, ids: Sequence[str], act: Callable[[str], Awaitable[None]]) -> list[Exit]:
    """Do it for each id; an error is one line on stderr and does not stop the others. Returns how each ended."""
    ends: list[Exit] = []
    for task_id in ids:
        try:
            await act(await queue.resolve(task_id))
        except InferqError as error:
            if len(ids) == 1:
                raise
            say(f"inferq: {error}", color="red")
            ends.append(exit_of(error))
        else:
            ends.append(Exit.OK)
    return ends
