"""The one thread that writes: commands that arrived meanwhile share one commit, and replies leave after it.

It also keeps this instance's lease, and notices what other processes commit, because no event loop can hold it up.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from inferq.clock import Clock
from inferq.errors import InferqError, StoreClosed, StoreError, StoreReadOnly, StoreRefused
from inferq.events import Event
from inferq.store import Change, Grown
from inferq.stores.sqlite import files, limits, upkeep
from inferq.stores.sqlite.instances import Instances
from inferq.stores.sqlite.rows import readable_events
from inferq.stores.sqlite.statements import SQL
from inferq.stores.sqlite.transaction import Flow, Known, Transaction
from inferq.task import FlowKey
from inferq.timing import Spent

log: Final = logging.getLogger("inferq.store")

Verb = Callable[[Transaction, Sequence[Any]], Sequence[Any]]


class Command(NamedTuple):
    """`verb` takes the arguments of all consecutive commands of its kind. `future` None: nobody waits for the reply."""

    verb: Verb | None
    """None: `args` is a question, a function of the connection, asked after the group's commit."""
    args: Any
    future: Any


Delivery = tuple[list[tuple[Any, Any]], list[Change]]
"""([(future, reply or error)], changes)"""

_PREFIXES: Final = {"batches": "batch_", "records": "record_", "audit": "audit_"}


@functools.cache
def _name_of(verb: Verb) -> str:
    """What the time that a verb takes is counted under."""
    return _PREFIXES.get(verb.__module__.rpartition(".")[2], "") + verb.__name__


_WATCH_SECONDS: Final = 0.02
"""How often an idle writer looks whether another process has committed: well under the 100 ms that processes may take to wake."""


