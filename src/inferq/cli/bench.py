"""`inferq bench`: how much this machine, this disk or a server can do, measured where the user's own queue is."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, warn
from inferq.cli.params import DURATION

if TYPE_CHECKING:
    from inferq.cli.bar import Meter
    from inferq.door import AsyncDoor
    from inferq.operation import Verb

_ANSWERS: Final[dict[str, dict[str, Any]]] = {"echo": {}, "demo": {"latency": 0.02, "tokens": 20, "tokens_per_second": 200.0}}
"""At once; or as a small model does, after 20 ms and with 20 tokens in 100."""
_SYNCS: Final = 50
_ALONE: Final = 50
"""Tasks that are made one after the other, to see what one takes when nobody else asks."""
_CLEAN: Final = 60.0

_FIELDS = (
    "where", "backend", "tasks", "concurrency", "payload_bytes", "durability", "sync_ms", "submit", "work", "alone", "stopped", "inferq",
    "python", "processors",
)  # fmt: skip


@click.command(
    cls=Command,
    examples="""
        inferq bench
        inferq bench --tasks 20000 --concurrency 64 --payload-bytes 4000
        inferq bench --backend demo --json
        inferq --url http://gpu:7125 bench --tasks 500
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE, Exit.INTERRUPTED),
    fields=_FIELDS,
)
@click.option("--tasks", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="How many.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=16, show_default=True, help="Submitters and slots at a time.")
@click.option("--payload-bytes", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Length of each prompt.")
@click.option("--backend", type=click.Choice([*_ANSWERS]), default="echo", show_default=True, help="echo answers at once, demo in 120 ms.")
@click.option("--limit", type=DURATION, default="1m", show_default=True, help="Submit and wait no longer than this.")
@output_options()
@click.pass_obj
def bench(app: App, tasks: int, concurrency: int, payload_bytes: int, backend: str, limit: float) -> None:
    """Measure submits, whole lives of tasks and the disk, on this machine or at a server.

    Without a server it makes a temporary store beside the one that is configured, on the same disk and with the same durability,
    and removes it. A server is measured only when --url or -P names it: it needs a backend of the executor echo, other work goes
    on, and the tasks, which carry a tag of their own, are removed at the end (role operator). No model is asked, nothing costs
    money. Submitter and worker share one process here, as with `inferq run`.
    """
    app.resume = "what it made is removed"
    record = app.run(_Run(app, tasks, concurrency, payload_bytes, backend, limit).measured())
    if app.out.format in ("json", "jsonl", "id", "csv"):
        app.out.record(record, [Column(name.upper(), field(name)) for name in _FIELDS], key="where")
    else:
        app.out.pairs(_lines(record))
    if record["stopped"]:
        warn(f"stopped after {limit:g} s with {record['tasks']:,} of {tasks:,} tasks: --limit gives it more time")


def _lines(record: dict[str, Any]) -> list[tuple[str, str]]:
    def spread(found: dict[str, float]) -> str:
        return f"p50 {found['p50']:g}  p95 {found['p95']:g}  p99 {found['p99']:g}  max {found['max']:g} ms"

    submit, work, alone, sync = record["submit"], record["work"], record["alone"], record["sync_ms"]
    return [
        ("where", record["where"]),
        ("backend", f"{record['backend']}, {record['concurrency']} at a time, prompts of {record['payload_bytes']:,} bytes"),
        ("durability", record["durability"]),
        ("sync of the disk", "" if sync is None else spread(sync)),
        ("submits", f"{submit['per_second']:,.0f}/s   {spread(submit['ms'])}"),
        ("whole lives", f"{work['per_second']:,.0f}/s   {work['tasks']:,} tasks in {work['seconds']:g} s"),
        ("alone: submit", "" if alone is None else spread(alone["submit_ms"])),
        ("alone: to the result", "" if alone is None else spread(alone["result_ms"])),
        ("measured with", f"inferq {record['inferq']}, Python {record['python']}, {record['processors']} processors"),
    ]


class _Run:
    """One measurement, by the door: the same for a store here and a server."""

    def __init__(self, app: App, tasks: int, concurrency: int, payload_bytes: int, backend: str, limit: float) -> None:
        self._app = app
        self._tasks = tasks
        self._concurrency = concurrency
        self._bytes = payload_bytes
        self._backend = backend
        self._until = time.monotonic() + limit
        self._ids: list[str] = []
        self._stopped = False
        self._began = 0.0
        self._tag = f"inferq-bench-{os.getpid()}-{time.time_ns() // 1_000_000}"
        self._named = bool(app.url or app.profile) and app.address().is_server

    async def measured(self) -> dict[str, Any]:
        """Measure, and remove what was made, however it ends."""
        import platform

        from inferq.cli.about import version_text
        from inferq.cli.bar import Meter

        with Meter(self._app) as meter:
            async with self._server() if self._named else self._store(meter) as (queue, where, durability, sync):
                submit = await self._submit(queue, meter)
                work = await self._work(queue, meter)
                alone = await self._alone(queue, meter)
        return {
            "where": where,
            "backend": self._backend,
            "tasks": len(self._ids),
            "concurrency": self._concurrency,
            "payload_bytes": self._bytes,
            "durability": durability,
            "sync_ms": sync,
            "submit": submit,
            "work": work,
            "alone": alone,
            "stopped": self._stopped,
            "inferq": version_text().removeprefix("inferq "),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        }

    # where -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _store(self, meter: Meter) -> AsyncIterator[tuple[AsyncDoor, str, str, dict[str, float] | None]]:
        import asyncio

        import msgspec

        from inferq.executors.echo import EchoExecutor
        from inferq.queue import AsyncQueue

        settings = self._app.loaded().settings
        place = Path(tempfile.mkdtemp(prefix="inferq-bench-", dir=self._beside()))
        try:
            meter.line("measuring the disk")
            sync = await asyncio.to_thread(_syncs, place)
            worker = msgspec.structs.replace(settings.worker, slots=self._concurrency, shutdown_grace=0.0)
            settings = msgspec.structs.replace(settings, worker=worker)
            executor = EchoExecutor("echo", _ANSWERS[self._backend])
            async with AsyncQueue(f"sqlite:///{place / 'bench.db'}", backends=[executor], settings=settings, work=False) as queue:
                yield queue, f"a temporary store in {place.parent}", settings.store.durability, sync
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def _beside(self) -> Path | None:
        """The directory of the configured store, where it is there and may be written; else the system's for temporary files."""
        from inferq.errors import InferqError
        from inferq.stores.sqlite.files import MEMORY, path_of

        try:
            path = path_of(self._app.store_url)
        except InferqError:
            return None
        parent = Path(path).parent
        return parent if path != MEMORY and parent.is_dir() and os.access(parent, os.W_OK) else None

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[tuple[AsyncDoor, str, str, dict[str, float] | None]]:
        async with self._app.queue() as queue:
            durability = (await queue.store_stats()).durability
            try:
                yield queue, queue.url, durability, None
            finally:
                await self._clean(queue)

    async def _clean(self, queue: AsyncDoor) -> None:
        from inferq.errors import InferqError

        try:
            steps: tuple[tuple[Verb, str], ...] = (("cancel", "scheduled,pending,running"), ("delete", "ended"))
            for verb, states in steps:
                made = await queue.operations.start(verb, f"tag:{self._tag} state:{states}")
                await queue.operations.wait(made.id, _CLEAN)
        except InferqError as error:
            warn(f"its tasks are still there ({error}): inferq delete --query tag:{self._tag}")

    # what ------------------------------------------------------------------------------------------------------------

    async def _submitted(self, queue: AsyncDoor) -> str:
        payload: dict[str, Any] = {} if not self._named else _ANSWERS[self._backend]
        handle = await queue.chat("bench", "x" * self._bytes, executor="echo", tags=[self._tag], payload=payload, stream=False)
        return handle.id

    async def _submit(self, queue: AsyncDoor, meter: Meter) -> dict[str, Any]:
        """As many submitters as asked for, each its next task when the one before is durable."""
        import asyncio

        taken: list[float] = []
        left = self._tasks

        async def submitter() -> None:
            nonlocal left
            while left > 0 and not self._stopped:
                left -= 1
                began = time.perf_counter()
                self._ids.append(await self._submitted(queue))
                taken.append(time.perf_counter() - began)
                meter.line(f"submitting {len(taken):,} of {self._tasks:,}")
                self._stopped = time.monotonic() > self._until

        began = self._began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, self._tasks)):
                group.create_task(submitter())
        spent = time.perf_counter() - began
        return {"per_second": round(len(taken) / spent, 1), "seconds": round(spent, 3), "ms": _spread(taken)}

    async def _work(self, queue: AsyncDoor, meter: Meter) -> dict[str, Any]:
        """Here: from when a worker begins; at a server, which works meanwhile: from the first submit."""
        from inferq.errors import WaitTimeout
        from inferq.queue import AsyncQueue

        began = self._began
        if isinstance(queue, AsyncQueue):
            began = time.perf_counter()
            await queue.start_work()
        done = 0
        for id in self._ids:
            try:
                await queue.wait(id, max(0.001, self._until - time.monotonic()))
            except WaitTimeout:
                self._stopped = True
                break
            done += 1
            meter.line(f"working: {done:,} of {len(self._ids):,} done")
        spent = time.perf_counter() - began
        return {"per_second": round(done / spent, 1), "seconds": round(spent, 3), "tasks": done}

    async def _alone(self, queue: AsyncDoor, meter: Meter) -> dict[str, Any] | None:
        """None where the time is up: others are still before it then."""
        if self._stopped:
            return None
        submits: list[float] = []
        results: list[float] = []
        while len(results) < _ALONE and (not results or time.monotonic() < self._until):
            meter.line(f"one by one: {len(results)} of {_ALONE}")
            began = time.perf_counter()
            id = await self._submitted(queue)
            submits.append(time.perf_counter() - began)
            await queue.wait(id, _CLEAN)
            results.append(time.perf_counter() - began)
        return {"tasks": len(results), "submit_ms": _spread(submits), "result_ms": _spread(results)}


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

    return {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}


def _syncs(place: Path) -> dict[str, float]:
    """How long the disk takes to make 8 KB durable: what every commit at `full` waits for."""
    taken: list[float] = []
    with (place / "sync").open("wb") as file:
        for _ in range(_SYNCS):
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return _spread(taken)
