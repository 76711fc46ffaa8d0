"""What `inferq doctor --bundle` puts into one file for a bug report: how things stand, never what anybody asked, answered or keeps secret.

Texts that may come from a prompt, an answer or a backend are left out by listing what is taken, not by looking for what is not; secrets
that are known are masked once more in the finished text.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inferq.cli.app import App
from inferq.cli.logs import secrets_of

if TYPE_CHECKING:
    from inferq.door import AsyncDoor

_EVENTS: Final = 500
_LOG_LINES: Final = 1000
_LOG_BYTES: Final = 4 * 1024 * 1024
_LEAST_SECRET: Final = 4
_EVENT_FIELDS: Final = frozenset(
    (
        "position", "at", "type", "task_id", "batch_id", "attempt", "state", "lane", "priority", "before", "after", "due", "fire",
        "waited_ms", "ran_ms", "first_ms", "code", "worker", "backend", "input_tokens", "output_tokens", "cached_tokens",
        "reasoning_tokens", "estimate", "scope", "kind", "version", "dropped", "count", "total", "completed", "failed",
        "cancelled", "status",
    )
)  # fmt: skip
"""Of an event what names, counts and measures; never errors and reasons, which may quote."""
_LOG_FIELDS: Final = frozenset(
    (
        "ts", "level", "logger", "event", "task_id", "batch_id", "backend", "model", "attempt", "code", "duration_s", "request_id",
        "key_id", "route", "status", "method", "slots", "server", "found", "worker", "tasks",
    )
)  # fmt: skip
_BACKEND_FIELDS: Final = (
    "name",
    "executor",
    "remote",
    "state",
    "since",
    "slots",
    "busy",
    "completed",
    "priority",
    "weight",
    "serves",
    "models",
)
_PACKAGES: Final = ("msgspec", "click", "rich", "aiohttp", "httptools", "uvicorn", "uvloop", "websockets", "prometheus-client", "xllamacpp")
_SAYS: Final = """\
A report of `inferq doctor --bundle`. Plain text and JSON, meant to be read before it is sent.

versions.json  inferq, Python, packages, platform; names of the variables that are set, without their values
doctor.json    what `inferq doctor` found
config.json    settings in force and where each comes from; secrets and headers are masked
store.json     numbers of the queue, the store and its backends
events.jsonl   the last events: types, ids, codes, times; no errors and reasons, which may quote a prompt or an answer
log.jsonl      the last lines of the log file, where there is one and it is JSON: levels, ids, codes, times; no texts
"""


class Bundle:
    """Gathers parts, each as far as it can be had, and writes them as one archive."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._parts: dict[str, str] = {"README.txt": _SAYS}
        self._secrets: set[str] = {text for text in (app.api_key, os.environ.get("INFERQ_API_KEY")) if text}

    def json(self, name: str, value: object) -> None:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=1).decode()
        self._parts[name] = text + "\n"

    def lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        self._parts[name] = "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)

    def versions(self) -> None:
        import sqlite3
        from importlib.metadata import PackageNotFoundError, version

        from inferq.cli.about import version_text

        def known(package: str) -> str | None:
            try:
                return version(package)
            except PackageNotFoundError:
                return None

        self.json(
            "versions.json",
            {
                "inferq": version_text(),
                "python": sys.version,
                "platform": platform.platform(),
                "machine": platform.machine(),
                "processors": os.cpu_count(),
                "sqlite": sqlite3.sqlite_version,
                "packages": {package: known(package) for package in _PACKAGES},
                "variables": sorted(name for name in os.environ if re.match(r"INFERQ_|OLLAMA_|OPENAI_|QUEUE_|LLM_QUEUE_|RETRY_", name)),
            },
        )

    def config(self) -> None:
        """Raises ConfigError."""
        loaded = self._app.loaded()
        self._secrets |= secrets_of(loaded.settings)
        self.json(
            "config.json",
            {
                "files": [str(file) for file in loaded.files],
                "notes": list(loaded.notes),
                "settings": [{"key": key, "value": _plain(key, value), "source": str(source)} for key, value, source in loaded.rows()],
            },
        )
        self._log(loaded.settings.log.file)

    def _log(self, file: str | Path | None) -> None:
        if file is None or not Path(file).is_file():
            return
        with Path(file).open("rb") as source:
            source.seek(max(0, Path(file).stat().st_size - _LOG_BYTES))
            tail = source.read(_LOG_BYTES).splitlines()[-_LOG_LINES:]
        self.lines("log.jsonl", (record for line in tail if (record := _log_record(line)) is not None))

    async def store(self, queue: AsyncDoor) -> None:
        """Raises InferqError."""
        import msgspec

        stats: Any = msgspec.to_builtins(await queue.stats(), str_keys=True)
        kept: Any = msgspec.to_builtins(await queue.store_stats())
        backends = [msgspec.to_builtins(info) for info in await queue.backends.list()]
        self.json(
            "store.json",
            {
                "queue": stats,
                "store": kept,
                "backends": [
                    {name: one[name] for name in _BACKEND_FIELDS} | {"breakers": [_breaker(found) for found in one["breakers"]]}
                    for one in backends
                ],
            },
        )
        await self._events(queue, kept["last_event"])

    async def _events(self, queue: AsyncDoor, last: int) -> None:
        from inferq.cli.events import event_record, past

        found = [event_record(event) async for event in past(queue, after=max(0, last - _EVENTS))]
        self.lines("events.jsonl", ({name: value for name, value in one.items() if name in _EVENT_FIELDS} for one in found))

    def write(self, file: Path) -> None:
        """A zip file that only its owner may read: whole, or not at all. Raises OSError."""
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
        try:
            held = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(held, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in self._parts.items():
                    archive.writestr(f"inferq-report/{name}", self._masked(text))
            os.link(beside, file)  # unlike a rename, it does not replace a file that came meanwhile
        finally:
            beside.unlink(missing_ok=True)

    def _masked(self, text: str) -> str:
        from inferq.config.secret import MASK, masked

        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _LEAST_SECRET:
                text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], MASK)
        return str(masked(text))


def _plain(key: str, value: Any) -> Any:
    from inferq.config.secret import MASK

    # Any header may be a credential, whatever it is called.
    return MASK if "headers" in key.split(".") and value else value


def _breaker(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "reason"}


def _log_record(line: bytes) -> dict[str, Any] | None:
    """A line of the log without its texts; None for one that is no JSON object."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    return {name: value for name, value in record.items() if name in _LOG_FIELDS and isinstance(value, str | int | float | bool)}
