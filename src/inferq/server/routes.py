"""Every route of the server, one module an area."""

from __future__ import annotations

from typing import Final

from inferq.server import keys, live, operators, page, schedules, stats, tasks
from inferq.server.route import Route

ROUTES: Final[list[Route]] = [
    *tasks.ROUTES,
    *keys.ROUTES,
    *live.ROUTES,
    *stats.ROUTES,
    *operators.ROUTES,
    *page.ROUTES,
    *schedules.ROUTES,
]
