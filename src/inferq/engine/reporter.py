"""Takes what attempts produce to the store in batches: chunks a few milliseconds together, outcomes of one turn of the loop together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from inferq.clock import Clock
from inferq.errors import ClaimLost, StoreClosed, StoreError, StoreRefused
from inferq.executor import Chunk
from inferq.store import Store
from inferq.task import Claim, Outcome

log: Final = logging.getLogger("inferq.reporter")

CHUNK_SECONDS: Final = 0.04
"""Chunks of all attempts that arrive within this time share one append; the first after a pause goes at once."""
_RETRY_SECONDS: Final = 0.5


class Reporter:
    """Outboxes and `end` never wait; `drain` does. What the store cannot take now (a full disk) is kept and offered again."""

    def __init__(self, store: Store, clock: Clock, *, on_lost: Callable[[Claim], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._chunks: dict[tuple[int, int], tuple[Claim, list[Chunk]]] = {}
        """By (sequence number, attempt): a cancelled attempt may still be closing while the next one writes."""
        self._ended: list[tuple[Claim, Outcome]] = []
        self._working: asyncio.Task[None] | None = None
        self._last_append = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._given_up = False
        self._singly = False
        """Whether the store refused a group of ends: the next are offered one by one."""

    def outbox(self, claim: Claim) -> Callable[[Chunk], None]:
        """Where an attempt puts its chunks."""
        chunks: list[Chunk] = []

        place = _place(claim)

        def put(chunk: Chunk) -> None:
            nonlocal chunks
            if place not in self._chunks:
                chunks = []
                self._came(claim, chunks)
            chunks.append(chunk)

        return put

    def _came(self, claim: Claim, chunks: list[Chunk]) -> None:
        """The first chunk since the last append."""
        if self._given_up:
            return
        self._chunks[_place(claim)] = (claim, chunks)
        if self._timer is None and self._working is None:
            wait = max(0.0, self._last_append + CHUNK_SECONDS - self._loop.time())
            self._timer = self._loop.call_later(wait, self._start)

    def end(self, claim: Claim, outcome: Outcome | None) -> None:
        """An attempt ended; None: its claim is void, forget it and its chunks."""
        if outcome is None or self._given_up:
            self._chunks.pop(_place(claim), None)
            return
        self._ended.append((claim, outcome))
        if self._working is None and len(self._ended) == 1:
            self._loop.call_soon(self._start)

    async def drain(self) -> None:
        """Until everything told so far is durable or refused for good."""
        while self._ended or self._chunks or self._working is not None:
            self._start()
            if self._working is not None:
                await asyncio.wait([self._working])

    def give_up(self) -> None:
        """Forget what could not be written, for good; for a process that must end."""
        self._given_up = True
        self._chunks.clear()
        self._ended.clear()
        if self._working is not None:
            self._working.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._working is None and (self._ended or self._chunks):
            self._working = self._loop.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._ended or self._chunks:
                if self._chunks:
                    await self._append()
                if self._ended:
                    await self._finish()
                elif self._chunks:
                    break
        except StoreClosed:
            self._chunks.clear()
            self._ended.clear()
        finally:
            self._working = None
        if self._ended:
            self._start()
        elif self._chunks and self._timer is None:
            self._timer = self._loop.call_later(CHUNK_SECONDS, self._start)

    async def _append(self) -> None:
        held, self._chunks = self._chunks, {}
        self._last_append = self._loop.time()
        items = list(held.values())
        try:
            errors = await self._store.append(items, self._clock.read())
        except StoreClosed:
            raise
        except StoreError as error:
            log.warning("reporter.append_failed", extra={"error": str(error), "attempts": len(items)})
            for place, (claim, chunks) in held.items():
                later = self._chunks.get(place)
                if later is None:
                    self._chunks[place] = (claim, chunks)
                else:
                    # Into the list that the outbox fills now.
                    later[1][:0] = chunks
            await asyncio.sleep(_RETRY_SECONDS)
            return
        for (claim, _), lost in zip(items, errors, strict=True):
            if lost is not None:
                self._refused(claim, lost)

    async def _finish(self) -> None:
        # An attempt whose chunks are still here (the disk was full, or more came) ends after them.
        ready = [item for item in self._ended if _place(item[0]) not in self._chunks]
        if not ready:
            return
        self._ended = [item for item in self._ended if _place(item[0]) in self._chunks]
        # One outcome that the store cannot keep must not hold up those that came with it.
        groups = [[item] for item in ready] if self._singly else [ready]
        self._singly = False
        for group in groups:
            await self._finish_group(group)
        if self._singly:
            await asyncio.sleep(_RETRY_SECONDS)

    async def _finish_group(self, group: list[tuple[Claim, Outcome]]) -> None:
        """Offer them together; what the store does not take is offered again, one by one."""
        try:
            errors = await self._store.finish(group, self._clock.read())
        except StoreClosed:
            raise
        except StoreError as error:
            log.warning("reporter.finish_failed", extra={"error": str(error), "attempts": len(group)})
            self._singly = True
            self._ended += [_keepable(*group[0], error)] if len(group) == 1 else group
            return
        for (claim, _), lost in zip(group, errors, strict=True):
            if lost is not None:
                self._refused(claim, lost)

    def _refused(self, claim: Claim, lost: ClaimLost) -> None:
        # That somebody cancelled it is no trouble; that it was taken from us may be.
        level = logging.INFO if lost.reason == "cancelled" else logging.WARNING
        log.log(level, "reporter.claim_lost", extra={"task_id": claim.task.id, "attempt": claim.attempt, "reason": lost.reason})
        self._chunks.pop(_place(claim), None)
        self._on_lost(claim)


def _keepable(claim: Claim, outcome: Outcome, error: StoreError) -> tuple[Claim, Outcome]:
    """The outcome, or where the store will never take it a failure that says so."""
    if not isinstance(error, StoreRefused) or outcome.kind != "completed":
        return claim, outcome
    return claim, Outcome.failed("internal", f"the store could not keep the result: {error}", backend=outcome.backend)


def _place(claim: Claim) -> tuple[int, int]:
    return (claim.task.seq, claim.attempt)
