"""The audit log inside a write transaction, bounded where it is written; and the question for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from inferq.access import AuditEntry
from inferq.clock import Now
from inferq.errors import InferqError
from inferq.stores.sqlite.statements import SQL
from inferq.stores.sqlite.transaction import Transaction

AuditCall = tuple[Sequence[AuditEntry], Now, float, int]
_BITE = 50

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


def add(tx: Transaction, calls: Sequence[AuditCall]) -> list[InferqError | None]:
    for entries, now, age, count in calls:
        for e in entries:
            row = (now.wall, e.who, e.key, e.tenant, e.method, e.route, _encode(e.targets).decode(), e.status, e.code, e.request)
            newest = tx.execute(SQL["add_audit"], row).lastrowid or 0
            tx.execute(SQL["drop_audit"], (newest - count,))
        tx.execute(SQL["expire_audit"], (_BITE, now.wall - round(age * 1000)))
    return [None] * len(calls)


def read(db: sqlite3.Connection, before: int | None, limit: int) -> list[AuditEntry]:
    rows = db.execute(SQL["audit_before"], (2**63 - 1 if before is None else before, limit))
    return [
        AuditEntry(
            number=number,
            at=at,
            who=who,
            key=key,
            tenant=tenant,
            method=method,
            route=route,
            targets=_decode(targets),
            status=status,
            code=code,
            request=request,
        )
        for number, at, who, key, tenant, method, route, targets, status, code, request in rows
    ]
