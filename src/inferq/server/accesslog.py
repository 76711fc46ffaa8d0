"""One log line for each request, where `server.access_log` asks for it: who, what, how it ended. Never a query, a header or a body."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inferq.server.call import Call

log: Final = logging.getLogger("inferq.access")

_PROBES: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


def note(method: str, path: str, place: str, status: int, seconds: float, request_id: str, call: Call | None) -> None:
    """Write the line. `place` is the route's path, empty where none was found; probes are left out."""
    if place in _PROBES or not log.isEnabledFor(logging.INFO):
        return
    principal = None if call is None else call.principal
    told = {
        "event": "http.request",
        "method": method,
        "path": path,
        "route": place,
        "status": status,
        "duration_s": round(seconds, 6),
        "request_id": request_id,
        "key_id": "" if principal is None else principal.id,
        "task_id": "" if call is None or not place.startswith("/api/tasks/{id}") else call.path.get("id", ""),
    }
    log.info("%s %s %d", method, path, status, extra=told)
