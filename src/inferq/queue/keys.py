"""Keys in the store: made, listed, revoked and verified. Every process hears of a change, so that a revoked key is dead everywhere."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from inferq.access import (
    KEY,
    KEY_USED,
    TENANT,
    AuditEntry,
    Key,
    MadeKey,
    Principal,
    Role,
    StoredKey,
    TenantLimits,
    bearer_in,
    check_limits,
    describe_key,
    digest_of,
    id_in,
    limits_place,
    new_key,
    same_digest,
    tenant_at,
)
from inferq.clock import Clock
from inferq.config import RetentionSettings
from inferq.door.arguments import instant_of
from inferq.door.keys import KeysDoor
from inferq.errors import Conflict, RecordNotFound, StoreError, Unauthenticated
from inferq.events import Event, RecordChanged
from inferq.given import checked_priority
from inferq.handle import Duration
from inferq.store import Change, Record, RecordPut, Store

log: Final = logging.getLogger("inferq.keys")

_PAGE: Final = 1000
_USED_EVERY: Final = 60_000
"""Milliseconds for which a key's last use is not written again."""
_NOBODY: Final = digest_of("")
_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(StoredKey).decode
_decode_limits = msgspec.json.Decoder(TenantLimits).decode

_UNKNOWN: Final = "expected a valid key of this server in `Authorization: Bearer iq_…`; make one with `inferq keys create NAME`"


