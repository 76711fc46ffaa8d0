"""For those who run it: is it alive, is it ready, what are its numbers. Backends are no part of readiness: a dead GPU must not take the
queue away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import require_everything
from inferq.errors import InferqError
from inferq.server.call import Call, Reply, Text
from inferq.server.gauges import gauges
from inferq.server.prometheus import CONTENT_TYPE, exposition
from inferq.server.route import Plain, Route, route
from inferq.task import DRAIN
from inferq.wire.native import Health

if TYPE_CHECKING:
    from inferq.server.app import App

_PATIENCE: Final = 5.0
"""Seconds that the store has to answer before it counts as unusable."""


class VerboseQuery(msgspec.Struct, forbid_unknown_fields=True):
    verbose: Annotated[str, Meta(description="Show what was checked, too.")] | None = None


@route("GET", "/livez", role="read", open=True, query=VerboseQuery, returns={200: Health}, tag="operators")
async def livez(call: Call) -> Reply:
    """Say that the process is alive. Asks nothing else: a restart would not help what it depends on."""
    return Reply(Health("ok", {"process": "ok"} if _is_verbose(call) else {}), 200, _UNCACHED)


@route("GET", "/readyz", role="read", open=True, query=VerboseQuery, returns={200: Health, 503: Health}, tag="operators")
async def readyz(call: Call) -> Reply:
    """Say whether work should be sent here: the store answers, the queue is not drained and the server is not about to stop. 503 with
    reasons when not."""
    return await _ready(call)


@route("GET", "/healthz", role="read", open=True, query=VerboseQuery, returns={200: Health, 503: Health}, tag="operators")
async def healthz(call: Call) -> Reply:
    """The same as /readyz, under its older name."""
    return await _ready(call)


async def _ready(call: Call) -> Reply:
    app = call.app
    store, drained = await _store(app)
    checks = {
        "store": store,
        "draining": "the queue is drained: no task starts until `inferq resume`" if drained else "ok",
        "stopping": "the server is about to stop" if app.draining else "ok",
    }
    good = all(said == "ok" for said in checks.values())
    return Reply(Health("ok" if good else "not ready", checks if _is_verbose(call) or not good else {}), 200 if good else 503, _UNCACHED)


async def _store(app: App) -> tuple[str, bool]:
    """What is wrong with the store, or "ok", and whether the queue is drained."""
    try:
        async with asyncio.timeout(_PATIENCE):
            paused = await app.queue.store.paused()
    except TimeoutError:
        return f"the store did not answer within {_PATIENCE:g} s", False
    except InferqError as error:
        # Its code only: the question is open to everybody, and texts may name paths.
        return f"the store cannot be used: {error.code}", False
    return "ok", DRAIN in paused


def _is_verbose(call: Call) -> bool:
    return call.query.verbose is not None and call.query.verbose not in ("0", "false")


@route("GET", "/metrics", role="read", returns={200: Plain(CONTENT_TYPE)}, tag="operators")
async def metrics(call: Call) -> Reply:
    """Give the numbers in Prometheus' text format. They name every tenant's models, so a tenant's key is refused."""
    require_everything(call.principal)
    return Reply(Text(exposition(call.app.metrics, await gauges(call.app), call.queue.store.spent()), CONTENT_TYPE), 200, _UNCACHED)


_UNCACHED: Final = {"cache-control": "no-store"}
ROUTES: Final[list[Route]] = [livez, readyz, healthz, metrics]
