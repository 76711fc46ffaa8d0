"""New settings for a queue at work: what is applied at once, what waits for a new start, and what running tasks notice (nothing)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from places import HOUR, Gated, tuned

from inferq import AsyncQueue, BackendSettings, Queue, QueueFull, Settings
from inferq.config import Changes, changes, keys
from inferq.config.reload import is_live
from inferq.errors import UnknownExecutor
from inferq.testing import wait_until

SLOW = {"tokens_per_second": 20, "tokens": 4000}


def with_(settings: Settings, **groups: dict[str, Any]) -> Settings:
    changed = {name: msgspec.structs.replace(getattr(settings, name), **fields) for name, fields in groups.items()}
    return msgspec.structs.replace(settings, **changed)


def places(settings: Settings, *backends: BackendSettings) -> Settings:
    return msgspec.structs.replace(settings, backends=backends)


A, B = BackendSettings("a", "echo"), BackendSettings("b", "echo")


@pytest.fixture
async def queue() -> AsyncIterator[AsyncQueue]:
    """A queue with the backends a and b, as a configuration names them."""
    async with AsyncQueue("sqlite://:memory:", settings=places(tuned(grace=0), A, B)) as queue:
        yield queue


async def started(queue: AsyncQueue, backend: str) -> Any:
    """A task that runs for minutes on that backend."""
    handle = await queue.chat("m", "x", executor="echo", backend=backend, payload=SLOW)
    await wait_until(lambda: any(b.name == backend and b.busy for b in queue.places()))
    return handle


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_more_slots_start_what_waits_at_once_and_fewer_are_reached_as_tasks_end(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    for name in "abc":
        await queue.submit("gated", "work", payload={"name": name})
    await wait_until(lambda: gated.started == ["a"])

    made = await queue.reconfigure(with_(queue.settings, worker={"slots": 2}))

    assert made.applied == ["worker.slots"]
    await wait_until(lambda: gated.started == ["a", "b"])
    await queue.reconfigure(with_(queue.settings, worker={"slots": 1}))
    gated.let_go("a")
    await wait_until(lambda: gated.ended == ["a"])
    await queue.stats()  # the end of `a` is written, and the worker has looked again
    assert gated.started == ["a", "b"]
    gated.let_go("b")
    await wait_until(lambda: gated.started == ["a", "b", "c"])


async def test_bounds_of_a_submit_hold_from_then_on(opened: Any) -> None:
    queue = await opened(Gated(), slots=1, work=False)
    await queue.submit("gated", "work")
    await queue.reconfigure(with_(queue.settings, store={"max_queue_size": 1}))
    with pytest.raises(QueueFull):
        await queue.submit("gated", "work")


async def test_retention_holds_from_then_on_although_the_old_interval_was_an_hour(opened: Any) -> None:
    gated = Gated()
    gated.everybody = True
    queue = await opened(gated, settings=with_(tuned(), store={"prune_interval": HOUR}))
    for _ in range(3):
        await (await queue.submit("gated", "work")).result(timeout=10)
    kept = msgspec.structs.replace(queue.settings.store.retention.completed, count=1)
    retention = msgspec.structs.replace(queue.settings.store.retention, completed=kept)
    await queue.reconfigure(with_(queue.settings, store={"prune_interval": 0.02, "retention": retention}))
    await wait_until(lambda: _total(queue, 1))


async def _total(queue: AsyncQueue, wanted: int) -> bool:
    return (await queue.stats()).total == wanted


async def test_a_running_attempt_keeps_the_rules_it_began_with(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, max_retries=3)
    handle = await queue.submit("gated", "work", payload={"name": "a"})
    await wait_until(lambda: gated.started == ["a"])
    await queue.reconfigure(with_(queue.settings, worker={"timeout": 0.01, "idle_timeout": 0.01}))
    gated.let_go("a")
    assert (await handle.result(timeout=10)).attempts == 1


# ── backends ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_backend_that_is_gone_gets_nothing_new_and_closes_when_its_last_call_has_ended(
    queue: AsyncQueue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferq.engine")
    running = await started(queue, "b")

    made = await queue.reconfigure(places(queue.settings, A))

    assert made.applied == ["backends.b (gone)"]
    assert [backend.name for backend in queue.places()] == ["a"]
    assert (await (await queue.chat("m", "new", executor="echo")).result(timeout=10)).backend == "a"
    assert (await running.refresh()).state == "running"
    assert "backend.closed" not in caplog.messages
    await running.cancel()
    await wait_until(lambda: "backend.closed" in caplog.messages)


async def test_a_new_backend_takes_what_waited_for_it(queue: AsyncQueue) -> None:
    await queue.reconfigure(places(queue.settings, A))
    with pytest.raises(UnknownExecutor):
        await queue.chat("m", "x", executor="echo", backend="b")
    await queue.reconfigure(places(queue.settings, A, B))
    assert (await (await queue.chat("m", "x", executor="echo", backend="b")).result(timeout=10)).backend == "b"


async def test_other_slots_and_models_need_no_new_executor_but_other_settings_do(queue: AsyncQueue) -> None:
    a, b = queue.places()
    wanted = (msgspec.structs.replace(A, slots=7, models=("m",)), msgspec.structs.replace(B, settings={"latency": 0.01}))
    await queue.reconfigure(places(queue.settings, *wanted))
    new_a, new_b = queue.places()
    assert new_a is a
    assert (a.slots, a.models) == (7, frozenset({"m"}))
    assert new_b is not b
    assert new_b.executor.settings == {"latency": 0.01}


async def test_backends_that_cannot_be_made_change_nothing_at_all(queue: AsyncQueue) -> None:
    before = queue.places()
    wrong = places(with_(queue.settings, worker={"slots": 99}), A, BackendSettings("c", "nothing"))
    with pytest.raises(UnknownExecutor):
        await queue.reconfigure(wrong)
    assert queue.places() == before
    assert queue.settings.worker.slots == 4
    assert queue._engine is not None
    assert queue._engine.worker.slots == 4


async def test_health_breaker_and_remote_rules_are_taken_over(queue: AsyncQueue) -> None:
    wanted = with_(queue.settings, health={"interval": 5.0}, breaker={"failures": 1}, remote={"policy": "never"})
    made = await queue.reconfigure(wanted)
    assert (made.applied, made.restart) == (["health.interval", "breaker.failures", "remote.policy"], [])
    assert queue._engine is not None
    assert queue._engine.watch._settings.interval == 5.0


async def test_backends_that_the_program_gave_stay(opened: Any) -> None:
    gated = Gated()
    gated.everybody = True
    queue = await opened(gated)
    await queue.reconfigure(places(queue.settings, A))
    assert (await (await queue.submit("gated", "work")).result(timeout=10)).backend == "gated"


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_needs_a_new_start_keeps_its_value_and_is_named(queue: AsyncQueue) -> None:
    made = await queue.reconfigure(with_(queue.settings, worker={"lease": 5.0, "slots": 9}, store={"durability": "normal"}))
    assert made == Changes(queue.settings, ["worker.slots"], ["store.durability", "worker.lease"])
    assert str(made) == "applied: worker.slots; needs a restart: store.durability, worker.lease"
    assert (queue.settings.worker.lease, queue.settings.worker.slots, queue.settings.store.durability) == (30.0, 9, "full")
    assert str(changes(queue.settings, queue.settings)) == "nothing has changed"


def test_the_blocking_face_does_the_same() -> None:
    with Queue("sqlite://:memory:", settings=places(tuned(), A)) as queue:
        assert queue.reconfigure(with_(queue.settings, worker={"slots": 2})).applied == ["worker.slots"]


def test_every_key_is_either_live_or_waits_for_a_new_start() -> None:
    waiting = {key.name for key in keys() if not is_live(key.name)}
    assert {"store.data_dir", "store.url", "store.durability", "worker.lease", "worker.lost_limit"} <= waiting
    assert not any(name.startswith(("backends.", "retry.", "log.")) for name in waiting)