class LocalKeys(KeysDoor):
    """The keys of a store. What was read is kept until one changes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keep: RetentionSettings,
    ) -> None:
        self._store = store
        self._keep = keep
        self._clock = clock
        self._known: dict[str, StoredKey] | None = None
        self._changes = 0
        self._used: dict[str, int] = {}
        """When each key was last found in use; what is not written yet waits in `_unwritten`."""
        self._unwritten: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._making = asyncio.Lock()
        self._unlisten = store.listen(self._hear)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._unlisten()
        if self._writing is not None:
            self._writing.cancel()

    def _hear(self, change: Change) -> None:
        if any(_is_key(event) for event in change.events):
            self._known = None
            self._changes += 1

    async def _ring(self) -> dict[str, StoredKey]:
        known = self._known
        if known is None:
            before = self._changes
            known = {record.id: _decode_key(record.body) for record in await self._records(KEY)}
            if before == self._changes:
                self._known = known
        return known

    async def _records(self, kind: str) -> builtins.list[Record]:
        found: builtins.list[Record] = []
        while page := await self._store.records(kind, after=found[-1].id if found else "", limit=_PAGE):
            found += page
        return found

    # verifying -------------------------------------------------------------------------------------------------------

    async def configured(self) -> bool:
        """Whether there ever was a key that nobody has forgotten."""
        return bool(await self._ring())

    async def verify(self, text: str) -> Principal:
        """Whose key this is. Raises Unauthenticated, in the same words whatever is wrong with it."""
        stored = (await self._ring()).get(id_in(text) or "")
        # An unknown id costs the same comparison as a wrong secret.
        fits = same_digest(digest_of(text), stored.digest if stored is not None else _NOBODY)
        now = self._clock.read().wall
        if stored is None or not fits or stored.key.state(now) != "valid":
            raise Unauthenticated(_UNKNOWN)
        if not 0 <= now - self._used.get(stored.key.id, -_USED_EVERY) < _USED_EVERY:
            self._note_use(stored.key.id, now)
        return stored.key.principal

    def _note_use(self, id: str, now: int) -> None:
        """Beside the request that used it, once a minute and key at the most."""
        self._used[id] = self._unwritten[id] = now
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_uses(), name="inferq keys in use")

    async def _write_uses(self) -> None:
        while self._unwritten:
            unwritten, self._unwritten = self._unwritten, {}
            puts = [RecordPut(KEY_USED, id, b"%d" % at, quiet=True) for id, at in unwritten.items()]
            try:
                await asyncio.gather(*(self._store.put_record(put, self._clock.read()) for put in puts))
            except StoreError as error:
                # Whoever asks for the key's last use next is told of an older one: no request depends on it.
                log.warning("keys.use_not_written", extra={"error": str(error)})

    async def _with_use(self, keys: Iterable[Key]) -> builtins.list[Key]:
        uses = {record.id: int(record.body) for record in await self._records(KEY_USED)}
        for id, at in self._used.items():
            uses[id] = max(at, uses.get(id, at))
        return [msgspec.structs.replace(key, last_used=uses.get(key.id)) for key in keys]

    async def principal_of(self, headers: Mapping[str, str], *, keyless: Principal | None) -> Principal:
        """Who sends these headers (names in lower case). Raises Unauthenticated.

        While no key was ever made everybody is `keyless`, where that is given, whatever a client's SDK sends as its key.
        """
        if keyless is not None and not await self.configured():
            return keyless
        text = bearer_in(headers)
        if text is None:
            raise Unauthenticated(_UNKNOWN)
        return await self.verify(text)

    # keeping ---------------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        *,
        role: Role = "submit",
        tenant: str | None = None,
        max_priority: int | str | None = None,
        models: Sequence[str] = (),
        executors: Sequence[str] = (),
        expires: datetime | Duration | None = None,
    ) -> MadeKey:
        now = self._clock.read()
        made = new_key()
        key = describe_key(
            made,
            name,
            now.wall,
            role=role,
            tenant=tenant,
            max_priority=None if max_priority is None else checked_priority(max_priority),
            models=models,
            executors=executors,
            expires=instant_of(expires, "expires", self._clock),
        )
        async with self._making:
            await self._check_free(key)
            await self._store.put_record(RecordPut(KEY, key.id, _encode(StoredKey(made.digest, key)), version=0), now)
            self._known = None
            try:
                # Another process may have taken the name meanwhile: revoking it must not leave a key behind that works.
                await self._check_free(key)
            except Conflict:
                await self._store.drop_record(KEY, key.id, now)
                self._known = None
                raise
        return MadeKey(key, made.text)

    async def _check_free(self, key: Key) -> None:
        others = (stored.key for stored in (await self._ring()).values())
        if any(other.name == key.name and other.revoked is None and other.id != key.id for other in others):
            raise Conflict(f"expected a name that no key has, got {key.name!r}; revoke that key first, or choose another name")

    async def list(self) -> builtins.list[Key]:
        keys = sorted((stored.key for stored in (await self._ring()).values()), key=lambda key: (key.created, key.id))
        return await self._with_use(keys)

    async def get(self, key: str) -> Key:
        (found,) = await self._with_use([(await self._stored(key)).key])
        return found

    async def revoke(self, key: str, *, forget: bool = False) -> Key:
        stored, now = await self._stored(key), self._clock.read()
        ended = stored.key if stored.key.revoked is not None else msgspec.structs.replace(stored.key, revoked=now.wall)
        if forget:
            await self._store.drop_record(KEY, ended.id, now)
            await self._store.drop_record(KEY_USED, ended.id, now, quiet=True)
            self._used.pop(ended.id, None)
        elif ended is not stored.key:
            await self._store.put_record(RecordPut(KEY, ended.id, _encode(StoredKey(stored.digest, ended))), now)
        self._known = None
        return ended

    async def _stored(self, named: str) -> StoredKey:
        ring = await self._ring()
        found = ring.get(named)
        if found is not None:
            return found
        called = [stored for stored in ring.values() if stored.key.name == named]
        # Of several that had this name, one at most is not revoked.
        called.sort(key=lambda stored: (stored.key.revoked is None, stored.key.created))
        if not called:
            raise RecordNotFound(f"expected the id or name of a key, got {named!r}; `inferq keys list` shows them")
        return called[-1]

    # tenants ---------------------------------------------------------------------------------------------------------

    async def limits(self) -> dict[str, TenantLimits]:
        return {tenant_at(record.id): _decode_limits(record.body) for record in await self._records(TENANT)}

    async def set_limits(self, tenant: str, *, concurrency: int | None = None, max_queued: int | None = None) -> TenantLimits:
        limits, now = check_limits(tenant, TenantLimits(concurrency, max_queued)), self._clock.read()
        if limits == TenantLimits():
            await self._store.drop_record(TENANT, limits_place(tenant), now)
        else:
            await self._store.put_record(RecordPut(TENANT, limits_place(tenant), _encode(limits)), now)
        return limits

    # the audit log ---------------------------------------------------------------------------------------------------

    async def audit(self, *, before: int | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        return await self._store.audit(before=before, limit=limit)

    async def add_audit(self, *entries: AuditEntry) -> None:
        """Write to the audit log, within its bounds (`store.retention.audit_age`, `audit_count`)."""
        await self._store.add_audit(entries, self._clock.read(), age=self._keep.audit_age, count=self._keep.audit_count)


def _is_key(event: Event) -> bool:
    return type(event) is RecordChanged and event.kind == KEY
