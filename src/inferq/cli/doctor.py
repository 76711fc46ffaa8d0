"""`inferq doctor`: is everything here that work needs, and what to do where it is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from inferq.cli.about import version_text
from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options, say

if TYPE_CHECKING:
    from inferq.config import BackendSettings
    from inferq.door import AsyncDoor

Verdict = Literal["ok", "note", "FAIL"]

_LEAST_SQLITE = (3, 37, 0)
"""STRICT tables."""
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "lustre"})
_LEAST_FILES = 1024
_LEAST_FREE = 200 * 1024 * 1024
_PATIENCE = 5.0


class Finding(NamedTuple):
    """One thing looked at. `note` is worth knowing and no fault: what is not configured need not be there."""

    check: str
    verdict: Verdict
    detail: str


@click.command(
    cls=Command,
    examples="""
        inferq doctor
        inferq doctor -o json
        inferq --url sqlite:////srv/inferq.db doctor
        inferq doctor --bundle report.zip
    """,
    exits=(Exit.FAILED, Exit.PERMISSION),
    fields=("check", "verdict", "detail"),
)
@click.option("--bundle", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Also write a zip file for a bug report.")
@output_options()
@click.pass_obj
def doctor(app: App, bundle: Path | None) -> None:
    """Check environment, store, backends and models.

    `note` is worth knowing, FAIL keeps something from working (exit code 1). Backends get five seconds to answer. Nothing
    is run and nothing costs money.

    --bundle also writes what was found, versions, settings and their sources, numbers, the last events and log lines into a
    new file for a bug report. Secrets are masked, and no prompt, answer, error text or reason is in it; look before you send it.
    """
    if bundle is not None and bundle.exists():
        raise click.UsageError(f"{bundle} exists already: choose another name or remove it")
    findings = app.run(_examine(app))
    if bundle is not None:
        app.run(_bundle(app, bundle, findings))
        say(f"wrote {bundle}; it is plain text and JSON: look before you send it")
    records = [{**finding._asdict(), "id": finding.check} for finding in findings]
    columns = [Column(name.upper(), field(name)) for name in Finding._fields]
    app.out.records(records, columns, key="check")
    app.end(Exit.FAILED if any(finding.verdict == "FAIL" for finding in findings) else Exit.OK)


async def _bundle(app: App, file: Path, findings: list[Finding]) -> None:
    """What cannot be had is told in its place: a report is wanted most where little works."""
    from inferq.cli.bundle import Bundle
    from inferq.errors import ConfigError, InferqError

    made = Bundle(app)
    made.versions()
    made.json("doctor.json", [finding._asdict() for finding in findings])
    try:
        made.config()
    except ConfigError as error:
        made.json("config.json", {"error": str(error)})
    try:
        async with app.queue() as queue:
            await made.store(queue)
    except (InferqError, OSError) as error:
        made.json("store.json", {"error": type(error).__name__})
    made.write(file)


async def _examine(app: App) -> list[Finding]:
    import asyncio

    from inferq.errors import ConfigError

    findings = _environment()
    try:
        loaded = app.loaded()
    except ConfigError as error:
        return [*findings, Finding("configuration", "FAIL", str(error))]
    read = ", ".join(str(file) for file in loaded.files) or "no file; defaults and environment"
    findings.append(Finding("configuration", "ok", read))
    findings += [Finding("configuration", "note", note) for note in loaded.notes]
    findings += await _store(app)
    if app.address().is_server:
        return findings  # its backends are its own, whatever is configured here
    named = {key.split(".")[1] for key, source in loaded.sources.items() if key.startswith("backends.") and source.kind != "default"}
    checked = await asyncio.gather(*(_backend(b, configured=b.name in named) for b in loaded.settings.backends))
    return [*findings, *(finding for found in checked for finding in found)]


def _environment() -> list[Finding]:
    import platform
    import sqlite3

    import msgspec

    python = platform.python_version()
    soft = _open_files()
    sqlite: Verdict = "ok" if sqlite3.sqlite_version_info >= _LEAST_SQLITE else "FAIL"
    wanted = ".".join(map(str, _LEAST_SQLITE))
    return [
        Finding("inferq", "ok", f"{version_text()}, msgspec {msgspec.__version__}, {sys.prefix}"),
        Finding("python", "ok" if sys.version_info >= (3, 11) else "FAIL", f"{python} on {platform.platform()}"),
        Finding("sqlite", sqlite, sqlite3.sqlite_version + ("" if sqlite == "ok" else f"; needs {wanted} or newer")),
        Finding("processors", "ok", str(os.cpu_count())),
        Finding("open files", "ok" if soft >= _LEAST_FILES else "note", f"limit {soft}"),
    ]


def _open_files() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


async def _store(app: App) -> list[Finding]:
    from inferq.errors import Forbidden, InferqError
    from inferq.stores.sqlite.files import MEMORY, path_of

    findings: list[Finding] = []
    served: list[Finding] = []
    try:
        address = app.address()
        findings.append(Finding("queue", "ok", f"{address.url} (chosen by: {address.source})"))
        if not address.is_server and (path := path_of(address.url)) != MEMORY:
            findings += _place(Path(path))
        async with app.queue() as queue:
            served = await _served(queue) if address.is_server else []
            stats = await queue.store_stats()
            problems = await queue.check()
            hooks = await _webhooks(queue)
    except Forbidden as error:
        return [*findings, *served, Finding("store", "note", f"not shown to this key: {error}")]
    except (InferqError, OSError) as error:
        return [*findings, Finding("store", "FAIL", str(error))]
    survives = {"full": "a returned submit survives a power cut", "normal": "it survives a crash of the process, not a power cut"}
    size = f"{stats.file_bytes / 1e6:.1f} MB and {stats.wal_bytes / 1e6:.1f} MB of log"
    findings.append(Finding("store", "ok", f"{stats.url}: schema {stats.schema}, {stats.tasks} tasks, {size}"))
    findings.append(Finding("durability", "ok", f"{stats.durability}: {survives.get(stats.durability, '')}"))
    findings += [Finding("store", "FAIL", problem) for problem in problems]
    return findings + served + hooks


async def _served(queue: AsyncDoor) -> list[Finding]:
    """The backends of a server, as its processes see them."""
    from inferq.cli.backends import standing

    findings = []
    for info in await queue.backends.list():
        models = f"; models: {', '.join(info.models[:5])}{', ...' if len(info.models) > 5 else ''}" if info.models else ""
        verdict: Verdict = "FAIL" if info.state == "down" else "ok" if standing(info) == "up" else "note"
        findings.append(Finding(f"backend {info.name}", verdict, standing(info) + models))
    return findings


async def _webhooks(queue: AsyncDoor) -> list[Finding]:
    """Those that are told nothing though they should be."""
    from inferq.cli.records import ago
    from inferq.errors import Forbidden

    try:
        hooks = await queue.webhooks.list()
    except Forbidden:
        return []
    found: list[Finding] = []
    for hook in hooks:
        if not hook.enabled and hook.reason:
            found.append(Finding(f"webhook {hook.name}", "note", f"disabled: {hook.reason}; `inferq webhooks enable {hook.name}`"))
        elif hook.enabled and hook.failing_since is not None:
            detail = f"fails since {ago(hook.failing_since)}; see `inferq webhooks deliveries {hook.name}`"
            found.append(Finding(f"webhook {hook.name}", "note", detail))
    return found


def _place(file: Path) -> list[Finding]:
    """The file system under the store: SQLite's shared log needs a local one."""
    directory = next((parent for parent in file.absolute().parents if parent.exists()), Path("/"))
    kind = _file_system(directory)
    free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
    network = kind in _NETWORK
    advice = "; a network file system loses locks: put the store on a local disk" if network else ""
    return [
        Finding("file system", "FAIL" if network else "ok", f"{kind or 'unknown'} at {directory}{advice}"),
        Finding("disk space", "ok" if free >= _LEAST_FREE else "FAIL", f"{free / 1e9:.1f} GB free at {directory}"),
    ]


