"""The forerunners' names: flat keys, nested groups and environment variables, translated into our keys by one table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from inferq import clock
from inferq.config.source import Entry, Source

Convert = Callable[[Any], Any]

_NANOSECONDS_FROM: Final = 100_000_000
_OLLAMA_PORT: Final = 11434
_LEVELS: Final = {"warn": "warning", "trace": "debug", "fatal": "error", "critical": "error", "panic": "error"}


def duration(value: Any) -> Any:
    """Seconds. Go writes durations into JSON as integer nanoseconds: an integer from 10^8 (three years in seconds) is read so."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= _NANOSECONDS_FROM:
        return value / 1e9
    return value


def kept_for(value: Any) -> Any:
    """The age that a cleanup interval stood for: 24 times as long."""
    value = duration(value)
    return 24 * clock.seconds(value) if isinstance(value, int | float | str) else value


def none_if_zero(value: Any) -> Any:
    """A bound where 0 stood for no bound."""
    return None if (value == 0 and not isinstance(value, bool)) or value == "0" else value


def none_if_empty(value: Any) -> Any:
    """An optional text where the empty one stood for none."""
    return None if value == "" else value


def level(value: Any) -> Any:
    """A log level by any of the names in use."""
    return _LEVELS.get(value.strip().lower(), value) if isinstance(value, str) else value


def ollama_url(value: Any) -> Any:
    """A URL from what Ollama itself accepts in OLLAMA_HOST: `host`, `host:port`, `:port`, `[::1]`, `http://host/path`.

    Without a scheme the port is 11434, with one it is the scheme's. An address to listen on (0.0.0.0, ::) becomes the loopback one.
    Raises ValueError.
    """
    text = value.strip().strip("\"'").rstrip("/") if isinstance(value, str) else ""
    if not text:
        raise ValueError("expected a host such as localhost:11434 or http://gpu:11434")
    bare = "://" not in text
    if bare and text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    parts = urlsplit(f"http://{text}" if bare else text)
    if parts.scheme not in ("http", "https"):
        raise ValueError("expected http or https")
    port = parts.port or (_OLLAMA_PORT if bare else None)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "")  # noqa: S104 - not bound: replaced
    user, at, _ = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user}{at}{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path}"


class Row(msgspec.Struct, frozen=True):
    """A forerunner's setting: our key, and every name it had. `nested` are (group, name); of two variables the later one wins."""

    key: str
    flat: str = ""
    nested: tuple[tuple[str, str], ...] = ()
    env: tuple[str, ...] = ()
    convert: Convert | None = None
    note: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))


TABLE: Final[tuple[Row, ...]] = (
    Row(
        "backends.ollama.settings.base_url",
        "ollama_host",
        (("ollama", "host"),),
        ("OLLAMA_HOST",),
        ollama_url,
        "`host:port`, `:port` and `0.0.0.0` are understood",
    ),
    Row(
        "worker.timeout",
        "ollama_timeout",
        (("ollama", "timeout"),),
        ("REQUEST_TIMEOUT", "OLLAMA_TIMEOUT"),
        duration,
        "the limit of one attempt, on every backend",
    ),
    Row("worker.slots", "max_workers", (("queue", "max_workers"),), ("MAX_CONCURRENT_REQUESTS", "QUEUE_MAX_WORKERS")),
    Row(
        "store.data_dir",
        "storage_path",
        (("queue", "storage_path"),),
        ("QUEUE_STORAGE_PATH",),
        None,
        "a directory; the store is the file `inferq.db` in it",
    ),
    Row(
        "store.prune_interval",
        "cleanup_interval",
        (("queue", "cleanup_interval"),),
        ("QUEUE_CLEANUP_INTERVAL",),
        duration,
        "also keeps ended tasks for 24 times as long, wherever `store.retention.*.age` is not set",
    ),
    Row(
        "store.retention.completed.count",
        "max_completed_tasks",
        (("queue", "max_completed_tasks"),),
        ("QUEUE_MAX_COMPLETED_TASKS",),
        none_if_zero,
        "0 is no bound",
    ),
    Row(
        "worker.poll_interval",
        "scheduling_interval",
        (("scheduler", "interval"), ("scheduler", "scheduling_interval")),
        ("SCHEDULER_INTERVAL",),
        duration,
        "only the fallback: work starts when it arrives",
    ),
    Row("worker.claim_batch", "batch_size", (("scheduler", "batch_size"),), ("SCHEDULER_BATCH_SIZE",)),
    Row("retry.max_retries", "", (("retry_config", "max_retries"),), ("RETRY_MAX_RETRIES",)),
    Row("retry.initial_delay", "", (("retry_config", "initial_delay"),), ("RETRY_INITIAL_DELAY",), duration),
    Row("retry.max_delay", "", (("retry_config", "max_delay"),), ("RETRY_MAX_DELAY",), duration),
    Row("retry.backoff_factor", "", (("retry_config", "backoff_factor"),), ("RETRY_BACKOFF_FACTOR",)),
    Row("log.level", "log_level", (("logging", "level"),), ("LOG_LEVEL",), level),
    Row("log.file", "log_file", (("logging", "file"),), ("LOG_FILE",), none_if_empty),
    Row("store.max_queue_size", env=("MAX_QUEUE_SIZE",), convert=none_if_zero, note="0 is no bound"),
    Row("backends.openai.settings.base_url", env=("OPENAI_BASE_URL",)),
    Row("backends.openai.settings.api_key", env=("OPENAI_API_KEY",)),
)

