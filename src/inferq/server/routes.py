"""Every route of the server, one module an area."""

from __future__ import annotations

from typing import Final

from inferq.server import backends, batches, keys, live, openapi, operations, operators, page, schedules, stats, store, tasks, webhooks
from inferq.server.route import Route

ROUTES: Final[list[Route]] = [
    *tasks.ROUTES,
    *keys.ROUTES,
    *live.ROUTES,
    *stats.ROUTES,
    *store.ROUTES,
    *operators.ROUTES,
    *operations.ROUTES,
    *page.ROUTES,
    *openapi.ROUTES,
    *schedules.ROUTES,
    *backends.ROUTES,
    *webhooks.ROUTES,
    *batches.ROUTES,
]
