"""Records inside a write transaction: put and drop with their versions, and events that belong to no transition."""

from __future__ import annotations

from collections.abc import Sequence

from inferq.access import TENANT
from inferq.clock import Now
from inferq.errors import InferqError, StaleRecord
from inferq.events import Event, RecordChanged
from inferq.store import Record, RecordPut
from inferq.stores.sqlite.statements import SQL
from inferq.stores.sqlite.transaction import Transaction

PutCall = tuple[RecordPut, Now, Sequence[Event]]


def put(tx: Transaction, calls: Sequence[PutCall]) -> list[Record | InferqError]:
    replies: list[Record | InferqError] = []
    for given, now, told in calls:
        try:
            replies.append(put_one(tx, given, now))
            tell_one(tx, told, now)
        except StaleRecord as error:
            replies.append(error)
    return replies


def put_one(tx: Transaction, given: RecordPut, now: Now) -> Record:
    """Raises StaleRecord, and then nothing was written."""
    before = _find(tx, given.kind, given.id)
    version = before.version if before else 0
    if given.version is not None and given.version != version:
        raise _stale(given.kind, given.id, given.version, version)
    if before is None:
        # Past every version that a dropped record of this kind had: who still holds one of those must not win against this one.
        row = tx.execute(SQL["record_floor"], (given.kind,)).fetchone()
        version = row[0] if row else 0
    record = Record(given.kind, given.id, version + 1, given.body, before.created if before else now.wall, now.wall)
    tx.execute(SQL["put_record"], (record.kind, record.id, record.version, record.body, record.created, record.updated))
    if not given.quiet:
        tx.events.append(RecordChanged(0, now.wall, record.kind, record.id, record.version))
    tx.relimited = tx.relimited or given.kind == TENANT
    return record


DropCall = tuple[str, str, Now, int | None, bool]


def drop(tx: Transaction, calls: Sequence[DropCall]) -> list[bool | InferqError]:
    replies: list[bool | InferqError] = []
    for kind, id, now, version, quiet in calls:
        before = _find(tx, kind, id)
        if before is None:
            replies.append(False)
        elif version is not None and version != before.version:
            replies.append(_stale(kind, id, version, before.version))
        else:
            tx.execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind, id))
            if not quiet:
                tx.events.append(RecordChanged(0, now.wall, kind, id, before.version, dropped=True))
            tx.relimited = tx.relimited or kind == TENANT
            replies.append(True)
    return replies


TellCall = tuple[Sequence[Event], Now]


def tell(tx: Transaction, calls: Sequence[TellCall]) -> list[InferqError | None]:
    for events, now in calls:
        tell_one(tx, events, now)
    return [None] * len(calls)


def tell_one(tx: Transaction, events: Sequence[Event], now: Now) -> None:
    """Write these events with whatever else this transaction does."""
    for event in events:
        event.at = now.wall
        tx.events.append(event)


def _find(tx: Transaction, kind: str, id: str) -> Record | None:
    row = tx.execute(SQL["record"], (kind, id)).fetchone()
    return Record(*row) if row else None


def _stale(kind: str, id: str, wanted: int, found: int) -> StaleRecord:
    expected = f"at version {wanted}" if wanted else "to be new"
    came = f"at version {found}" if found else "not there"
    return StaleRecord(f"expected {kind} {id!r} {expected}, but it is {came}; read it again")
