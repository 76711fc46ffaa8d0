"""`inferq models` and `inferq executors`: what can run here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, field, output_options, say, warn
from inferq.cli.params import DURATION

if TYPE_CHECKING:
    from inferq.config import BackendSettings

_HIDDEN: Final = "it does not say which models it has in memory"
_SILENT: Final = "it has not said which models it has"
_Said = tuple[str, str, list[str], str]
"""(backend, executor, models, what went wrong)."""

models = LazyGroup(
    "models",
    verbs={
        "list": Verb("inferq.cli.models:list_", "List the models that can run now."),
        "ps": Verb("inferq.cli.models:ps", "List the models that are in memory now."),
        "load": Verb("inferq.cli.models:load", "Bring a model into a backend's memory, before tasks need it."),
        "unload": Verb("inferq.cli.models:unload", "Take a model out of a backend's memory."),
        "pull": Verb("inferq.cli.models:pull", "Fetch a small model that runs inside inferq."),
    },
    aliases={"ls": "list"},
    help="Fetch, list, load and unload models.",
    examples="""
        inferq models pull smollm2
        inferq models list
        inferq models load llama3.2 --backend ollama
    """,
    no_args_is_help=True,
)


@click.command(
    cls=Command,
    examples="""
        inferq models pull smollm2
        inferq run smollm2 --executor llamacpp "hi"
    """,
    exits=(Exit.FAILED, Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=("name", "path"),
)
@click.argument("name")
@output_options()
@click.pass_obj
def pull(app: App, name: str) -> None:
    """Fetch a small model that runs inside inferq.

    It is checked against its pinned sha256 and kept in the cache; a second call finds it there.
    """
    from inferq.executors.models import pull as fetch

    path = fetch(name, say if app.progress else None)
    record = {"name": name, "path": str(path)}
    app.out.record(record, [Column("NAME", field("name")), Column("PATH", field("path"))], key="name")


@click.command(
    "list",
    cls=Command,
    examples="""
        inferq models list
        inferq models list --backend ollama -o json
    """,
    exits=(Exit.NOT_FOUND,),
    fields=("model", "backend", "executor"),
)
@click.option("--backend", help="Only this backend.")
@output_options()
@click.pass_obj
def list_(app: App, backend: str | None) -> None:
    """List the models that can run now.

    Every configured backend is asked; one that does not answer is named on stderr. A server asks its own.
    """
    app.run(_list(app, backend))


@click.command(
    cls=Command,
    examples="""
        inferq models ps
        inferq models ps --backend ollama -o json
    """,
    exits=(Exit.NOT_FOUND,),
    fields=("model", "backend", "executor"),
)
@click.option("--backend", help="Only this backend.")
@output_options()
@click.pass_obj
def ps(app: App, backend: str | None) -> None:
    """List the models that are in memory now.

    Every configured backend is asked, by the server where there is one (which takes an operator's key); one that cannot say is
    named on stderr when it is asked for alone.
    """
    app.run(_list(app, backend, loaded=True))


async def _list(app: App, only: str | None, *, loaded: bool = False) -> None:
    asked = _of_server if app.address().is_server else _of_settings
    records: list[dict[str, Any]] = []
    for backend, executor, names, problem in await asked(app, only, loaded=loaded):
        if problem and (only or app.verbose or executor == "ollama"):
            warn(f"{backend}: {problem}")
        records += [{"model": name, "backend": backend, "executor": executor} for name in names]
    columns = [Column(name.upper(), field(name)) for name in ("model", "backend", "executor")]
    app.out.records(records, columns, key="model")


async def _of_settings(app: App, only: str | None, *, loaded: bool) -> list[_Said]:
    """Asked from here, without a queue: what is configured need not run yet."""
    import asyncio

    configured = app.loaded().settings.backends
    chosen = [backend for backend in configured if only in (None, backend.name)]
    if not chosen:
        _unknown(app, only, (backend.name for backend in configured))
    found = await asyncio.gather(*(models_of(backend, loaded=loaded) for backend in chosen))
    return [(backend.name, backend.executor, *said) for backend, said in zip(chosen, found, strict=True)]


async def _of_server(app: App, only: str | None, *, loaded: bool) -> list[_Said]:
    """Asked of a server: its backends are its own, whatever is configured here."""
    import asyncio

    from inferq.errors import Forbidden

    async with app.queue() as queue:
        infos = await queue.backends.list()
        chosen = [info for info in infos if only in (None, info.name)]
        if not chosen and only is not None:
            _unknown(app, only, (info.name for info in infos))
        try:
            tested = await asyncio.gather(*(queue.backends.test(info.name) for info in chosen))
        except Forbidden:
            if loaded:
                raise
            # Whoever may not have backends asked hears what they said when the server's workers asked them.
            return [(info.name, info.executor, list(info.models), "" if info.models else _SILENT) for info in chosen]
    said: list[_Said] = []
    for info, found in zip(chosen, tested, strict=True):
        names = found.loaded if loaded else found.models
        problem = found.detail if not found.ok else _HIDDEN if names is None else ""
        said.append((info.name, info.executor, list(names or ()), problem))
    return said


def _unknown(app: App, only: str | None, known: Iterable[str]) -> None:
    warn(f"inferq: no backend is called {only!r}; configured are {', '.join(known)}")
    app.end(Exit.NOT_FOUND)


async def models_of(backend: BackendSettings, *, patience: float = 5.0, loaded: bool = False) -> tuple[list[str], str]:
    """The models of a backend, and what went wrong where it could not say; never longer than `patience` seconds."""
    import asyncio

    from inferq.executors import load

    executor = None
    try:
        executor = load(backend.executor)(backend.name, backend.opened())
        async with asyncio.timeout(patience):
            names = await executor.loaded() if loaded else await executor.models()
            return ([], _HIDDEN) if names is None else (sorted(names), "")
    except TimeoutError:
        return [], f"no answer within {patience:g} s"
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and one bad backend must not hide the others
        return [], str(error) or type(error).__name__
    finally:
        if executor is not None:
            await executor.close()


_HELD = ("model", "backend", "loaded", "seconds")


def _hold(app: App, model: str, backend: str, verb: str, **more: Any) -> None:
    async def main() -> None:
        from inferq.cli.bar import Meter

        async with app.queue() as queue:
            with Meter(app) as meter:
                meter.line(f"{verb}ing {model} on {backend}")
                held = await getattr(queue.backends, verb)(backend, model, **more)
        record = {"model": held.model, "backend": held.name, "loaded": held.loaded, "seconds": held.seconds}
        columns = [
            Column("MODEL", field("model")),
            Column("BACKEND", field("backend")),
            Column("IN MEMORY", lambda record: "it does not say" if record["loaded"] is None else ",".join(record["loaded"])),
            Column("SECONDS", field("seconds")),
        ]
        app.out.record(record, columns, key="model")

    app.resume = f"the backend may go on {verb}ing; `inferq models ps` shows what it has in memory"
    app.run(main())


@click.command(
    cls=Command,
    examples="""
        inferq models load llama3.2 --backend ollama
        inferq models load llama3.2 --backend ollama --keep 2h
        inferq --url http://gpu:7125 models load smollm2 --backend llamacpp
    """,
    exits=(Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.INTERRUPTED),
    fields=_HELD,
)
@click.argument("model")
@click.option("--backend", required=True, metavar="NAME", help="Whose memory: `inferq backends list` names them.")
@click.option("--keep", type=DURATION, help="Without a task it may go after this time (Ollama's keep_alive).")
@click.option("--timeout", type=DURATION, default="10m", show_default=True, help="Wait no longer than this; it may go on loading.")
@output_options()
@click.pass_obj
def load(app: App, model: str, backend: str, keep: float | None, timeout: float) -> None:
    """Bring a model into a backend's memory, before tasks need it.

    Ollama, a llama.cpp server in router mode and `llamacpp` can; other backends say that they cannot (exit code 6). Models
    of `llamacpp` are in the memory of the process that runs tasks: ask its server, by --url.
    """
    _hold(app, model, backend, "load", keep=keep, timeout=timeout)


@click.command(
    cls=Command,
    examples="""
        inferq models unload llama3.2 --backend ollama
        inferq models ps
    """,
    exits=(Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT, Exit.INTERRUPTED),
    fields=_HELD,
)
@click.argument("model")
@click.option("--backend", required=True, metavar="NAME", help="Whose memory: `inferq backends list` names them.")
@click.option("--timeout", type=DURATION, default="1m", show_default=True, help="Wait no longer than this.")
@output_options()
@click.pass_obj
def unload(app: App, model: str, backend: str, timeout: float) -> None:
    """Take a model out of a backend's memory.

    The next task that needs it brings it back. A model that answers now is left alone by `llamacpp` (exit code 6).
    """
    _hold(app, model, backend, "unload", timeout=timeout)


@click.command(
    cls=Command,
    examples="""
        inferq executors
        inferq executors -o json
    """,
    exits=(Exit.FAILED,),
    fields=("name", "actions", "description", "package", "version", "target", "builtin", "problem"),
)
@output_options()
@click.pass_obj
def executors(app: App) -> None:
    """List the executors that are installed.

    One that cannot be loaded is listed with the reason, and makes the command fail (1).
    """
    from inferq.executors import found

    records = [_executor_record(entry) for entry in found().values()]
    columns = [
        Column("NAME", field("name")),
        Column("ACTIONS", lambda record: ",".join(record["actions"])),
        Column("FROM", lambda record: f"{record['package']} {record['version']}"),
        Column("DESCRIPTION", lambda record: record["problem"] or record["description"]),
        Column("TARGET", field("target"), wide=True),
    ]
    app.out.records(records, columns, key="name")
    app.end(Exit.FAILED if any(record["problem"] for record in records) else Exit.OK)


def _executor_record(entry: Any) -> dict[str, Any]:
    from inferq.errors import PluginError
    from inferq.executors import load

    actions: tuple[str, ...] = ()
    description = problem = ""
    try:
        loaded = load(entry.name)
        actions, description = tuple(loaded.actions), loaded.description
    except PluginError as error:
        problem = str(error)
    return {
        "name": entry.name,
        "actions": actions,
        "description": description,
        "package": entry.package,
        "version": entry.version,
        "target": entry.target,
        "builtin": entry.builtin,
        "problem": problem,
    }
