"""Counts what happens, from events: numbers with bounded labels that a face may show. Knows no format and no library.

Every process that follows a store's log sees all its events, its own and others': counters are the store's, since this process began.
"""

from __future__ import annotations

from bisect import bisect_left
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

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
REQUEST_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
MOST_NAMES: Final = 100
"""Names of models (backends, webhooks…) that keep a label of their own; what comes after them is `other`."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Labels = tuple[str, ...]


class Counter:
    """A number that grows, for each combination of labels."""

    __slots__ = ("help", "labels", "name", "values")

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by


class Histogram:
    """How often a measure fell under each bound, for each combination of labels."""

    __slots__ = ("bounds", "counts", "help", "labels", "name", "sums")

    def __init__(self, name: str, help: str, *labels: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name, self.help, self.labels, self.bounds = name, help, labels, bounds
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def add(self, value: float, *labels: str) -> None:
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def cumulated(self, labels: Labels) -> list[tuple[float, int]]:
        """(bound, number of measures up to it); the last bound is infinite."""
        total, found = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts[labels], strict=True):
            total += count
            found.append((bound, total))
        return found


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
            return "other"
        self._seen.add(name)
        return name


class Metrics:
    """Feed it every event with `hear`; read `counters` and `histograms`."""

    def __init__(self) -> None:
        self._lanes: dict[str, tuple[str, str]] = {}
        self._executors, self._models, self._backends = Names(), Names(), Names()
        self.submitted = Counter("inferq_tasks_submitted", "Tasks that were kept.", "executor", "model")
        self.finished = Counter("inferq_tasks_finished", "Tasks that ended.", "executor", "model", "outcome")
        self.failures = Counter("inferq_failures", "Tasks that failed for good, by code.", "code")
        self.attempts = Counter("inferq_attempts", "Attempts that began.", "executor", "model")
        self.retries = Counter("inferq_retries", "Attempts that failed and are made again, by code.", "code")
        self.released = Counter("inferq_released_attempts", "Attempts handed back without burning a retry, by code.", "code")
        self.rescued = Counter("inferq_recovered_tasks", "Tasks taken back from workers that vanished.")
        self.retried = Counter("inferq_tasks_retried", "Ended tasks that somebody asked to make again.")
        self.moved = Counter("inferq_priority_changes", "Waiting tasks that were moved to another priority.")
        self.tokens = Counter("inferq_tokens", "Tokens as backends counted them.", "backend", "model", "direction")
        self.waited = Histogram(
            "inferq_task_wait_seconds", "From submit to the last attempt's start, of completed tasks.", "executor", "model"
        )
        self.ran = Histogram(
            "inferq_task_run_seconds", "From the last attempt's start to its end, of completed tasks.", "executor", "model"
        )
        self.total = Histogram("inferq_task_total_seconds", "From submit to the end, of completed tasks.", "executor", "model")
        self.fires = Counter("inferq_cron_fires", "Fires of schedules.", "outcome")
        self.lag = Histogram("inferq_cron_lag_seconds", "From a fire's nominal time to its task.")
        self.deliveries = Counter("inferq_webhook_deliveries", "Webhook deliveries that ended.", "outcome")
        self.batches = Counter("inferq_batches_finished", "Batches whose last task ended.")
        self.backend_changes = Counter("inferq_backend_changes", "Changes of a backend's state.", "backend", "state")
        self.requests = Counter("inferq_http_requests", "HTTP requests that were answered.", "route", "method", "status")
        self.request_seconds = Histogram(
            "inferq_http_request_seconds", "From a request to the end of its answer.", "route", bounds=REQUEST_SECONDS
        )
        self.dropped = Counter("inferq_readers_dropped", "Readers of streams and sockets that took nothing for too long.")
        self._hearers: Mapping[type, Callable[..., None]] = {
            TaskSubmitted: self._on_submitted,
            TaskStarted: self._on_started,
            TaskCompleted: self._on_completed,
            TaskFailed: self._on_failed,
            TaskCancelled: self._on_cancelled,
            TaskRetrying: lambda event: self.retries.add(event.code or "internal"),
            TaskReleased: lambda event: self.released.add(event.code or "none"),
            TaskRescued: lambda _: self.rescued.add(),
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
        self.submitted.add(*self._of(event.lane))

    def _on_started(self, event: TaskStarted) -> None:
        self.attempts.add(*self._of(event.lane))

    def _on_completed(self, event: TaskCompleted) -> None:
        executor, model = self._of(event.lane)
        self.finished.add(executor, model, "completed")
        waited, ran = event.waited_ms / 1000, event.ran_ms / 1000
        self.waited.add(waited, executor, model)
        self.ran.add(ran, executor, model)
        self.total.add(waited + ran, executor, model)
        backend = self._backends.of(event.backend or executor)
        for direction, count in (("input", event.input_tokens), ("output", event.output_tokens)):
            if count:
                self.tokens.add(backend, model, direction, by=count)

    def _on_failed(self, event: TaskFailed) -> None:
        self.finished.add(*self._of(event.lane), "failed")
        self.failures.add(event.code or "internal")

    def _on_cancelled(self, event: TaskCancelled) -> None:
        self.finished.add(*self._of(event.lane), "cancelled")

    def _on_fired(self, event: ScheduleFired) -> None:
        self.fires.add("fired")
        self.lag.add(max(0.0, (event.at - event.fire) / 1000))


class Gauge(msgspec.Struct, frozen=True):
    """A number as it is now, for each combination of labels."""

    name: str
    help: str
    labels: Labels
    values: Mapping[Labels, float]
