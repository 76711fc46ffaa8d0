"""`inferq backends`: where tasks run, whether they may, and which servers of this machine could be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, Record, field, output_options, say
from inferq.cli.params import DURATION
from inferq.cli.records import ago, iso

if TYPE_CHECKING:
    from inferq.backend import BackendInfo

backends = LazyGroup(
    "backends",
    verbs={
        "list": Verb("inferq.cli.backends:list_", "List backends with state, slots and what they have completed."),
        "show": Verb("inferq.cli.backends:show", "Show one backend."),
        "test": Verb("inferq.cli.backends:test", "Ask backends now how they are."),
        "drain": Verb("inferq.cli.backends:drain", "Give backends no more tasks, in every process."),
        "disable": Verb("inferq.cli.backends:disable", "Give backends no more tasks until they are enabled."),
        "enable": Verb("inferq.cli.backends:enable", "Undo drain and disable."),
        "discover": Verb("inferq.cli.backends:discover", "Look for model servers on this machine."),
    },
    aliases={"ls": "list"},
    help="Where tasks run, and whether they may.",
    examples="""
        inferq backends list
        inferq backends drain gpu-2 --wait
        inferq backends enable gpu-2
        inferq backends test openai
    """,
    no_args_is_help=True,
)

FIELDS = (
    "name", "executor", "address", "remote", "state", "reason", "since", "slots", "busy", "completed", "priority", "weight", "serves",
    "models", "breakers", "gates", "workers", "unaware",
)  # fmt: skip


def _record(info: BackendInfo) -> dict[str, Any]:
    import msgspec

    made: dict[str, Any] = msgspec.to_builtins(info)
    return {name: made[name] for name in FIELDS}


def standing(info: BackendInfo) -> str:
    """`up`, or what keeps tasks from it."""
    return _state(_record(info))


def _state(record: Record) -> str:
    opened = [breaker["model"] or "any model" for breaker in record["breakers"] if breaker["open"]]
    said: str = record["state"]
    if said == "up" and opened:
        said = f"up, not for {', '.join(opened)}"
    if said == "up" and not record["workers"]:
        said = "no worker"
    return f"{said}: {record['reason']}" if record["reason"] else said


def _slots(record: Record) -> str:
    return f"{record['busy']}/{record['slots'] if record['slots'] is not None else '*'}"


_COLUMNS = [
    Column("NAME", field("name")),
    Column("EXECUTOR", lambda record: "+".join((record["executor"], *record["serves"]))),
    Column("WHERE", lambda record: "remote" if record["remote"] else "local"),
    Column("STATE", _state),
    Column("BUSY", _slots),
    Column("COMPLETED", lambda record: str(record["completed"])),
    Column("MODELS", lambda record: ",".join(record["models"]) or "any"),
    Column("PRIORITY", lambda record: str(record["priority"]), wide=True),
    Column("WEIGHT", lambda record: f"{record['weight']:g}", wide=True),
    Column("SINCE", lambda record: ago(record["since"]) if record["since"] else "", wide=True),
    Column("ADDRESS", lambda record: record["address"] or "", wide=True),
]


@click.command(
    "list",
    cls=Command,
    examples="""
        inferq backends list
        inferq backends list -o wide
        inferq backends list --json=name,state,busy,completed
    """,
    exits=(Exit.UNREACHABLE,),
    fields=FIELDS,
)
@output_options()
@click.pass_obj
def list_(app: App) -> None:
    """List backends with state, slots and what they have completed.

    Those of the configuration and those that workers have. BUSY is running tasks and slots over all workers.
    """

    async def main() -> None:
        async with app.queue() as queue:
            found = await queue.backends.list()
        app.out.records([_record(info) for info in found], _COLUMNS, key="name")

    app.run(main())


@click.command(
    cls=Command,
    examples="""
        inferq backends show gpu-1
        inferq backends show gpu-1 -o json
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=FIELDS,
)
@click.argument("name")
@output_options()
@click.pass_obj
def show(app: App, name: str) -> None:
    """Show one backend."""

    async def main() -> None:
        async with app.queue() as queue:
            info = await queue.backends.get(name)
        record = _record(info)
        columns = [Column(column.title, column.value, column.human) for column in _COLUMNS]
        columns += [Column("BREAKER", _told(one["model"] or "any model", _breaker(one))) for one in record["breakers"]]
        columns += [Column("GATE", _told(one["lane"], f"asked to wait, until {iso(one['until'])}")) for one in record["gates"]]
        app.out.record(record, columns, key="name")

    app.run(main())


def _told(what: str, said: str) -> Callable[[Record], str]:
    return lambda _: f"{what}: {said}"


