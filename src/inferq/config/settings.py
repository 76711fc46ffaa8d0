"""The settings: one frozen tree, every field with its type, bounds, unit, default and meaning. Pure values; nothing is read here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from inferq.config.secret import masked, reveal, shown

_YEARS_10: Final = 315_360_000.0
_INT_MAX: Final = 2**53
MAX_PAYLOAD_BOUND: Final = 50_000_000
"""Bytes: no setting admits a larger payload."""

Seconds = Annotated[float, Meta(ge=0.001, le=_YEARS_10, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "bytes"})]
Tasks = Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "tasks"})]
Slots = Annotated[int, Meta(ge=1, le=100_000, extra={"unit": "tasks"})]
Priority = Annotated[int, Meta(ge=0, le=_INT_MAX, extra={"unit": "priorities"})]
PathText = Annotated[str, Meta(extra={"unit": "path"})]
StoreUrl = Annotated[str, Meta(extra={"unit": "store url"})]


def default_data_dir() -> str:
    """Where this platform keeps a user's data, such as `~/.local/share/inferq`."""
    import platformdirs

    return platformdirs.user_data_dir("inferq", appauthor=False)


def default_url(data_dir: str) -> str:
    """The store that is used when no url is given: one SQLite file in the data directory."""
    return f"sqlite:///{Path(data_dir) / 'inferq.db'}"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of settings. Its text form masks secrets and passwords in URLs."""

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={masked(getattr(self, name))!r}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({inside})"


class StateRetention(Section, frozen=True):
    """How much of the tasks in one final state stays; whatever exceeds one of the bounds goes, oldest first. None is unbounded."""

    age: Annotated[Seconds | None, Meta(description="Tasks that ended longer ago are removed.")] = 7 * 86_400.0
    count: Annotated[Tasks | None, Meta(description="Of more tasks than this, the oldest are removed.")] = None
    bytes: Annotated[Bytes | None, Meta(description="Of more payload and result than this, the oldest are removed.")] = None


class RetentionSettings(Section, frozen=True):
    """What stays of ended tasks, of their streams and of the event log."""

    completed: StateRetention = StateRetention()
    failed: StateRetention = StateRetention()
    cancelled: StateRetention = StateRetention()
    chunk_age: Annotated[Seconds, Meta(description="Stream logs of tasks that ended longer ago are removed; results stay.")] = 86_400.0
    event_age: Annotated[Seconds, Meta(description="Older events are removed from the event log.")] = 7 * 86_400.0
    audit_age: Annotated[Seconds, Meta(description="Older entries are removed from the audit log.")] = 90 * 86_400.0
    audit_count: Annotated[
        Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "entries"})],
        Meta(description="Of more entries in the audit log than this, the oldest are removed."),
    ] = 100_000


class StoreSettings(Section, frozen=True):
    """Where truth is kept, how durably, how much of it."""

    data_dir: Annotated[
        PathText,
        Meta(description="Directory of the store's file, unless `store.url` is set as well, there or in a place that ranks higher."),
    ] = msgspec.field(default_factory=default_data_dir)
    url: Annotated[
        StoreUrl,
        Meta(description="The store: `sqlite:////absolute/file.db`, `sqlite:///relative.db`, `sqlite://:memory:` or a file's path."),
    ] = ""
    durability: Annotated[
        Literal["full", "normal"],
        Meta(description="What a returned submit survives: `full` a power cut, `normal` a crash of the process."),
    ] = "full"
    max_payload_bytes: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_PAYLOAD_BOUND, extra={"unit": "bytes"})],
        Meta(description="A submission whose encoded payload is larger is refused."),
    ] = 16_000_000
    max_queue_size: Annotated[Tasks | None, Meta(description="With this many tasks waiting, a submit is refused (`queue_full`).")] = None
    prune_interval: Annotated[Seconds, Meta(description="Time between two removals of what retention does not keep.")] = 60.0
    retention: RetentionSettings = RetentionSettings()

    def __post_init__(self) -> None:
        if not self.url:
            msgspec.structs.force_setattr(self, "url", default_url(self.data_dir))


class WorkerSettings(Section, frozen=True):
    """The loop that claims and runs, its clocks and its upkeep."""

    slots: Annotated[Slots, Meta(description="Tasks that one worker runs at the same time.")] = 4
    lease: Annotated[Seconds, Meta(description="A worker that is silent for longer loses its claims.")] = 30.0
    timeout: Annotated[Seconds | None, Meta(description="Limit of one attempt, for tasks that set none.")] = 600.0
    idle_timeout: Annotated[Seconds | None, Meta(description="Limit of the silence between two chunks, for tasks that set none.")] = 120.0
    shutdown_grace: Annotated[
        Annotated[float, Meta(ge=0, le=_YEARS_10, extra={"unit": "seconds"})],
        Meta(description="Time that running tasks get to finish when the worker stops; then they are handed back."),
    ] = 30.0
    rescue_interval: Annotated[Seconds, Meta(description="Time between two searches for claims of workers that died.")] = 10.0
    lost_limit: Annotated[
        Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "attempts"})],
        Meta(description="A task that vanished with its worker this often fails as `lost`."),
    ] = 3
    poll_interval: Annotated[Seconds, Meta(description="Fallback: look for work at least this often although nothing woke the worker.")] = (
        1.0
    )
    claim_batch: Annotated[Slots, Meta(description="At most this many tasks are claimed in one step.")] = 100
    ageing: Annotated[
        Seconds | None,
        Meta(description="A class that stands unserved gains one priority for each such time; none: strict priority, which can starve."),
    ] = None
    ageing_bound: Annotated[
        Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "priorities"})],
        Meta(description="At most this many priorities are gained by `ageing`."),
    ] = 10
    discover: Annotated[
        bool,
        Meta(description="Look for an Ollama, a llama.cpp server and a vLLM on this machine when `serve` and `work` start, and use them."),
    ] = True


class RetrySettings(Section, frozen=True):
    """How often and when a failed attempt is made again; waits are drawn between 0 and the bound (full jitter)."""

    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=_INT_MAX, extra={"unit": "retries"})],
        Meta(description="Attempts after the first, for tasks that set none; 0 means none."),
    ] = 3
    initial_delay: Annotated[Seconds, Meta(description="Bound of the wait before the first retry.")] = 1.0
    max_delay: Annotated[Seconds, Meta(description="No wait is longer, except where the backend asks for it.")] = 30.0
    backoff_factor: Annotated[
        Annotated[float, Meta(gt=1, le=1000)],
        Meta(description="The bound grows by this factor with each retry."),
    ] = 2.0


class HealthSettings(Section, frozen=True):
    """How backends are watched. A backend that failed its last check is asked again after a sixth of the interval."""

    interval: Annotated[Seconds, Meta(description="Time between two health checks of a backend.")] = 30.0
    timeout: Annotated[Seconds, Meta(description="A backend that has not answered a check within this has failed it.")] = 5.0
    failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000, extra={"unit": "checks"})],
        Meta(description="After so many failed checks in a row a backend is down and gets no task until one succeeds."),
    ] = 2


class BreakerSettings(Section, frozen=True):
    """When a backend that keeps failing at a model is left alone, and for how long; the time doubles with each failed probe."""

    failures: Annotated[
        Annotated[int, Meta(ge=1, le=_INT_MAX, extra={"unit": "failures"})],
        Meta(description="So many failures in a row (connect, 5xx, timeout) at one model open the breaker of that model there."),
    ] = 5
    initial_delay: Annotated[Seconds, Meta(description="Time until the first probe, at least half of it.")] = 2.0
    max_delay: Annotated[Seconds, Meta(description="No time until the next probe is longer.")] = 60.0


class RemoteSettings(Section, frozen=True):
    """When remote backends run what local ones could run too."""

    policy: Annotated[
        Literal["overflow", "queue", "never"],
        Meta(
            description="`overflow`: when no local slot is free. `queue`: by the length of the queue and the task's priority. "
            "`never`: only tasks that ask for it."
        ),
    ] = "overflow"
    local_first: Annotated[
        bool, Meta(description="With `queue`: local backends first; if not, all from `overflow_priority` on goes remote first.")
    ] = True
    max_local_queue: Annotated[
        Annotated[int, Meta(ge=0, le=_INT_MAX, extra={"unit": "tasks"})],
        Meta(description="With `queue`: so many tasks waiting in a lane let those of `overflow_priority` go remote."),
    ] = 100
    overflow_priority: Annotated[Priority, Meta(description="With `queue`: the least priority that a long queue lets go remote.")] = 10
    remote_priority: Annotated[Priority, Meta(description="With `queue`: from this priority on tasks go remote at once.")] = 15
    fallback_to_local: Annotated[
        bool, Meta(description="Whether a task that was for a remote backend runs locally when those fail or are down.")
    ] = True


class BackendSettings(Section, frozen=True):
    """A place where tasks run. `settings` goes to the executor as it is; secrets in it are `Secret` values until `opened()`."""

    name: str
    executor: Annotated[str, Meta(description="Which executor speaks to it: `ollama`, `openai`, `script`... or a plugin's name.")]
    slots: Annotated[Slots | None, Meta(description="Tasks that run on it at the same time; none: as many as the worker runs.")] = None
    models: Annotated[tuple[str, ...], Meta(description="Models that it serves; empty: any, those that it lists first.")] = ()
    settings: Annotated[
        dict[str, Any],
        Meta(
            description="Handed to the executor: `base_url`, `api_key` and whatever else it knows.",
            extra={"unit": "mapping"},
        ),
    ] = {}
    serves: Annotated[
        tuple[str, ...],
        Meta(description="Other executors whose tasks it runs too: an `openai` server with `ollama` here runs chats submitted for Ollama."),
    ] = ()
    remote: Annotated[
        bool | None,
        Meta(description="Whether it counts as remote; none: it does when its address is neither this machine nor a private network."),
    ] = None
    priority: Annotated[
        Priority,
        Meta(description="Of several that could run a task, local ones come first, then those of higher priority."),
    ] = 0
    weight: Annotated[
        Annotated[float, Meta(gt=0, le=1000)],
        Meta(description="Share of the work among backends of equal priority, for each free slot."),
    ] = 1.0
    over_http: Annotated[
        bool | None,
        Meta(
            description="Whether tasks that come over HTTP may run on it; none: model servers yes, everything else no. `script` and `http` "
            "need bounds in their settings then."
        ),
    ] = None
    enabled: Annotated[bool, Meta(description="A backend that is not enabled gets no task; for a while, `inferq backends disable`.")] = True

    def opened(self) -> dict[str, Any]:
        """The executor's settings with secrets in plain text: for the executor's constructor only, never for display."""
        plain: dict[str, Any] = reveal(self.settings)
        return plain


class ServerSettings(Section, frozen=True):
    """The HTTP server: where it listens, whom it answers, and bounds that keep a bad client from harming the others."""

    host: Annotated[str, Meta(description="Address to listen on; any but this machine's own needs keys, or `insecure`.")] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535, extra={"unit": "port"})], Meta(description="Port to listen on; 0 takes a free one.")
    ] = 7125
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Names beside `localhost` and addresses by which clients may call it (`Host`), `*.example.org` too; `*`: any."),
    ] = ()
    origins: Annotated[
        tuple[str, ...],
        Meta(description="Web pages of other sites that may use it, such as `https://app.example.org`; `*`: all. Empty: none."),
    ] = ()
    insecure: Annotated[bool, Meta(description="Listen on a public address although no keys are configured.")] = False
    max_body_bytes: Annotated[Bytes, Meta(description="A request with a larger body is refused (413).")] = 20_000_000
    max_import_bytes: Annotated[
        Bytes, Meta(description="A batch file that is sent in a larger body is refused (413): while it is checked it waits on disk.")
    ] = 2_000_000_000
    header_timeout: Annotated[Seconds, Meta(description="A connection whose request line and headers take longer is closed.")] = 10.0
    read_timeout: Annotated[Seconds, Meta(description="A request whose body stands still for longer is refused (408).")] = 30.0
    write_timeout: Annotated[Seconds, Meta(description="A reader of a stream that takes nothing for longer is dropped.")] = 10.0
    keep_alive: Annotated[Seconds, Meta(description="An idle connection is closed after this time.")] = 75.0
    heartbeat: Annotated[Seconds, Meta(description="A silent stream gets a comment after this time, so that proxies keep it.")] = 15.0
    max_wait: Annotated[
        Seconds, Meta(description="Longest time that a request waits for the end of a task (`?wait=`); clients ask again.")
    ] = 60.0
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000, extra={"unit": "connections"})],
        Meta(description="Beyond this many connections new requests are refused (503)."),
    ] = 5000
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Addresses of proxies whose `X-Forwarded-For` and `-Proto` are believed.")
    ] = ()
    root_path: Annotated[str | None, Meta(description="Prefix that a proxy adds before the server's paths, such as `/inferq`.")] = None
    access_log: Annotated[bool, Meta(description="Log every request (health checks never).")] = False


_MOUNTED: Final = "/run/secrets"
"""Where container engines put what is secret."""


class WebhookSettings(Section, frozen=True):
    """How webhooks' messages are delivered. Deliveries have slots of their own, beside the worker's."""

    allow_private: Annotated[bool, Meta(description="Whether receivers may be private or loopback addresses.")] = False
    secret_dir: Annotated[
        PathText, Meta(description="Folder in which the files lie that a webhook's secret may refer to (`file:NAME`), links followed.")
    ] = _MOUNTED
    slots: Annotated[Slots, Meta(description="Deliveries that one process makes at the same time.")] = 16
    timeout: Annotated[Seconds, Meta(description="A receiver that has not answered after this time has failed.")] = 10.0
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=_INT_MAX, extra={"unit": "retries"})], Meta(description="Attempts after the first.")
    ] = 12
    initial_delay: Annotated[Seconds, Meta(description="Bound of the wait before the first retry.")] = 5.0
    max_delay: Annotated[Seconds, Meta(description="No wait is longer, except where the receiver asks for it.")] = 36_000.0
    backoff_factor: Annotated[
        Annotated[float, Meta(gt=1, le=1000)], Meta(description="The bound grows by this factor with each retry.")
    ] = 4.0
    give_up: Annotated[Seconds, Meta(description="A message that was not taken after this time has failed.")] = 5 * 86_400.0
    disable_after: Annotated[
        Seconds | None, Meta(description="A webhook whose every delivery has failed for this long is disabled; none: never.")
    ] = 5 * 86_400.0


class LogSettings(Section, frozen=True):
    """What is logged, where to and in which form."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least level that is written.")] = "info"
    file: Annotated[PathText | None, Meta(description="File that the log is appended to; none: standard error.")] = None
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="`auto` is text on a terminal, JSON lines elsewhere."),
    ] = "auto"