class Writer:
    """Owns the write connection. `deliver` is called from this thread with what a group brought."""

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        path: str,
        clock: Clock,
        lease_ms: int,
        instances: Instances,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._db = db
        self._path = path
        self._clock = clock
        self._lease_ms = lease_ms
        self._instances = instances
        self._deliver = deliver
        self.spent = Spent()
        self._inbox: SimpleQueue[list[Command] | None] = SimpleQueue()
        self._known = Known(version=-1)
        self._news: list[Change] = []
        """What others and we committed and nobody here was told yet; it survives a group that fails."""
        self._data_version = -1
        self._number = 0
        self._renew_at = 0.0
        self._thread = threading.Thread(target=self._run, name="inferq-writer", daemon=True)

    @property
    def name(self) -> str:
        return self._instances.name

    def start(self) -> None:
        """Register this instance and begin; raises what keeps the file from being written."""
        try:
            self._register()
        except sqlite3.Error as error:
            raise files.named(error, self._path) from error
        except OSError as error:
            place = f"{self._path}-instances"
            raise StoreReadOnly(
                f"expected to keep lock files in the folder {place}, got: {error.strerror}; remove what is there"
            ) from error
        self._thread.start()

    def submit(self, commands: list[Command]) -> None:
        self._inbox.put(commands)

    def stop(self) -> None:
        """Carry out what was submitted, leave, and end the thread. Blocks until it has."""
        self._inbox.put(None)
        self._thread.join()

    # the thread ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        open_ = True
        while open_:
            commands: list[Command] = []
            try:
                batch = self._inbox.get(timeout=_WATCH_SECONDS)
                while True:
                    if batch is None:
                        open_ = False
                    else:
                        commands += batch
                    batch = self._inbox.get_nowait()
            except Empty:
                pass
            if time.monotonic() >= self._renew_at:
                self._renew_at = time.monotonic() + self._lease_ms / 4000
                commands.append(Command(upkeep.renew, (self._clock.read(), self._lease_ms), None))
            if commands:
                self._carry_out_whatever_happens(commands)
            elif self._path != files.MEMORY:
                self._watch()
        self._close()

    def _carry_out_whatever_happens(self, commands: list[Command]) -> None:
        """Nobody may wait for ever for a writer that died: it does not die, and says so to those who asked."""
        try:
            self._carry_out(commands)
        except Exception as error:
            log.exception("store.group_failed")
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            refused = StoreError(f"the store could not carry out a command: {type(error).__name__}: {error}")
            self._deliver(([(c.future, refused) for c in commands if c.future is not None], []))

    def _carry_out(self, commands: list[Command]) -> None:
        """One group, then the questions. If a group fails as a whole each command is tried alone: only the guilty one is refused."""
        writes = [command for command in commands if command.verb is not None]
        answered: list[tuple[Any, Any]] = []
        if writes:
            answered += self._carry_out_writes(writes)
        answered += [(c.future, self._ask(c.args)) for c in commands if c.verb is None]
        news, self._news = self._news, []
        answered = [entry for entry in answered if entry[0] is not None]
        if answered or news:
            self._deliver((answered, news))

    def _carry_out_writes(self, commands: list[Command]) -> list[tuple[Any, Any]]:
        try:
            tx, replies = self._commit(commands)
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to those who wait for a reply
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if len(commands) > 1:
                return [reply for command in commands for reply in self._carry_out_writes([command])]
            return [(commands[0].future, self._refusal(error))]
        tx.settle()
        self._after(tx)
        return [(command.future, reply) for command, reply in zip(commands, replies, strict=True)]

    def _refusal(self, error: Exception) -> InferqError:
        if isinstance(error, sqlite3.Error):
            error = files.named(error, self._path)
        if isinstance(error, InferqError):
            log.warning("store.command_refused", extra={"error": str(error)})
            return error
        log.error("store.command_failed", exc_info=error)
        # No disk and no lock: the same values would fail the same way again.
        return StoreRefused(f"the store could not carry out a command: {type(error).__name__}: {error}")

    def _commit(self, commands: list[Command]) -> tuple[Transaction, list[Any]]:
        replies: list[Any] = []
        spent, since = self.spent, time.perf_counter()
        self._begin()
        spent.add("begin", -since + (since := time.perf_counter()))
        tx = Transaction(self._db, self._known, number=self._number, name=self.name)
        for verb, run in itertools.groupby(commands, key=lambda command: command.verb):
            assert verb is not None  # noqa: S101 - narrows the type: these are writes
            replies += verb(tx, [command.args for command in run])
            spent.add(_name_of(verb), -since + (since := time.perf_counter()))
        tx.flush(self._clock.read().wall)
        self._db.execute("COMMIT")
        spent.add("commit", time.perf_counter() - since)
        return tx, replies

    def _begin(self) -> None:
        """Take the write lock and see what others committed."""
        self._db.execute("BEGIN IMMEDIATE")
        if self._refresh() and self._taken_for_dead():
            self._db.execute("COMMIT")
            self._rise()
            self._db.execute("BEGIN IMMEDIATE")
            self._refresh()

    def _taken_for_dead(self) -> bool:
        return self._db.execute(SQL["own_instance"], (self._number,)).fetchone() is None

    def _rise(self) -> None:
        """Others took this instance's claims: tell that they are void, and go on under a new name."""
        self._register()
        self._news.append(Change(lost=True))

    def _ask(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return question(self._db)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who asked
            return self._refusal(error)

    def _after(self, tx: Transaction) -> None:
        for name in tx.after_commit:
            self._instances.forget(name)
        known = self._known
        shifted = self._refresh_limits(reread=tx.relimited) if known.limits or tx.relimited else frozenset[str]()
        if tx.flows or tx.events or tx.streams or tx.paused is not None or shifted:
            self._news.append(Change(limits.told(known, tx.flows.values(), shifted), tx.events, tx.streams, tx.paused))

    def _refresh_limits(self, *, reread: bool) -> frozenset[str]:
        try:
            return limits.refresh(self._db, self._known, reread=reread)
        except sqlite3.Error as error:
            # What was committed stays committed: those who wait must hear so. The next commit looks again.
            log.warning("store.limits_unread", extra={"error": str(error)})
            return frozenset()

    # other processes -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            if self._db.execute("PRAGMA data_version").fetchone()[0] == self._data_version:
                return
            # Only to look: the write lock is left to those who write.
            self._db.execute("BEGIN")
            dead = self._refresh() and self._taken_for_dead()
            self._db.execute("COMMIT")
            if dead:
                self._rise()
        except Exception as error:  # noqa: BLE001 - the watch goes on, whatever others have written
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            log.warning("store.watch_failed", extra={"error": str(error)})
        news, self._news = self._news, []
        if news:
            self._deliver(([], news))

    def _refresh(self) -> bool:
        """Inside a transaction: catch up with what other processes have committed since the last look; whether there was anything."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._data_version:
            return False
        first = self._data_version == -1
        known = self._known
        flows = [
            Flow(id, FlowKey(lane, priority, size, tenant), head, length)
            for id, lane, priority, size, tenant, head, length, _ in self._db.execute(SQL["flows_since"], (known.version,))
        ]
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        events: list[Event] = []
        moved = meta["position"] - known.position
        if not first and meta["position"] > known.position:
            for _, body in self._db.execute(SQL["events_after"], (known.position, -1)):
                events += [event for event in readable_events(body) if event.position > known.position]
        paused = frozenset(scope for (scope,) in self._db.execute("SELECT scope FROM pause"))
        for flow in flows:
            if flow.id not in known.flows:
                known.tenants.setdefault(flow.key.tenant, []).append(flow.id)
            known.flows[flow.id] = flow
        known.ids.update((flow.key, flow.id) for flow in flows)
        known.last_flow = self._db.execute("SELECT coalesce(max(id), 0) FROM flow").fetchone()[0]
        known.seq, known.version, known.position = meta["seq"], meta["version"], meta["position"]
        known.batches = meta["batches"]
        known.holding = dict(self._db.execute(SQL["held_batches"]).fetchall()) if known.batches else {}
        known.newest, known.step = meta["newest"], meta["step"]
        known.held.clear()
        changed = paused != known.paused
        known.paused = paused
        self._data_version = version
        # Where events were pruned unseen, a change of limits may be among them.
        relimited = first or len(events) < moved or limits.concern(events)
        shifted = limits.refresh(self._db, known, reread=relimited) if known.limits or relimited else frozenset[str]()
        if not first:
            heads = limits.told(known, flows, shifted)
            self._news.append(Change(heads, events, (Grown(""),), paused if changed else None, own=False))
        return not first

    # coming and going ------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        name = self._instances.enter()
        now = self._clock.read()
        self._known.chunks.clear()
        self._known.held.clear()
        self._db.execute("BEGIN IMMEDIATE")
        self._refresh()
        row = (name, self._instances.boot, now.mono + self._lease_ms)
        self._number = self._db.execute(SQL["add_instance"], row).lastrowid or 0
        self._db.execute("COMMIT")
        self._renew_at = time.monotonic() + self._lease_ms / 4000

    def _close(self) -> None:
        while True:
            try:
                late = self._inbox.get_nowait()
            except Empty:
                break
            refused = StoreClosed("the store was closed; this command was not carried out")
            self._deliver(([(c.future, refused) for c in late or () if c.future is not None], []))
        left = True
        try:
            held = self._db.execute("SELECT 1 FROM task WHERE state = 2 AND worker = ? LIMIT 1", (self._number,)).fetchone()
            left = held is not None
            if not left:
                self._db.execute(SQL["drop_instance"], (self._number,))
        except sqlite3.Error as error:
            log.warning("store.leave_failed", extra={"error": str(error)})
        self._db.close()
        # Where claims are left the lock's file stays, free: whoever looks next sees at once that they are nobody's.
        self._instances.leave(keep_file=left)
