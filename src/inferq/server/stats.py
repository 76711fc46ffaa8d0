"""The queue's numbers over HTTP, under our names and the forerunners'; what can run here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

import inferq
from inferq.access import LOCAL, Principal
from inferq.errors import UnknownExecutor
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.wire.native import ExecutorView, Listing, StatsView, StatusView

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue
    from inferq.server.app import App


async def stats_view(app: App, principal: Principal = LOCAL) -> StatsView:
    """From maintained counters: it costs the same for one task or a million. Lanes name models: a tenant is not told those of others."""
    stats = await app.queue.stats()
    by_priority = {str(priority): number for priority, number in sorted(stats.pending_by_priority.items(), reverse=True)}
    states = stats.states
    return StatsView(
        states=states,
        total=stats.total,
        pending_by_priority=by_priority,
        pending_by_lane=stats.pending_by_lane if principal.tenant is None else {},
        workers_active=stats.workers_active,
        workers_idle=stats.workers_idle,
        paused=stats.paused,
        pending_tasks=states["pending"],
        running_tasks=states["running"],
        completed_tasks=states["completed"],
        failed_tasks=states["failed"],
        cancelled_tasks=states["cancelled"],
        scheduled_tasks=states["scheduled"],
        total_tasks=stats.total,
        queues_by_priority=by_priority,
        executed_local=stats.executed_local,
        executed_remote=stats.executed_remote,
        draining=stats.draining,
    )


@route("GET", "/api/stats", role="read", returns={200: StatsView})
async def stats(call: Call) -> Reply:
    """Give the queue's numbers."""
    return Reply(await stats_view(call.app, call.principal))


@route("GET", "/api/status", role="read", returns={200: StatusView})
async def status(call: Call) -> Reply:
    """Give the queue's numbers, and what this server is: version, store, how long it runs."""
    app = call.app
    numbers = msgspec.structs.asdict(await stats_view(app, call.principal))
    numbers["draining"] = numbers["draining"] or app.draining
    store = await app.queue.store_stats()
    view = StatusView(
        **numbers,
        version=inferq.__version__,
        instance=app.queue.store.instance,
        uptime=round(time.monotonic() - app.began, 3),
        durability=store.durability,
        store_bytes=store.file_bytes + store.wal_bytes,
        instances=store.instances,
        last_event=store.last_event,
    )
    return Reply(view)


@route("GET", "/api/executors", role="read", returns={200: Listing[ExecutorView]})
async def executors(call: Call) -> Reply:
    """List the executors that are configured here, with the actions they know."""
    return Reply(Listing(executor_views(call.queue)))


@route("GET", "/api/executors/{name}", role="read", returns={200: ExecutorView}, errors=(UnknownExecutor,))
async def executor(call: Call) -> Reply:
    """Show an executor."""
    name = call.path["name"]
    for view in executor_views(call.queue):
        if view.name == name:
            return Reply(view)
    raise UnknownExecutor(f"expected the name of an executor that is configured here (see /api/executors), got {name!r}")


def executor_views(queue: AsyncQueue) -> list[ExecutorView]:
    """One for each executor, with the backends that use it."""
    found: dict[str, ExecutorView] = {}
    for backend in queue.places():
        view = found.get(backend.kind)
        if view is None:
            kind = type(backend.executor)
            required = {action: list(fields) for action, fields in kind.required.items()}
            view = ExecutorView(backend.kind, list(kind.actions), kind.description, kind.needs_model, required, [])
            found[backend.kind] = view
        view.backends.append(backend.name)
    return sorted(found.values(), key=lambda view: view.name)


ROUTES: Final[list[Route]] = [stats, status, executors, executor]
