"""One log line for each request, where `server.access_log` asks for it: who, which route, how it ended.

Never a query, a header, a body or a path as it came: people put everything everywhere.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inferq.server.call import Call

log: Final = logging.getLogger("inferq.access")

_PROBES: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


_ID: Final = re.compile(r"[0-9a-f-]{8,36}")


def note(method: str, place: str, status: int, seconds: float, request_id: str, call: Call | None) -> None:
    """Write the line. `place` is the route, empty where none was found; probes are left out."""
    if place in _PROBES or not log.isEnabledFor(logging.INFO):
        return
    principal = None if call is None else call.principal
    told = {
        "event": "http.request",
        "method": method,
        "route": place,
        "status": status,
        "duration_s": round(seconds, 6),
        "request_id": request_id,
        "key_id": "" if principal is None else principal.id,
        "task_id": _task_id(place, call),
    }
    log.info("%s %s %d", method, place or "-", status, extra=told)


def _task_id(place: str, call: Call | None) -> str:
    given = call.path.get("id", "") if call is not None and place.startswith("/api/tasks/{id}") else ""
    return given if _ID.fullmatch(given) else ""