def _file_system(directory: Path) -> str:
    """The type of the file system that holds a directory, as Linux tells it; empty elsewhere."""
    try:
        lines = Path("/proc/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [(parts[1].replace("\\040", " "), parts[2]) for parts in (line.split(" ") for line in lines) if len(parts) > 2]
    holding = [mount for mount in mounts if directory.is_relative_to(mount[0])]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else ""


async def _backend(backend: BackendSettings, *, configured: bool) -> list[Finding]:
    """Health and models. A backend that nobody configured is allowed to be absent."""
    import asyncio

    from inferq.executors import load

    name = f"backend {backend.name}"
    executor: Any = None
    try:
        executor = load(backend.executor)(backend.name, backend.opened())
        async with asyncio.timeout(_PATIENCE):
            health = await executor.health()
            names = await executor.models() if health.ok else []
    except TimeoutError:
        return [Finding(name, "FAIL" if configured else "note", f"no answer within {_PATIENCE:g} s")]
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and that is the finding
        return [Finding(name, "FAIL" if configured else "note", str(error) or type(error).__name__)]
    finally:
        if executor is not None:
            await executor.close()
    if not health.ok:
        return [Finding(name, "FAIL" if configured else "note", health.detail or "not healthy")]
    some = f"; models: {', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}" if names else ""
    return [Finding(name, "ok", (health.detail or "healthy") + some)]
