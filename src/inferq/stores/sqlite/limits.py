"""Tenants with limits: read from their records, judged inside the transaction over the tasks of all processes.

A tenant whose running tasks reach its concurrency is *full*. Its flows are told to those who choose as if they were empty, so that it
holds up nobody else, and told again when one of its tasks ends. Where no tenant has limits none of this is ever looked at.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from inferq.access import TENANT, TenantLimits, tenant_at
from inferq.errors import RateLimited
from inferq.events import Event, RecordChanged
from inferq.stores.sqlite.statements import SQL, within
from inferq.stores.sqlite.transaction import Flow, Known, Transaction, head_of
from inferq.task import FlowKey, Head, NewTask
from inferq.webhook import LANES

log: Final = logging.getLogger("inferq.store")

_decode = msgspec.json.Decoder(TenantLimits, strict=False).decode


def concern(events: Iterable[Event]) -> bool:
    """Whether one of these events changed a tenant's limits."""
    return any(type(event) is RecordChanged and event.kind == TENANT for event in events)


def read(db: sqlite3.Connection) -> dict[str, TenantLimits]:
    """Every tenant's limits. One that cannot be read is left out and told of: a damaged record must not stop the queue."""
    found: dict[str, TenantLimits] = {}
    for _, tenant, _, body, _, _ in db.execute(SQL["records"], (TENANT, "", -1)):
        try:
            found[tenant_at(tenant)] = _decode(body)
        except msgspec.DecodeError as error:
            log.warning("store.limits_unreadable", extra={"tenant": tenant, "error": str(error)})
    return found


def counts(key: FlowKey) -> bool:
    """Whether tasks of a flow count as their tenant's. Messages of webhooks are the queue's own, and nobody's work waits for them."""
    return not key.lane.startswith(LANES)


def running(db: sqlite3.Connection) -> Counter[str]:
    """How many tasks of each tenant run, in any process: a walk over the index of the running ones."""
    return Counter(tenant for (tenant,) in db.execute(SQL["running_tenants"]))


def full(db: sqlite3.Connection, limits: Mapping[str, TenantLimits]) -> frozenset[str]:
    """Tenants that may not have another task running now."""
    bounds = {tenant: mine.concurrency for tenant, mine in limits.items() if mine.concurrency is not None}
    if not bounds:
        return frozenset()
    now = running(db)
    return frozenset(tenant for tenant, bound in bounds.items() if now[tenant] >= bound)


def refresh(db: sqlite3.Connection, known: Known, *, reread: bool) -> frozenset[str]:
    """Look again who is full; returns the tenants for whom that changed."""
    if reread:
        known.limits = read(db)
    before = known.full
    known.full = full(db, known.limits)
    return known.full ^ before


def told(known: Known, changed: Iterable[Flow], shifted: frozenset[str]) -> list[Head]:
    """Heads for those who choose: the flows that changed and those of tenants that became full or free; a full one's are empty."""
    if not shifted and not known.full:
        return [head_of(flow) for flow in changed]
    flows = {flow.id: flow for flow in changed}
    for tenant in shifted:
        flows.update((number, known.flows[number]) for number in known.tenants.get(tenant, ()))
    return [shown(head_of(flow), known.full) for flow in flows.values()]


def shown(head: Head, hidden: frozenset[str]) -> Head:
    """The head, or that of an empty flow where its tenant is full."""
    return Head(head.flow, head.key, 0, 0) if head.key.tenant in hidden and counts(head.key) else head


class Room:
    """How many more tasks of each tenant may begin in this transaction."""

    __slots__ = ("_left", "_tx")

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._left: dict[str, int] | None = None
        """Counted when the first task of a limited tenant is about to begin."""

    def left(self, key: FlowKey) -> int | None:
        """Of the tenant of that flow; None where there is no limit."""
        tenant = key.tenant
        limits = self._tx.known.limits.get(tenant) if counts(key) else None
        if limits is None or limits.concurrency is None:
            return None
        if self._left is None:
            now = running(self._tx.db)
            self._left = {
                name: max(0, bound.concurrency - now[name])
                for name, bound in self._tx.known.limits.items()
                if bound.concurrency is not None
            }
        return self._left.get(tenant, 0)

    def take(self, key: FlowKey, count: int) -> None:
        """They have begun."""
        if self._left is not None and key.tenant in self._left and counts(key):
            self._left[key.tenant] -= count


def check_room(tx: Transaction, fresh: Sequence[NewTask]) -> None:
    """Raises RateLimited where more of a tenant's tasks would wait than may; everything added before must be written by now."""
    for tenant, count in Counter(task.flow.tenant for task in fresh if counts(task.flow)).items():
        limits = tx.known.limits.get(tenant)
        if limits is None or limits.max_queued is None:
            continue
        waiting = _waiting(tx, tenant)
        if waiting + count > limits.max_queued:
            raise RateLimited(
                f"expected room for {count} more, but {waiting} of at most {limits.max_queued} tasks of {_called(tenant)} wait; "
                "try again when some have run"
            )


def _called(tenant: str) -> str:
    return f"tenant {tenant!r}" if tenant else "the default account"


def _waiting(tx: Transaction, tenant: str) -> int:
    known = [number for number in tx.known.tenants.get(tenant, ()) if counts(tx.known.flows[number].key)]
    return _waiting_in(tx, [*known, *(number for key, number in tx.new_ids.items() if key.tenant == tenant and counts(key))])


def waiting_deliveries(tx: Transaction) -> int:
    """Messages of webhooks that wait: a receiver that is down must not fill the queue for others. Asked only where it is full."""
    return _waiting_in(tx, [number for number, flow in tx.known.flows.items() if flow.key.lane.startswith(LANES)])


def _waiting_in(tx: Transaction, numbers: Sequence[int]) -> int:
    if not numbers:
        return 0
    flows = (tx.flows.get(number) or tx.known.flows[number] for number in numbers)
    scheduled: int = tx.execute(*_scheduled(numbers)).fetchone()[0]
    return sum(flow.length for flow in flows) + scheduled


def _scheduled(flows: Sequence[int]) -> tuple[str, list[int]]:
    statement, values = within("scheduled_in", flows)
    return statement, values