LISTEN: Final = "listen_addr"


def listening(data: Mapping[Any, Any], problems: list[str]) -> Mapping[Any, Any]:
    """The file's tree with a forerunner's `listen_addr` (`host:port`, `:port`) as `server.host` and `server.port`; its own are left."""
    if LISTEN not in data:
        return data
    rest = {name: value for name, value in data.items() if name != LISTEN}
    value = data[LISTEN]
    host, colon, port = value.strip().rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not port.isdecimal() or "/" in host:
        problems.append(f"{LISTEN}: expected an address such as localhost:7125 or :7125, got {value!r}")
        return rest
    own = rest.get("server")
    # Go listens on every address where none is given.
    meant = {"host": host.strip("[]") or "0.0.0.0", "port": int(port)}  # noqa: S104 - `serve` refuses it without keys
    rest["server"] = meant | dict(own) if isinstance(own, Mapping) else meant
    return rest


RETENTION_AGES: Final = tuple(("store", "retention", state, "age") for state in ("completed", "failed", "cancelled"))
_DISTINCT_FLAT: Final = frozenset(
    {"ollama_host", "ollama_timeout", "max_completed_tasks", "scheduling_interval", "retry_config", "remote_scheduling"}
)
_FLAT: Final = {row.flat: row for row in TABLE if row.flat}
_NESTED: Final = {name: row for row in TABLE for name in row.nested}
_GROUPS: Final = frozenset(group for group, _ in _NESTED)


def names() -> list[str]:
    """Every name a forerunner's file may hold, for suggestions."""
    return [*_FLAT, *(".".join(name) for name in _NESTED)]


def row_of(path: tuple[str, ...]) -> Row | None:
    """The setting that a file's path names in a forerunner's words."""
    if len(path) == 1:
        return _FLAT.get(path[0])
    return _NESTED.get((path[0], path[1])) if len(path) == 2 else None


def is_group(path: tuple[str, ...]) -> bool:
    """Whether a forerunner's keys lie below this path."""
    return len(path) == 1 and path[0] in _GROUPS


def recognisable(data: Mapping[str, Any]) -> bool:
    """Whether a file with a name as common as config.yaml is a forerunner's: it holds one of their distinctive keys."""
    if not _DISTINCT_FLAT.isdisjoint(data):
        return True
    if sum(name in data for name in _FLAT) >= 2:
        return True
    groups = ((group, data[group]) for group in ("ollama", "queue", "scheduler") if isinstance(data.get(group), Mapping))
    return any((group, name) in _NESTED for group, inside in groups for name in inside)


def from_environment(env: Mapping[str, str], base: Path) -> Iterator[Entry]:
    """What the forerunners' and the backends' own variables say; empty ones say nothing."""
    for row in TABLE:
        for name in row.env:
            if env.get(name):
                yield Entry(row.path, env[name], Source("environment", name), base, row.convert)
            if name.endswith("_KEY") and env.get(f"{name}_FILE"):
                yield Entry(row.path, f"file:{env[f'{name}_FILE']}", Source("environment", f"{name}_FILE"), base)


def implied(entries: list[Entry]) -> list[Entry]:
    """What a cleanup interval also meant: how long ended tasks stay. Ranks below every explicit setting."""
    intervals = [entry for entry in entries if entry.path == ("store", "prune_interval") and entry.convert is duration]
    return [
        Entry(
            path,
            entry.value,
            msgspec.structs.replace(entry.source, written="24 x cleanup_interval"),
            entry.base,
            kept_for,
        )
        for entry in intervals
        for path in RETENTION_AGES
    ]
