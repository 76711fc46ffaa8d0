"""What the shell completes: ids, states, models, backends, names of schedules, settings, fields. Quick, and silent on trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from inferq.door import AsyncDoor

_PATIENCE: Final = 2.0
"""Seconds that a shell is kept waiting at most."""
_LOOKED_AT: Final = 200
_WAITING_OR_RUNNING: Final = ("scheduled", "pending", "running")
_STATES_FOR: Final = {
    "cancel": _WAITING_OR_RUNNING,
    "priority": _WAITING_OR_RUNNING,
    "wait": _WAITING_OR_RUNNING,
    "retry": ("failed", "cancelled"),
    "delete": ("completed", "failed", "cancelled"),
}
"""Which tasks a verb is likely meant for; any where it is not named here."""

Items = Iterable[CompletionItem]
Source = Callable[[click.Context, str], Items]


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may stand for a parameter of any command. Nothing when nothing is known or the queue cannot be asked."""
    source = _source(ctx, param)
    if source is None:
        return []
    # Of a list `a,b,` the last part is being written.
    before, comma, last = incomplete.rpartition(",") if param.name in _LISTS else ("", "", incomplete)
    try:
        found = list(source(ctx, last))
    except Exception:  # noqa: BLE001 - a shell that is completing must not show our troubles
        return []
    return [CompletionItem(f"{before}{comma}{item.value}", help=item.help) for item in found if str(item.value).startswith(last)]


def _source(ctx: click.Context, param: click.Parameter) -> Source | None:
    group = ctx.parent.info_name if ctx.parent is not None else ""
    return _OF_GROUP.get((group or "", param.name or "")) or _OF_PARAMETER.get(param.name or "")


# ── what is known without asking anybody ────────────────────────────────────────────────────────────────────────────


def _words(*words: str) -> Source:
    return lambda _, __: map(CompletionItem, words)


def _states(_: click.Context, __: str) -> Items:
    from inferq.task import State

    return [CompletionItem(state.value) for state in State]


def _executors(_: click.Context, __: str) -> Items:
    from inferq.executors import found

    return map(CompletionItem, found())


def _backends(ctx: click.Context, _: str) -> Items:
    return [CompletionItem(backend.name, help=backend.executor) for backend in ctx.obj.loaded().settings.backends]


def _profiles(_: click.Context, __: str) -> Items:
    from inferq.config import Places, profiles

    return [CompletionItem(name, help=profile.url) for name, profile in profiles.read(Places.here().user).profiles.items()]


def _keys(ctx: click.Context, _: str) -> Items:
    return [CompletionItem(name) for name, _, _ in ctx.obj.loaded().rows()]


def _fields(ctx: click.Context, _: str) -> Items:
    return map(CompletionItem, getattr(ctx.command, "fields", ()))


def _events(_: click.Context, __: str) -> Items:
    from inferq.events import EVENT_TYPES

    return map(CompletionItem, EVENT_TYPES)


def _catalogue(_: click.Context, __: str) -> Items:
    from inferq.executors.models import CATALOG

    return map(CompletionItem, CATALOG)


def _conditions(_: click.Context, incomplete: str) -> Items:
    """Fields of the filter language; of a field with a closed list its values."""
    from inferq.query import FIELDS, field_named
    from inferq.query.reading import words_of

    sign = "-" if incomplete.startswith("-") else ""
    name, colon, written = incomplete.removeprefix("-").partition(":")
    field = field_named(name) if colon else None
    if field is None:
        return [CompletionItem(f"{sign}{field.name}:", help=field.meaning) for field in FIELDS.values()]
    before = "".join(written.rpartition(",")[:2])
    return [CompletionItem(f"{sign}{name}:{before}{word}") for word in words_of(field)]


# ── what the queue knows ────────────────────────────────────────────────────────────────────────────────────────────