DEFAULT_BACKENDS: Final[tuple[BackendSettings, ...]] = (
    BackendSettings("ollama", "ollama", settings={"base_url": "http://127.0.0.1:11434"}),
    BackendSettings("openai", "openai", settings={"base_url": "https://api.openai.com/v1"}),
    BackendSettings("llamacpp", "llamacpp"),
    BackendSettings("script", "script"),
    BackendSettings("http", "http"),
    BackendSettings("echo", "echo"),
)
"""What exists while nobody configures a backend: every built-in executor under its own name."""


class Settings(Section, frozen=True):
    """Everything that can be set. `Settings()` is the defaults; `load()` reads files, environment and arguments over them."""

    store: StoreSettings = msgspec.field(default_factory=StoreSettings)
    worker: WorkerSettings = WorkerSettings()
    retry: RetrySettings = RetrySettings()
    backends: tuple[BackendSettings, ...] = DEFAULT_BACKENDS
    log: LogSettings = LogSettings()
    server: ServerSettings = ServerSettings()
    webhooks: WebhookSettings = WebhookSettings()
    health: HealthSettings = HealthSettings()
    breaker: BreakerSettings = BreakerSettings()
    remote: RemoteSettings = RemoteSettings()

    def backend(self, name: str) -> BackendSettings | None:
        """The backend of that name, or None."""
        return next((backend for backend in self.backends if backend.name == name), None)


def display(settings: Settings) -> dict[str, Any]:
    """The tree as JSON-ready values with every secret masked: for `config show`, logs and support bundles."""
    tree: dict[str, Any] = shown(
        {name: _plain(getattr(settings, name)) for name in Settings.__struct_fields__ if name != "backends"}
        | {"backends": {backend.name: _plain(backend, leave_out="name") for backend in settings.backends}}
    )
    return tree


def _plain(section: Section, *, leave_out: str = "") -> dict[str, Any]:
    values = {name: getattr(section, name) for name in section.__struct_fields__ if name != leave_out}
    return {name: _plain(value) if isinstance(value, Section) else value for name, value in values.items()}
