"""Counts what happens, from events: numbers with bounded labels that a face may show. Knows no format and no library.

Every process that follows a store's log sees all its events, its own and others': counters are the store's, since this process began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from inferq.events import (
    BackendChanged,
    BatchFinished,
    Event,
    PriorityChanged,
    ScheduleFired,
    ScheduleSkipped,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReleased,
    TaskRescued,
    TaskRetried,
    TaskRetrying,
    TaskStarted,
    TaskSubmitted,
    WebhookDelivered,
    WebhookFailed,
)
from inferq.task import lane_parts
from inferq.timing import Times

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
REQUEST_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
RATES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0, 3000.0)
RATIOS: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 50.0)
MOST_NAMES: Final = 100
"""Names of models (backends, webhooks…) that keep a label of their own; what comes after them is `other`."""
MOST_PRIORITIES: Final = 20
MOST_SERIES: Final = 1000
"""Combinations of labels that one metric keeps apart."""
OTHER: Final = "other"

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Labels = tuple[str, ...]


class Counter:
    """A number that grows, for each combination of labels; beyond `MOST_SERIES` combinations the others share one."""

    __slots__ = ("help", "labels", "name", "values")

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        # What has no labels is there from the start: a rate needs its zero.
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, by: float = 1) -> None:
        if labels not in self.values and len(self.values) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        self.values[labels] = self.values.get(labels, 0) + by


class Histogram:
    """How often a measure fell under each bound, for each combination of labels; beyond `MOST_SERIES` the others share one."""

    __slots__ = ("bounds", "help", "labels", "name", "times")

    def __init__(self, name: str, help: str, *labels: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name, self.help, self.labels, self.bounds = name, help, labels, bounds
        self.times: dict[Labels, Times] = {} if labels else {(): Times(bounds)}

    def add(self, value: float, *labels: str) -> None:
        times = self.times.get(labels)
        if times is None:
            if len(self.times) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            times = self.times.setdefault(labels, Times(self.bounds))
        times.add(value)


class Names:
    """Bounds a label: the first names keep their own, the others share one."""

    __slots__ = ("_most", "_seen")

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._seen: set[str] = set()
        self._most = most

    def of(self, name: str) -> str:
        if name in self._seen:
            return name
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(name)
        return name


class Metrics:
    """Feed it every event with `hear`; read `counters` and `histograms`."""

    def __init__(self) -> None:
        self._lanes: dict[str, tuple[str, str]] = {}
        self._executors, self._models, self._backends, self._priorities = Names(), Names(), Names(), Names(MOST_PRIORITIES)
        place = ("backend", "model", "priority")
        self.submitted = Counter("inferq_tasks_submitted", "Tasks that were kept.", "executor", "model", "source")
        self.finished = Counter("inferq_tasks_finished", "Tasks that ended.", "executor", "backend", "model", "outcome")
        self.failures = Counter("inferq_failures", "Tasks that failed for good, by code.", "code")
        self.started = Counter("inferq_attempts_started", "Attempts that began.", "executor", "model")
        self.attempts = Counter("inferq_attempts", "Attempts that ended.", "backend", "model", "outcome", "code")
        self.retries = Counter("inferq_retries", "Attempts that failed and are made again, by code.", "code")
        self.rescued = Counter("inferq_recovered_tasks", "Tasks taken back from workers that vanished.")
        self.lease_lost = Counter("inferq_lease_lost", "How often others took this process for dead and its claims away.")
        self.retried = Counter("inferq_tasks_retried", "Ended tasks that somebody asked to make again.")
        self.moved = Counter("inferq_priority_changes", "Waiting tasks that were moved to another priority.")
        self.tokens = Counter("inferq_tokens", "Tokens as backends counted them.", "backend", "model", "direction")
        self.misjudged = Histogram(
            "inferq_token_estimate_error_ratio",
            "By how much of its real tokens a completed task's estimate was over or under.",
            *("model", "direction"),
            bounds=RATIOS,
        )
        self.waited = Histogram("inferq_task_wait_seconds", "From submit to the last attempt's start, of completed tasks.", *place)
        self.ran = Histogram("inferq_task_run_seconds", "From the last attempt's start to its end, of completed tasks.", *place)
        self.total = Histogram("inferq_task_total_seconds", "From submit to the end, of completed tasks.", *place)
        self.first = Histogram(
            "inferq_time_to_first_token_seconds", "From the last attempt's start to its first chunk, where it streamed.", "backend", "model"
        )
        self.rate = Histogram(
            "inferq_output_tokens_per_second", "Tokens after the first, from the first chunk to the end.", "backend", "model", bounds=RATES
        )
        self.fires = Counter("inferq_cron_fires", "Fires of schedules.", "outcome")
        self.lag = Histogram("inferq_cron_lag_seconds", "From a fire's nominal time to its task.")
        self.deliveries = Counter("inferq_webhook_deliveries", "Webhook deliveries that ended.", "outcome")
        self.batches = Counter("inferq_batches_finished", "Batches whose last task ended.")
        self.backend_changes = Counter("inferq_backend_changes", "Changes of a backend's state.", "backend", "state")
        self.requests = Counter("inferq_http_requests", "HTTP requests that were answered.", "route", "method", "status")
        self.request_seconds = Histogram(
            "inferq_http_request_seconds", "From a request to the end of its answer.", "route", bounds=REQUEST_SECONDS
        )
        self.missed = Counter("inferq_events_dropped", "Events that a listener wanted and retention had removed.")
        self.dropped = Counter("inferq_readers_dropped", "Readers of streams and sockets that took nothing for too long.")
        self._hearers: Mapping[type, Callable[..., None]] = {
            TaskSubmitted: self._on_submitted,
            TaskStarted: self._on_started,
            TaskCompleted: self._on_completed,
            TaskFailed: self._on_failed,
            TaskCancelled: self._on_cancelled,
            TaskRetrying: self._on_retrying,
            TaskReleased: lambda event: self._attempt(event, "released", event.code or ""),
            TaskRescued: self._on_rescued,
            TaskRetried: lambda _: self.retried.add(),
            PriorityChanged: lambda _: self.moved.add(),
            ScheduleFired: self._on_fired,
            ScheduleSkipped: lambda _: self.fires.add("skipped"),
            WebhookDelivered: lambda _: self.deliveries.add("delivered"),
            WebhookFailed: lambda _: self.deliveries.add("failed"),
            BatchFinished: lambda _: self.batches.add(),
            BackendChanged: lambda event: self.backend_changes.add(self._backends.of(event.backend), event.state),
        }

    def hear(self, event: Event) -> None:
        """Count an event."""
        hearer = self._hearers.get(type(event))
        if hearer is not None:
            hearer(event)

    def request(self, method: str, route: str, status: int, took: float) -> None:
        """Count an HTTP request; `route` is the route's own text, never a path with ids."""
        self.requests.add(route, method if method in METHODS else "other", str(status))
        self.request_seconds.add(took, route)

    def counters(self) -> Iterator[Counter]:
        return (found for found in vars(self).values() if isinstance(found, Counter))

    def histograms(self) -> Iterator[Histogram]:
        return (found for found in vars(self).values() if isinstance(found, Histogram))

    def _of(self, lane: str) -> tuple[str, str]:
        known = self._lanes.get(lane)
        if known is None:
            executor, model, _ = lane_parts(lane)
            known = (self._executors.of(executor), self._models.of(model))
            if len(self._lanes) < 10 * MOST_NAMES:
                self._lanes[lane] = known
        return known

    def _on_submitted(self, event: TaskSubmitted) -> None:
        executor, model = self._of(event.lane)
        source = "batch" if event.batch_id else "schedule" if event.schedule else "webhook" if executor == "webhook" else "submit"
        self.submitted.add(executor, model, source)

    def _on_started(self, event: TaskStarted) -> None:
        self.started.add(*self._of(event.lane))

    def _attempt(self, event: TaskCancelled | TaskFailed | TaskReleased | TaskRescued | TaskRetrying, outcome: str, code: str = "") -> None:
        self.attempts.add(self._backends.of(event.backend or ""), self._of(event.lane)[1], outcome, code)

    def _on_retrying(self, event: TaskRetrying) -> None:
        self.retries.add(event.code or "internal")
        self._attempt(event, "retry", event.code or "internal")

    def _on_rescued(self, event: TaskRescued) -> None:
        self.rescued.add()
        self._attempt(event, "lost", "lost")

    def _on_completed(self, event: TaskCompleted) -> None:
        executor, model = self._of(event.lane)
        backend = self._backends.of(event.backend or executor)
        self.finished.add(executor, backend, model, "completed")
        self.attempts.add(backend, model, "completed", "")
        priority = self._priorities.of(str(event.priority))
        waited, ran = event.waited_ms / 1000, event.ran_ms / 1000
        self.waited.add(waited, backend, model, priority)
        self.ran.add(ran, backend, model, priority)
        self.total.add(waited + ran, backend, model, priority)
        if event.first_ms is not None:
            self.first.add(event.first_ms / 1000, backend, model)
            if event.ran_ms > event.first_ms and (event.output_tokens or 0) > 1:
                self.rate.add(((event.output_tokens or 0) - 1) * 1000 / (event.ran_ms - event.first_ms), backend, model)
        if event.estimate is not None:
            self._count_tokens(event, backend, model, event.estimate)

    def _count_tokens(self, event: TaskCompleted, backend: str, model: str, estimate: int) -> None:
        counted = {
            "input": event.input_tokens,
            "output": event.output_tokens,
            "cached": event.cached_tokens,
            "reasoning": event.reasoning_tokens,
        }
        for direction, count in counted.items():
            if count:
                self.tokens.add(backend, model, direction, by=count)
        real = (event.input_tokens or 0) + (event.output_tokens or 0)
        if real > 0:
            self.misjudged.add(abs(estimate - real) / real, model, "over" if estimate >= real else "under")

    def _on_failed(self, event: TaskFailed) -> None:
        executor, model = self._of(event.lane)
        code = event.code or "internal"
        self.finished.add(executor, self._backends.of(event.backend or ""), model, "failed")
        self.failures.add(code)
        if event.backend is not None:
            self._attempt(event, "lost" if code == "lost" else "failed", code)

    def _on_cancelled(self, event: TaskCancelled) -> None:
        executor, model = self._of(event.lane)
        self.finished.add(executor, self._backends.of(event.backend or ""), model, "cancelled")
        if event.backend is not None:
            self._attempt(event, "cancelled")

    def _on_fired(self, event: ScheduleFired) -> None:
        self.fires.add("fired")
        self.lag.add(max(0.0, (event.at - event.fire) / 1000))


class Gauge(msgspec.Struct, frozen=True):
    """A number as it is now, for each combination of labels."""

    name: str
    help: str
    labels: Labels
    values: Mapping[Labels, float]
