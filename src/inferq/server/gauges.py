"""The numbers that stand now, asked when somebody looks: tasks by state, backends, followers, the store, the event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import inferq
from inferq.metrics import MOST_NAMES, MOST_PRIORITIES, Gauge, Labels
from inferq.query import Search
from inferq.task import PRIORITIES

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
    batches = await app.queue.store.batch_counts()
    return [
        *_backends(await app.queue.backends.list()),
        Gauge(
            "inferq_build_info", "The version that runs.", ("version", "store"), {(inferq.__version__, store.url.partition(":")[0]): 1.0}
        ),
        Gauge("inferq_tasks", "Tasks by state.", ("state",), {(state,): float(number) for state, number in counts.states.items()}),
        Gauge("inferq_waiting_tasks", "Pending tasks by priority.", ("priority",), waiting),
        Gauge("inferq_oldest_waiting_seconds", "Age of the oldest waiting task.", ("priority",), oldest),
        Gauge("inferq_batches", "Batches by state.", ("state",), {(str(state),): float(number) for state, number in batches.items()}),
        Gauge("inferq_workers_active", "Tasks that run, in all processes.", (), {(): float(stats.workers_active)}),
        Gauge("inferq_workers_idle", "Free slots of this process.", (), {(): float(stats.workers_idle)}),
        Gauge("inferq_paused_scopes", "Scopes in which no task starts.", (), {(): float(len(stats.paused))}),
        Gauge("inferq_store_bytes", "Size of the store's files.", (), {(): float(store.file_bytes + store.wal_bytes)}),
        Gauge("inferq_store_disk_bytes", "Size of the disk that the store is on; 0 on none.", (), {(): float(store.disk_bytes)}),
        Gauge("inferq_store_disk_free_bytes", "What is free of it.", (), {(): float(store.disk_free_bytes)}),
        Gauge("inferq_store_instances", "Processes that have the store open.", (), {(): float(store.instances)}),
        Gauge("inferq_ws_clients", "Open WebSockets.", (), {(): float(app.sockets)}),
        Gauge("inferq_event_followers", "Followers of the event log.", (), {(): float(broadcast.listeners if broadcast else 0)}),
        Gauge("inferq_event_loop_lag_seconds", "How late the event loop came to its last second.", (), {(): app.lag}),
        Gauge("inferq_uptime_seconds", "How long this server runs.", (), {(): time.monotonic() - app.began}),
    ]


async def _oldest(app: App) -> dict[Labels, float]:
    """By priority, from the heads alone: each flow is first in, first out. Zero where nothing waits."""
    heads, _ = await app.queue.store.heads()
    first: dict[int, int] = {}
    for head in heads:
        first[head.key.priority] = min(head.seq, first.get(head.key.priority, head.seq))
    found: dict[Labels, float] = {(str(priority),): 0.0 for priority in PRIORITIES.values()}
    now = time.time()
    for priority, seq in sorted(first.items(), reverse=True)[:MOST_PRIORITIES]:
        page = await app.queue.store.find(Search(), after=seq + 1, limit=1)
        if page.tasks and page.tasks[0].seq == seq:
            task = page.tasks[0]
            found[(str(priority),)] = max(0.0, now - max(task.created, task.spec.scheduled_at or 0) / 1000)
    return found


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
