"""Several backends of one executor: who gets the work, what happens when one refuses, fails, is drained or does not answer."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import msgspec
import pytest
from places import Gated, place, tuned

from inferq import Backend, BackendSettings, Call, Settings
from inferq.backend import SWITCH, Switch
from inferq.clock import SystemClock
from inferq.config import BreakerSettings, HealthSettings, RemoteSettings
from inferq.errors import Reject, RetryLater, TaskFailed, Unavailable
from inferq.executor import Answer, Chunk, Executor, Health
from inferq.store import RecordPut
from inferq.task import State, Tried, lane_of
from inferq.testing import EchoExecutor, wait_until


class Place(Executor):
    """Fails with what the test puts into `trouble`, else answers with its own name; remembers the calls."""

    actions = ("work",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.trouble: Exception | None = None
        self.calls: list[Call] = []
        self.known: list[str] = []
        self.ok = True
        self.checks = 0
        self.chunks_first = 0

    async def run(self, call: Call) -> Any:
        self.calls.append(call)
        for n in range(self.chunks_first):
            yield Chunk("text", str(n))
        if self.trouble is not None:
            raise self.trouble
        yield Answer(data=self.name)

    async def health(self) -> Health:
        self.checks += 1
        return Health(ok=self.ok, detail="" if self.ok else "connection refused")

    async def models(self) -> list[str]:
        return self.known


def at(executor: Executor, **more: Any) -> Backend:
    return Backend(executor, kind="k", **more)


def small(
    *, failures: int = 5, delay: float = 0.02, interval: float = 3600.0, remote: RemoteSettings | None = None, **rest: Any
) -> Settings:
    return msgspec.structs.replace(
        tuned(**rest),
        breaker=BreakerSettings(failures, delay, delay),
        health=HealthSettings(interval, 1.0, 2),
        remote=remote or RemoteSettings(),
    )


async def ask(queue: Any, **more: Any) -> Any:
    return await queue.submit("k", "work", model="m", stream=True, **more)


# ── a refusal before the first chunk ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Unavailable("refused", failure="connect", sent=False), "connect"),
        (Unavailable("500", failure="server_error"), "server_error"),
        (RetryLater("busy", after=30.0), "rate_limited"),
        (Reject("no such model", failure="model_not_found"), "model_not_found"),
        (Reject("no money", failure="quota_exhausted"), "quota_exhausted"),
        (OSError("gone"), "connect"),
    ],
)
async def test_b07_what_one_backend_refuses_before_its_first_chunk_another_runs_at_once(opened: Any, trouble: Exception, code: str) -> None:
    first, second = Place("first"), Place("second")
    first.trouble = trouble
    queue = await opened(at(first, priority=9), at(second), settings=small())
    task = await ask(queue, max_retries=0)
    result = await task.result()
    assert (result.data, result.backend, result.attempts) == ("second", "second", 1)
    (attempt,) = await queue.attempts(task.id)
    assert attempt.tried == result.tried
    assert [(one.backend, one.code) for one in attempt.tried] == [("first", code)]
    assert (await task.refresh()).failures == 0


async def test_a_refused_task_is_tried_once_on_each_backend_and_then_fails_as_one_attempt(opened: Any) -> None:
    places = [Place(name) for name in "abc"]
    for each in places:
        each.trouble = Unavailable(f"{each.name} is broken", failure="server_error")
    queue = await opened(*(at(each) for each in places), settings=small())
    task = await ask(queue, max_retries=0)
    with pytest.raises(TaskFailed):
        await task.result()
    assert [len(each.calls) for each in places] == [1, 1, 1]
    (attempt,) = await queue.attempts(task.id)
    assert len(attempt.tried) == 2
    assert {one.backend for one in attempt.tried} | {attempt.backend} == {"a", "b", "c"}


async def test_after_the_first_chunk_a_failure_is_a_new_attempt_with_a_reset(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.trouble, first.chunks_first = Unavailable("cut", failure="connect"), 2
    queue = await opened(at(first, priority=9, slots=1), at(second), settings=small(failures=1, delay=60.0))
    task = await ask(queue)
    assert (await task.result()).data == "second"
    attempts = await queue.attempts(task.id)
    assert [(attempt.outcome, attempt.backend) for attempt in attempts] == [("retry", "first"), ("completed", "second")]
    kinds = [logged.chunk.kind async for logged in task.stream()]
    assert kinds == ["text", "text", "reset", "end"]


async def test_an_attempt_that_broke_off_is_made_again_at_another_backend_if_one_is_free(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.trouble, first.chunks_first = Unavailable("cut", failure="connect"), 1
    queue = await opened(at(first, priority=9), at(second, slots=1), settings=small(failures=50, max_retries=1))
    assert [(await task.result()).data for task in [await ask(queue), await ask(queue)]] == ["second", "second"]

    second.trouble = Unavailable("500", failure="server_error")
    task = await ask(queue)
    with pytest.raises(TaskFailed):
        await task.result()
    attempts = await queue.attempts(task.id)
    assert [(attempt.outcome, attempt.backend) for attempt in attempts] == [("retry", "first"), ("failed", "first")]
    assert [one.backend for one in attempts[1].tried] == ["second"]
    assert [backend.busy for backend in await queue.backends.list()] == [0, 0]


@pytest.mark.parametrize(("sent", "runs"), [(True, 0), (False, 1)])
async def test_what_must_run_at_most_once_goes_elsewhere_only_if_it_was_never_sent(opened: Any, sent: bool, runs: int) -> None:
    first, second = Place("first"), Place("second")
    first.trouble = Unavailable("reset", failure="connect", sent=sent)
    queue = await opened(at(first, priority=9), at(second), settings=small())
    task = await ask(queue, at_most_once=True)
    task = await task.wait()
    assert len(second.calls) == runs
    assert (task.state, task.code) == ((State.COMPLETED, None) if runs else (State.FAILED, "lost"))


async def test_a_mistake_of_the_task_itself_is_not_carried_from_backend_to_backend(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.trouble = Reject("too long", failure="context_length")
    queue = await opened(at(first, priority=9), at(second), settings=small(failures=1))
    for _ in range(3):
        assert (await (await ask(queue)).wait()).code == "context_length"
    assert second.calls == []
    assert len(first.calls) == 3


async def test_a_refused_task_waits_unburnt_while_the_others_are_busy(opened: Any) -> None:
    broken, gated = Place("broken"), Gated("gated")
    queue = await opened(at(broken), at(gated, slots=1, priority=9), settings=small(failures=1, delay=60.0))
    long = await ask(queue, payload={"name": "long"})
    await wait_until(lambda: gated.running == 1)
    broken.trouble = Unavailable("refused", failure="connect")
    task = await ask(queue, payload={"name": "x"}, max_retries=0)
    await wait_until(lambda: len(broken.calls) == 1)
    gated.let_all_go()
    await long.result()
    assert (await task.result()).backend == "gated"
    assert (await task.refresh()).failures == 0


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_open_breaker_lets_tasks_wait_without_burning_attempts_and_one_probe_finds_out(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "inferq.backends")
    only = Place("only")
    only.trouble = Unavailable("refused", failure="connect")
    queue = await opened(at(only), settings=small(failures=3, max_retries=0, slots=1))
    doomed = [await ask(queue) for _ in range(3)]
    for task in doomed:
        await task.wait()
    waiting = await queue.submit_many([{"executor": "k", "action": "work", "model": "m", "max_retries": 50} for _ in range(20)])
    await wait_until(lambda: len(only.calls) >= 6)
    states = (await queue.stats()).states
    assert states["failed"] == 3
    only.trouble = None
    results = await asyncio.gather(*(task.result() for task in waiting))
    assert {result.data for result in results} == {"only"}
    probes = sum([(await task.refresh()).failures for task in waiting])
    assert probes == len(only.calls) - 23
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "breaker" in getattr(record, "event", "")]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert told[0][1].startswith("backend only at m failed 3 times (refused); its tasks wait or go elsewhere")
    assert told[1][1] == "backend only at m works again"


async def test_several_lanes_of_one_model_have_one_probe_between_them(opened: Any) -> None:
    gated = Gated("gated")
    queue = await opened(at(gated, remote=True, slots=9), settings=small(failures=1, delay=0.02, max_retries=0, slots=9))
    (backend,) = queue.places()
    backend.failed(lane_of("k", "m"), "connect", 0.0, random.Random(1), task="x", reason="refused")
    waiting = [await queue.submit("k", "work", model="m", remote=remote) for remote in (True, None)]
    await wait_until(lambda: gated.running >= 1)
    assert (gated.running, backend.breakers["m"].probing) == (1, True)
    gated.let_all_go()
    for task in waiting:
        await task.result()
    assert gated.most <= 2
    assert backend.breakers == {}


async def test_a_time_that_a_task_sets_itself_says_nothing_of_the_backend(opened: Any) -> None:
    gated = Gated("gated")
    queue = await opened(at(gated), settings=small(failures=1, delay=60.0, max_retries=0))
    for _ in range(3):
        assert (await (await ask(queue, timeout=0.01)).wait()).code == "timeout"
    assert queue.places()[0].breakers == {}


async def test_the_breaker_of_one_model_leaves_the_others_alone(opened: Any) -> None:
    only = Place("only")
    queue = await opened(at(only), settings=small(failures=1, delay=60.0, max_retries=0))
    only.trouble = Unavailable("500", failure="server_error")
    await (await ask(queue)).wait()
    only.trouble = None
    other = await queue.submit("k", "work", model="other")
    assert (await other.result()).data == "only"
    blocked = await ask(queue)
    await (await queue.submit("k", "work", model="other")).result()
    assert (await blocked.refresh()).state is State.PENDING


async def test_why_a_task_waits_quotes_no_other_tasks_error(opened: Any) -> None:
    only = Place("only")
    only.trouble = Unavailable("500: cannot parse 'my secret prompt'", failure="server_error")
    queue = await opened(at(only), settings=small(failures=1, delay=60.0, max_retries=0))
    await (await ask(queue)).wait()
    found = await queue.explain((await ask(queue)).id)
    assert (found.gate, "secret" in found.reason) == ("breaker", False)
    assert "secret" not in repr(await queue.backends.list())
    assert "only failed 1 times (server_error)" in found.reason


async def test_work_goes_round_a_backend_whose_breaker_is_open(opened: Any) -> None:
    broken, sound = Place("broken"), Place("sound")
    broken.trouble = Unavailable("refused", failure="connect")
    queue = await opened(at(broken, priority=9), at(sound), settings=small(failures=2, delay=60.0))
    for _ in range(10):
        assert (await (await ask(queue)).result()).data == "sound"
    assert len(broken.calls) == 2


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_backend_that_lists_the_model_is_asked_and_forgotten_once_it_says_otherwise(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.known, second.known = ["m:latest"], ["m"]
    queue = await opened(at(first, priority=9), at(second), Place("k"), settings=small(interval=0.02))
    await wait_until(lambda: all(backend.known for backend in queue.places() if backend.kind == "k" and backend.name != "k"))
    assert (await (await ask(queue)).result()).data == "first"
    first.known, first.trouble = [], Reject("model m not found", failure="model_not_found")
    assert (await (await ask(queue)).result()).data == "second"
    assert (await (await ask(queue)).result()).data == "second"
    assert len(first.calls) == 2


async def test_a_backend_without_the_model_is_not_asked_while_another_has_it(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.known, second.known = ["other"], ["m"]
    queue = await opened(at(first, priority=9), at(second), settings=small(interval=0.02))
    await wait_until(lambda: all(backend.known for backend in queue.places()))
    assert (await (await ask(queue)).result()).data == "second"
    assert first.calls == []


# ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_b06_a_backend_that_does_not_answer_its_checks_is_left_alone_until_it_does_and_submits_go_on(opened: Any) -> None:
    only = Place("only")
    only.ok = False
    queue = await opened(at(only), settings=small(interval=0.02))
    (backend,) = queue.places()
    await wait_until(lambda: backend.state == "down")
    assert backend.reason == "connection refused"
    task = await ask(queue)
    assert (await task.refresh()).state is State.PENDING
    assert only.calls == []
    news = queue.events("backend.changed", after=0)
    assert (await anext(news)).state == "down"
    only.ok = True
    assert (await task.result()).data == "only"
    assert backend.state == "up"
    assert (await anext(news)).state == "up"
    await news.aclose()


async def test_b06_a_check_that_hangs_holds_up_nothing(opened: Any) -> None:
    class Hanging(Place):
        async def health(self) -> Health:
            self.checks += 1
            await asyncio.Event().wait()
            raise AssertionError

    only = Hanging("only")
    settings = msgspec.structs.replace(small(), health=HealthSettings(0.01, 600.0, 2))
    queue = await opened(at(only), settings=settings)
    await wait_until(lambda: only.checks == 1)
    assert (await (await ask(queue)).result()).data == "only"


async def test_one_missed_check_takes_nobody_down(opened: Any) -> None:
    only = Place("only")
    only.ok = False
    queue = await opened(at(only), settings=msgspec.structs.replace(small(), health=HealthSettings(0.02, 1.0, 1000)))
    await wait_until(lambda: only.checks >= 3)
    assert (await (await ask(queue)).result()).data == "only"


async def test_a_backend_that_answers_with_a_refusal_is_there(opened: Any) -> None:
    class Refusing(Place):
        async def health(self) -> Health:
            self.checks += 1
            return Health(ok=False, detail="401: no key", answered=True)

    only = Refusing("only")
    queue = await opened(at(only), settings=small(interval=0.01))
    await wait_until(lambda: only.checks >= 4)
    assert (await (await ask(queue)).result()).data == "only"


# ── switches ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["draining", "disabled"])
async def test_a_switch_turned_anywhere_is_obeyed_here_and_undone_by_taking_it_away(opened: Any, state: Any, tmp_path: Any) -> None:
    gated = Gated("gated")
    queue = await opened(at(gated), settings=small(), url=tmp_path / "q.db")
    running = await ask(queue, payload={"name": "one"})
    await wait_until(lambda: gated.running == 1)
    other = await opened(at(Gated("gated")), url=tmp_path / "q.db", work=False)
    body = msgspec.json.encode(Switch(state, "maintenance"))
    await other.store.put_record(RecordPut(SWITCH, "gated", body), SystemClock().read())
    (backend,) = queue.places()
    await wait_until(lambda: backend.state == state)
    waiting = await ask(queue, payload={"name": "two"})
    gated.let_all_go()
    await running.result()
    assert (await waiting.refresh()).state is State.PENDING
    await other.store.drop_record(SWITCH, "gated", SystemClock().read())
    assert (await waiting.result()).backend == "gated"


async def test_a_switch_that_was_turned_before_the_start_is_obeyed(opened: Any, tmp_path: Any) -> None:
    door = await opened(url=tmp_path / "q.db", work=False)
    await door.store.put_record(RecordPut(SWITCH, "only", msgspec.json.encode(Switch("disabled"))), SystemClock().read())
    queue = await opened(at(Place("only")), url=tmp_path / "q.db", settings=small())
    assert [backend.state for backend in queue.places()] == ["disabled"]


async def test_a_backend_that_the_settings_do_not_enable_gets_nothing(opened: Any) -> None:
    queue = await opened(at(Place("off"), enabled=False, priority=9), at(Place("on")), settings=small())
    assert [(await (await ask(queue)).result()).data for _ in range(3)] == ["on"] * 3


# ── local and remote ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_b13_work_overflows_to_the_remote_backend_and_both_are_counted(opened: Any) -> None:
    near, far = Gated("near"), Gated("far")
    queue = await opened(at(near, slots=2), at(far, remote=True), settings=small(slots=10))
    tasks = [await ask(queue, payload={"name": str(n)}) for n in range(5)]
    await wait_until(lambda: (near.running, far.running) == (2, 3))
    near.let_all_go()
    far.let_all_go()
    results = [await task.result() for task in tasks]
    assert sorted(str(result.executed_on) for result in results) == ["far", "far", "far", "local", "local"]
    executed = {one.backend: (one.remote, one.completed) for one in await queue.store.executed()}
    assert executed == {"near": (False, 2), "far": (True, 3)}
    assert {(await task.refresh()).executed_on for task in tasks} == {"local", "far"}


async def test_a_wish_is_obeyed(opened: Any) -> None:
    near, far = Place("near"), Place("far")
    queue = await opened(at(near), at(far, remote=True), settings=small())
    assert (await (await ask(queue, remote=True)).result()).data == "far"
    assert (await (await ask(queue, remote=False)).result()).data == "near"
    assert (await (await ask(queue)).result()).data == "near"


@pytest.mark.parametrize("falls_back", [True, False])
async def test_a_task_whose_remote_backend_failed_runs_locally_only_if_that_is_allowed(opened: Any, falls_back: bool) -> None:
    near, far = Place("near"), Place("far")
    far.trouble = Unavailable("refused", failure="connect")
    remote = RemoteSettings(policy="queue", fallback_to_local=falls_back)
    queue = await opened(at(near), at(far, remote=True), settings=small(remote=remote, failures=1, delay=0.05))
    task = await ask(queue, priority="critical")
    if falls_back:
        assert (await task.result()).data == "near"
        return
    await wait_until(lambda: len(far.calls) >= 2)
    assert near.calls == []
    far.trouble = None
    assert (await task.result()).data == "far"
    assert near.calls == []


@pytest.mark.parametrize("falls_back", [True, False])
async def test_a_wish_for_remote_while_none_is_up_falls_back_only_if_that_is_allowed(opened: Any, falls_back: bool) -> None:
    near, far = Place("near"), Place("far")
    remote = RemoteSettings(fallback_to_local=falls_back)
    queue = await opened(at(near), at(far, remote=True), settings=small(remote=remote))
    far.ok = False
    queue.places()[1].is_down("gone")
    task = await ask(queue, remote=True)
    await (await ask(queue)).result()
    if falls_back:
        assert (await task.result()).data == "near"
    else:
        assert (await task.refresh()).state is State.PENDING


async def test_weights_divide_the_work(opened: Any) -> None:
    strong, weak = Place("strong"), Place("weak")
    queue = await opened(at(strong, weight=4.0), at(weak, weight=1.0), settings=small(slots=8))
    tasks = await queue.submit_many([{"executor": "k", "action": "work", "model": "m"} for _ in range(400)])
    await asyncio.gather(*(task.result() for task in tasks))
    assert len(strong.calls) + len(weak.calls) == 400
    assert len(strong.calls) > 2 * len(weak.calls) > 0


async def test_a_backend_may_run_another_executors_tasks(opened: Any) -> None:
    guest = Place("guest")
    queue = await opened(place(Place("k"), kind="k", slots=1), Backend(guest, kind="other", serves=["k"], remote=True), settings=small())
    assert (await (await ask(queue, remote=True)).result()).data == "guest"
    assert BackendSettings("x", "echo", serves=("k",)).serves == ("k",)


async def test_what_was_tried_says_why(opened: Any) -> None:
    first, second = Place("first"), Place("second")
    first.trouble = Unavailable("connection refused", failure="connect")
    queue = await opened(at(first, priority=9), at(second), settings=small())
    assert (await (await ask(queue)).result()).tried == (Tried("first", "connect", "connection refused"),)


async def test_what_is_submitted_after_a_drain_does_not_begin_there(opened: Any) -> None:
    queue = await opened(EchoExecutor("echo"))
    for _ in range(10):
        assert (await queue.backends.drain("echo")).unaware == ()
        handle = await queue.submit("echo", "chat", model="m", payload={"messages": [{"role": "user", "content": "hi"}]})
        other = await queue.submit("echo", "chat", model="m", payload={"messages": [{"role": "user", "content": "hi"}]}, delay=0.001)
        await wait_until(partial(_is_due, queue, other.id))
        assert [(await one.refresh()).state for one in (handle, other)] == [State.PENDING] * 2
        await queue.backends.enable("echo")
        await handle.result(timeout=10)
        await other.result(timeout=10)


async def _is_due(queue: Any, id: str) -> bool:
    return (await queue.get(id)).state is not State.SCHEDULED
