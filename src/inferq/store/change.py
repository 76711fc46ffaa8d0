"""What a commit changed, as listeners are told, and the places in a chunk log from which they read on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from inferq.events import Event
from inferq.executor import Chunk
from inferq.task import Head


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in a task's chunk log: attempt number and index in it. (0, 0) is before everything."""

    attempt: int = 0
    index: int = 0


class LoggedChunk(msgspec.Struct, frozen=True):
    """A chunk and where it stands; resume after `position`."""

    position: Position
    chunk: Chunk


class Grown(msgspec.Struct, frozen=True, gc=False):
    """A task's chunk log grew: `chunks` are the indexes `first` and on of an attempt. None: look at the log (it ended, or another
    process wrote; an empty `task_id` then stands for any task)."""

    task_id: str
    attempt: int = 0
    first: int = 0
    chunks: Sequence[Chunk] | None = None


class Change(msgspec.Struct):
    """What a commit changed, told to listeners on their event loop after it is durable. `own` is False for another process's."""

    heads: Sequence[Head] = ()
    events: Sequence[Event] = ()
    streams: Sequence[Grown] = ()
    paused: frozenset[str] | None = None
    """All paused scopes, when that set changed."""
    lost: bool = False
    """This instance's lease ran out and others took its claims: every claim it holds is void."""
    own: bool = True


Listener = Callable[[Change], None]
