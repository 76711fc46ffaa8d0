"""Writes state-changing calls to the audit log: who, what, on which things, how it ended. Never payloads."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from inferq.access import LOCAL, AuditEntry
from inferq.errors import InferqError, StoreError
from inferq.server.call import Call, Reply

log: Final = logging.getLogger("inferq.audit")

_MOST_TARGETS: Final = 20
_LONGEST: Final = 200
_SUBMIT: Final = ("POST", "/api/tasks")


async def note(call: Call, ended: Reply | BaseException) -> None:
    """Write one call. What only adds tasks is not waited for: its entry shares a commit with others' work."""
    adds = (call.route.method, call.route.path) == _SUBMIT
    if adds and call.principal is LOCAL:
        # Nobody to name: without keys everybody is the same, and the tasks themselves are on record.
        return
    entry = _entry(call, ended)
    if adds:
        call.queue.keep(asyncio.create_task(_write(call, entry)))
    else:
        await _write(call, entry)


async def _write(call: Call, entry: AuditEntry) -> None:
    try:
        await call.queue.keys.add_audit(entry)
    except StoreError as error:
        # The call itself has ended already: its answer must not depend on the log.
        log.warning("audit.not_written", extra={"error": str(error), "request_id": call.request_id})


def _entry(call: Call, ended: Reply | BaseException) -> AuditEntry:
    principal = call.principal
    if isinstance(ended, Reply):
        status, code = ended.status, None
    else:
        status, code = (ended.status, ended.code) if isinstance(ended, InferqError) else (500, "internal")
    return AuditEntry(
        who=principal.name,
        key=principal.id,
        tenant=principal.tenant,
        method=call.route.method,
        route=call.route.path,
        targets=_targets(call, ended.value if isinstance(ended, Reply) else None),
        status=status,
        code=code,
        request=call.request_id,
    )


def _targets(call: Call, value: Any) -> tuple[str, ...]:
    """Names in the path, ids in the answer."""
    found = list(call.path.values())
    things = getattr(value, "items", None)
    for thing in things if isinstance(things, list) else [getattr(value, "key", value)]:
        id = getattr(thing, "id", None)
        if isinstance(id, str) and id not in found:
            found.append(id)
        if len(found) == _MOST_TARGETS:
            break
    return tuple(text[:_LONGEST] for text in found)