def _breaker(breaker: Record) -> str:
    why = f" ({breaker['reason']})" if breaker["reason"] else ""
    times = "once" if breaker["failures"] == 1 else f"{breaker['failures']} times in a row"
    failures = f"failed {times}{why}"
    if not breaker["open"]:
        return failures
    return failures + ("; a task is finding out now" if breaker["probing"] else f"; a task may find out at {iso(breaker['until'])}")


_TESTED = ("name", "ok", "detail", "seconds", "models")


@click.command(
    cls=Command,
    examples="""
        inferq backends test openai
        inferq backends test
    """,
    exits=(Exit.FAILED, Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=_TESTED,
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@output_options()
@click.pass_obj
def test(app: App, names: tuple[str, ...]) -> None:
    """Ask backends now how they are.

    All of them where none is named. It needs no task and costs no money. The command fails (1) when one does not work.
    """
    import msgspec

    async def main() -> bool:
        import asyncio

        async with app.queue() as queue:
            chosen = names or tuple(info.name for info in await queue.backends.list())
            found = await asyncio.gather(*(queue.backends.test(name) for name in chosen))
        records: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in found]
        columns = [
            Column("NAME", field("name")),
            Column("WORKS", lambda record: "yes" if record["ok"] else "no"),
            Column("TOOK", lambda record: f"{record['seconds'] * 1000:.0f} ms"),
            Column("DETAIL", field("detail")),
            Column("MODELS", lambda record: ",".join(record["models"])),
        ]
        app.out.records(records, columns, key="name")
        return all(one.ok for one in found)

    app.end(Exit.OK if app.run(main()) else Exit.FAILED)


async def _switched(app: App, names: tuple[str, ...], verb: str, **more: Any) -> None:
    async with app.queue() as queue:
        records = [_record(await getattr(queue.backends, verb)(name, **more)) for name in names]
    app.out.records(records, _COLUMNS, key="name")


@click.command(
    cls=Command,
    examples="""
        inferq backends drain gpu-2 --reason "new fan" --wait
        inferq backends enable gpu-2
    """,
    exits=(Exit.NOT_FOUND, Exit.TIMEOUT, Exit.UNREACHABLE),
    fields=FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Shown to who asks why tasks wait.")
@click.option("--wait", is_flag=True, help="Return when their last running tasks have ended.")
@click.option("--timeout", type=DURATION, help="With --wait: no longer than this; they go on draining.")
@output_options()
@click.pass_obj
def drain(app: App, names: tuple[str, ...], reason: str, wait: bool, timeout: float | None) -> None:
    """Give backends no more tasks, in every process.

    Running ones go on. `inferq backends enable` undoes it.
    """
    app.resume = "they go on draining; `inferq backends list` shows how far they are"
    app.run(_switched(app, names, "drain", reason=reason, wait=wait, timeout=timeout))
    if wait:
        say("drained")


@click.command(
    cls=Command,
    examples="""
        inferq backends disable openai --reason budget
        inferq backends disable gpu-1 gpu-2
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Shown to who asks why tasks wait.")
@output_options()
@click.pass_obj
def disable(app: App, names: tuple[str, ...], reason: str) -> None:
    """Give backends no more tasks until they are enabled.

    In every process, and after restarts too.
    """
    app.run(_switched(app, names, "disable", reason=reason))


@click.command(
    cls=Command,
    examples="""
        inferq backends enable gpu-2
        inferq backends enable gpu-1 openai
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def enable(app: App, names: tuple[str, ...]) -> None:
    """Undo drain and disable."""
    app.run(_switched(app, names, "enable"))


_FOUND = ("title", "address", "found", "used", "models", "note")


@click.command(
    cls=Command,
    examples="""
        inferq backends discover
        inferq backends discover -o json
    """,
    fields=_FOUND,
)
@output_options()
@click.pass_obj
def discover(app: App) -> None:
    """Look for model servers on this machine.

    An Ollama, a llama.cpp server and a vLLM, where each usually listens. `inferq serve` and `inferq work` do the same when
    they start, and use what they find where no backend of that kind is configured.
    """

    async def main() -> None:
        from inferq.queue.discovering import look

        found = await look(app.loaded().settings)
        records = [{name: getattr(one, name) for name in _FOUND} for one in found]
        columns = [
            Column("SERVER", field("title")),
            Column("ADDRESS", field("address")),
            Column("FOUND", lambda record: "yes" if record["found"] else "no"),
            Column("NOTE", field("note")),
            Column("MODELS", lambda record: ",".join(record["models"])),
        ]
        app.out.records(records, columns, key="address")

    app.run(main())