def _asked(ask: Callable[[AsyncDoor, click.Context, str], Awaitable[Items]]) -> Source:
    async def open_and_ask(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        async with asyncio.timeout(_PATIENCE), ctx.obj.queue() as queue:
            return list(await ask(queue, ctx, incomplete))

    return lambda ctx, incomplete: asyncio.run(open_and_ask(ctx, incomplete))


async def _ids(queue: AsyncDoor, ctx: click.Context, incomplete: str) -> Items:
    from inferq.store import Filter
    from inferq.task import State

    states = tuple(State(state) for state in _STATES_FOR.get(ctx.info_name or "", ()))
    page = await queue.list(Filter(states=states, prefix=incomplete or None), limit=50)
    return [CompletionItem(task.id, help=f"{task.state} {task.spec.action} {task.spec.model}".strip()) for task in page.tasks]


async def _models(queue: AsyncDoor, ctx: click.Context, _: str) -> Items:
    from inferq.executors.models import installed

    page = await queue.list(limit=_LOOKED_AT)
    of_tasks = [task.spec.model for task in page.tasks if task.spec.model]
    configured = [model for backend in ctx.obj.loaded().settings.backends for model in backend.models]
    return map(CompletionItem, dict.fromkeys([*configured, *installed(), *of_tasks]))


async def _tags(queue: AsyncDoor, _: click.Context, __: str) -> Items:
    page = await queue.list(limit=_LOOKED_AT)
    return map(CompletionItem, dict.fromkeys(tag for task in page.tasks for tag in task.spec.tags))


async def _lanes(queue: AsyncDoor, ctx: click.Context, _: str) -> Items:
    stats = await queue.stats()
    return map(CompletionItem, stats.paused if ctx.info_name == "resume" else stats.pending_by_lane)


def _named(part: str, *names: str) -> Callable[[AsyncDoor, click.Context, str], Awaitable[Items]]:
    """The objects of a part of the door (`schedules`, `keys`), by the first of these attributes that they have."""

    async def ask(queue: AsyncDoor, _: click.Context, __: str) -> Items:
        listed: Any = await getattr(queue, part).list()
        items = getattr(listed, "items", listed)
        return [CompletionItem(next(str(getattr(one, name)) for name in names if hasattr(one, name))) for one in items]

    return ask


_PRIORITIES: Final = _words("low", "normal", "high", "critical")
_LISTS: Final = frozenset({"states", "actions", "priorities", "models", "executors", "tenants", "json"})
_OF_PARAMETER: Final[dict[str, Source]] = {
    "ids": _asked(_ids),
    "task_id": _asked(_ids),
    "model": _asked(_models),
    "models": _asked(_models),
    "tag": _asked(_tags),
    "tags": _asked(_tags),
    "scope": _asked(_lanes),
    "states": _states,
    "executor": _executors,
    "executors": _executors,
    "backend": _backends,
    "profile": _profiles,
    "priority": _PRIORITIES,
    "priorities": _PRIORITIES,
    "level": _PRIORITIES,
    "actions": _words("chat", "generate", "embed", "execute", "request"),
    "types": _events,
    "json": _fields,
    "query": _conditions,
}
_OF_GROUP: Final[dict[tuple[str, str], Source]] = {
    ("config", "keys"): _keys,
    ("models", "name"): _catalogue,
    ("cron", "name"): _asked(_named("schedules", "name")),
    ("cron", "names"): _asked(_named("schedules", "name")),
    ("batch", "batch_id"): _asked(_named("batches", "id", "name")),
    ("batch", "ids"): _asked(_named("batches", "id", "name")),
    ("backends", "name"): _backends,
    ("backends", "names"): _backends,
    ("profile", "name"): _profiles,
    ("keys", "key"): _asked(_named("keys", "name", "id")),
    ("keys", "names"): _asked(_named("keys", "name", "id")),
    ("operations", "operation_id"): _asked(_named("operations", "id")),
    ("webhooks", "name"): _asked(_named("webhooks", "name")),
    ("webhooks", "names"): _asked(_named("webhooks", "name")),
}


__all__ = ["complete"]
