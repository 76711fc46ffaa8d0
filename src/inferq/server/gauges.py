"""The numbers that stand now, asked when somebody looks: tasks by state, backends, followers, the store, the event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import inferq
from inferq.metrics import MOST_NAMES, Gauge, Labels
from inferq.query import Search

if TYPE_CHECKING:
    from inferq.backend import BackendInfo
    from inferq.server.app import App


async def gauges(app: App) -> list[Gauge]:
    """What is now; from maintained counters."""
    counts = await app.queue.store.counts()
    store = await app.queue.store_stats()
    stats = await app.queue.stats()
    waiting: dict[Labels, float] = {
        (str(priority),): float(number) for priority, number in sorted(counts.pending_by_priority.items())[:100]
    }
    broadcast = app.parts.get("broadcast")
    oldest = await _oldest(app)
    return [
        *_backends(await app.queue.backends.list()),
        Gauge(
            "inferq_build_info", "The version that runs.", ("version", "store"), {(inferq.__version__, store.url.partition(":")[0]): 1.0}
        ),
        Gauge("inferq_tasks", "Tasks by state.", ("state",), {(state,): float(number) for state, number in counts.states.items()}),
        Gauge("inferq_waiting_tasks", "Pending tasks by priority.", ("priority",), waiting),
        Gauge("inferq_oldest_waiting_seconds", "Age of the oldest task at the head of a flow.", (), {(): oldest}),
        Gauge("inferq_workers_active", "Tasks that run, in all processes.", (), {(): float(stats.workers_active)}),
        Gauge("inferq_workers_idle", "Free slots of this process.", (), {(): float(stats.workers_idle)}),
        Gauge("inferq_paused_scopes", "Scopes in which no task starts.", (), {(): float(len(stats.paused))}),
        Gauge("inferq_store_bytes", "Size of the store's files.", (), {(): float(store.file_bytes + store.wal_bytes)}),
        Gauge("inferq_store_instances", "Processes that have the store open.", (), {(): float(store.instances)}),
        Gauge("inferq_ws_clients", "Open WebSockets.", (), {(): float(app.sockets)}),
        Gauge("inferq_event_followers", "Followers of the event log.", (), {(): float(broadcast.listeners if broadcast else 0)}),
        Gauge("inferq_event_loop_lag_seconds", "How late the event loop came to its last second.", (), {(): app.lag}),
        Gauge("inferq_uptime_seconds", "How long this server runs.", (), {(): time.monotonic() - app.began}),
    ]


async def _oldest(app: App) -> float:
    """From the heads alone: each flow is first in, first out."""
    heads, _ = await app.queue.store.heads()
    if not heads:
        return 0.0
    first = min(head.seq for head in heads)
    page = await app.queue.store.find(Search(), after=first + 1, limit=1)
    if not page.tasks or page.tasks[0].seq != first:
        return 0.0
    task = page.tasks[0]
    return max(0.0, time.time() - max(task.created, task.spec.scheduled_at or 0) / 1000)


def _backends(found: list[BackendInfo]) -> list[Gauge]:
    shown = found[:MOST_NAMES]
    names: Labels = ("backend",)
    open_ = {(one.name, breaker.model): 1.0 for one in shown for breaker in one.breakers if breaker.open}
    return [
        Gauge("inferq_backend_up", "Whether a backend takes tasks.", names, {(one.name,): float(one.state == "up") for one in shown}),
        Gauge("inferq_backend_slots", "Tasks it runs at a time.", names, {(one.name,): float(one.slots) for one in shown if one.slots}),
        Gauge("inferq_backend_inflight", "Tasks it runs now.", names, {(one.name,): float(one.busy) for one in shown}),
        Gauge("inferq_backend_circuit_open", "Breakers that are open.", ("backend", "model"), dict(list(open_.items())[:MOST_NAMES])),
    ]
