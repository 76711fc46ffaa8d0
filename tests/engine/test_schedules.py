"""Schedules on a real store: what the door accepts and keeps, and what the ticker makes of it."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import HOUR, Gated, tuned

from inferq import AsyncQueue, InvalidTask, Queue, State, Submission
from inferq.door.schedules import SchedulesDoor
from inferq.engine.ticker import Ticker
from inferq.errors import AmbiguousId, Conflict, RecordNotFound, StoreError
from inferq.events import ScheduleFired, ScheduleSkipped
from inferq.executors.echo import EchoExecutor
from inferq.schedule import Schedule, encoded
from inferq.store import RecordPut
from inferq.stores.sqlite import files
from inferq.sync.schedules import Schedules
from inferq.testing import FakeClock, wait_until

TASK = {"executor": "gated", "action": "work", "payload": {"name": "report of {scheduled_at:%H:%M}"}}
NINE = round(datetime(2027, 3, 1, 9, 0, 10, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=NINE)


@pytest.fixture
async def queue(clock: FakeClock) -> AsyncIterator[AsyncQueue]:
    """A door without workers: tests tick by hand."""
    async with AsyncQueue("sqlite://:memory:", backends=[Gated()], settings=tuned(), work=False, clock=clock) as queue:
        yield queue


@pytest.fixture
async def ticker(queue: AsyncQueue, clock: FakeClock) -> AsyncIterator[Ticker]:
    ticker = Ticker(queue.store, clock=clock, rng=random.Random(1), max_queue_size=None)
    yield ticker
    await ticker.stop()


async def payloads(queue: AsyncQueue, name: str = "hourly") -> list[str]:
    return [task.spec.payload["name"] for task in reversed(await queue.schedules.history(name))]


async def end_all(queue: AsyncQueue, name: str = "hourly") -> None:
    await queue.cancel(*[task.id for task in await queue.schedules.history(name) if not task.state.is_final])


# the door ------------------------------------------------------------------------------------------------------------


async def test_a_schedule_is_kept_with_all_that_was_said(queue: AsyncQueue) -> None:
    made = await queue.schedules.put(
        "daily",
        "0 9 * * mon-fri",
        task={**TASK, "priority": "high", "tags": ["report"], "options": {"seed": 1}, "timeout": 30.0},
        tz="Europe/Berlin",
        misfire="all",
        window="2h",
        overlap="queue",
        jitter=timedelta(seconds=30),
        start_within="10m",
        metadata={"owner": "me"},
    )
    assert made == await queue.schedules.get("daily") == await queue.schedules.get(made.id)
    assert (made.window, made.jitter, made.start_within, made.task.priority) == (7200.0, 30.0, 600.0, 10)
    assert made.description == "at 09:00 on Monday to Friday"
    assert made.next_fire == round(datetime(2027, 3, 2, 8, tzinfo=UTC).timestamp() * 1000)
    assert made.due == made.next_fire + made.offset
    assert made.created == made.updated == NINE


async def test_putting_the_same_again_changes_nothing_and_another_time_counts_from_now(queue: AsyncQueue, clock: FakeClock) -> None:
    first = await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    clock.advance(5 * HOUR)
    assert await queue.schedules.put("hourly", "0 * * * *", task=TASK) == first
    retold = await queue.schedules.put("hourly", "0 * * * *", task={**TASK, "priority": 1})
    assert (retold.id, retold.mark, retold.created) == (first.id, first.mark, first.created), "missed fires are still made up for"
    moved = await queue.schedules.put("hourly", "30 * * * *", task=TASK)
    assert (moved.id, moved.mark) == (first.id, clock.read().wall)


async def test_a_program_that_starts_again_does_not_undo_what_an_operator_switched_off(queue: AsyncQueue) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    off = await queue.schedules.disable("hourly")
    assert await queue.schedules.put("hourly", "0 * * * *", task=TASK) == off
    assert not (await queue.schedules.put("hourly", "5 * * * *", task=TASK)).enabled
    assert (await queue.schedules.put("hourly", "5 * * * *", task=TASK, enabled=True)).enabled


async def test_add_does_not_replace(queue: AsyncQueue) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task=TASK, replace=False)
    with pytest.raises(Conflict, match="there is a schedule 'hourly'"):
        await queue.schedules.put("hourly", "1 * * * *", task=TASK, replace=False)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"expression": "60 * * * *"}, "expression"),
        ({"expression": "0 0 31 2 *"}, "expression"),
        ({"tz": "Europe/Berln"}, "tz"),
        ({"misfire": "sometimes"}, "misfire"),
        ({"overlap": "both"}, "overlap"),
        ({"window": "8d"}, "window"),
        ({"window": -1}, "window"),
        ({"jitter": "2d"}, "jitter"),
        ({"start_within": 0}, "start_within"),
        ({"metadata": {"a": float("nan")}}, "metadata.a"),
        ({"task": {}}, "task.executor"),
        ({"task": {**TASK, "executor": "nowhere"}}, "task.executor"),
        ({"task": {**TASK, "action": "dance"}}, "task.action"),
        ({"task": {**TASK, "priority": "urgent"}}, "task.priority"),
        ({"task": {**TASK, "key": "k"}}, "task.key"),
        ({"task": {**TASK, "scheduled_at": 5}}, "task.scheduled_at"),
        ({"task": {**TASK, "deadline": 5}}, "task.deadline"),
        ({"task": {**TASK, "schedule": "other"}}, "task.schedule"),
        ({"task": {**TASK, "colour": "red"}}, "task.colour"),
        ({"task": {**TASK, "payload": {"x": float("inf")}}}, "task.payload.x"),
    ],
)
async def test_what_is_wrong_is_refused_at_once_and_named(queue: AsyncQueue, changes: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"name": "x", "expression": "0 * * * *", "task": TASK, **changes}
    with pytest.raises(InvalidTask) as caught:
        await queue.schedules.put(given.pop("name"), given.pop("expression"), **given)
    assert caught.value.field == field
    assert await queue.schedules.list() == []


async def test_a_template_is_held_to_its_executors_rules() -> None:
    async with AsyncQueue("sqlite://:memory:", backends=[EchoExecutor("echo")], settings=tuned(), work=False) as queue:
        with pytest.raises(InvalidTask) as caught:
            await queue.schedules.put(
                "x", "@daily", task={"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": "no"}}
            )
        assert caught.value.field.startswith("task.payload")
        by_type = {"type": "chat", "executor": "echo", "model": "m", "messages": [{"role": "user", "content": "hi"}]}
        made = await queue.schedules.put("x", "@daily", task=by_type)
        assert (made.task.action, made.task.payload) == ("chat", {"messages": [{"role": "user", "content": "hi"}]})
        assert await queue.schedules.put("x", "@daily", task=made.task) == made


async def test_update_changes_what_it_names_and_switches_are_idempotent(queue: AsyncQueue, clock: FakeClock) -> None:
    made = await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    later = await queue.schedules.update("hourly", overlap="allow", metadata={"a": 1})
    assert later == msgspec.structs.replace(made, overlap="allow", metadata={"a": 1})
    off = await queue.schedules.disable("hourly")
    assert (off.enabled, off.due) == (False, None)
    clock.advance(1)
    assert await queue.schedules.disable("hourly") == off
    assert [found.name for found in await queue.schedules.list(enabled=False)] == ["hourly"]
    assert await queue.schedules.list(enabled=True) == []
    clock.advance(3 * HOUR)
    on = await queue.schedules.enable("hourly")
    assert on.mark == clock.read().wall
    with pytest.raises(InvalidTask, match="expected some of expression, task"):
        await queue.schedules.update("hourly", colour="red")
    with pytest.raises(InvalidTask):
        await queue.schedules.update("hourly", expression="nonsense")
    assert await queue.schedules.get("hourly") == on


async def test_the_list_goes_on_where_it_ended(queue: AsyncQueue) -> None:
    for name in ("c", "a", "b"):
        await queue.schedules.put(name, "@daily", task=TASK)
    first = await queue.schedules.list(limit=2)
    assert [found.name for found in first] == ["a", "b"]
    assert [found.name for found in await queue.schedules.list(limit=2, after="b")] == ["c"]


async def test_what_is_not_there_is_not_found(queue: AsyncQueue) -> None:
    for ask in (queue.schedules.get, queue.schedules.enable, queue.schedules.remove, queue.schedules.run, queue.schedules.history):
        with pytest.raises(RecordNotFound, match="expected the name or id of a schedule, got 'nobody'"):
            await ask("nobody")


async def test_a_preview_shows_fires_in_their_zone(queue: AsyncQueue) -> None:
    after = datetime(2026, 10, 24, 12, tzinfo=UTC)
    found = await queue.schedules.preview("30 2 * * *", tz="Europe/Berlin", count=2, after=after)
    assert [at.isoformat() for at in found] == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    for wrong in ({"count": 0}, {"tz": "Nowhere"}, {"expression": "x"}, {"after": datetime(2026, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(InvalidTask):
            await queue.schedules.preview(**{"expression": "@daily", **wrong})


# firing --------------------------------------------------------------------------------------------------------------


async def test_each_fire_makes_one_task_and_the_schedule_counts_it(queue: AsyncQueue, clock: FakeClock, ticker: Ticker) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task={**TASK, "tags": ["report"], "priority": 10}, overlap="allow")
    await ticker.look()
    assert await payloads(queue) == []
    for _ in range(3):
        clock.advance(HOUR)
        await ticker.look()
        await ticker.look()
    assert await payloads(queue) == ["report of 10:00", "report of 11:00", "report of 12:00"]
    now = await queue.schedules.get("hourly")
    newest = (await queue.schedules.history("hourly"))[0]
    assert (now.fire_count, now.last_task, now.last_fire) == (3, newest.id, newest.spec.scheduled_at)
    assert (newest.spec.schedule, newest.spec.tags, newest.priority) == ("hourly", ["report"], 10)
    assert newest.spec.metadata["cron_run_count"] == 3
    told = [event async for event in _events(queue) if isinstance(event, ScheduleFired)]
    assert [event.task_id for event in told][-1] == newest.id


async def _events(queue: AsyncQueue) -> AsyncIterator[Any]:
    for event in await queue.store.events():
        yield event


async def test_a_clock_that_steps_back_repeats_no_fire(queue: AsyncQueue, clock: FakeClock, ticker: Ticker) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task=TASK, overlap="allow", misfire="all", window="3h")
    clock.advance(2 * HOUR)
    await ticker.look()
    clock.step(-3 * HOUR)
    for _ in range(3):
        await ticker.look()
        clock.advance(HOUR)
    assert await payloads(queue) == ["report of 10:00", "report of 11:00"]
    clock.advance(HOUR)
    await ticker.look()
    assert await payloads(queue) == ["report of 10:00", "report of 11:00", "report of 12:00"]


async def test_downtime_is_made_up_for_as_the_policy_says(queue: AsyncQueue, clock: FakeClock) -> None:
    for misfire, window in (("skip", "1h"), ("once", "1h"), ("all", "2h")):
        await queue.schedules.put(misfire, "*/30 * * * *", task=TASK, misfire=misfire, window=window, overlap="allow")
    clock.advance(10 * HOUR)
    ticker = Ticker(queue.store, clock=clock, rng=random.Random(1), max_queue_size=None)
    await ticker.look()
    await ticker.stop()
    assert await payloads(queue, "skip") == ["report of 19:00"], "ten seconds late is not missed"
    assert await payloads(queue, "once") == ["report of 19:00"]
    assert await payloads(queue, "all") == ["report of 17:30", "report of 18:00", "report of 18:30", "report of 19:00"]
    skipped = (await queue.schedules.get("all")).last_skip
    assert skipped is not None
    assert (skipped.count, skipped.reason) == (16, "misfire: nobody made it in time")
    told = [event async for event in _events(queue) if isinstance(event, ScheduleSkipped)]
    assert {event.schedule for event in told} == {"skip", "once", "all"}


async def test_overlap_policies_hold_between_real_tasks(queue: AsyncQueue, clock: FakeClock, ticker: Ticker) -> None:
    for overlap in ("allow", "skip", "queue", "cancel"):
        await queue.schedules.put(overlap, "0 * * * *", task=TASK, overlap=overlap)
    for _ in range(3):
        clock.advance(HOUR)
        await ticker.look()
    assert len(await payloads(queue, "allow")) == 3
    assert await payloads(queue, "skip") == ["report of 10:00"]
    assert await payloads(queue, "queue") == ["report of 10:00"]
    assert await payloads(queue, "cancel") == ["report of 10:00", "report of 11:00", "report of 12:00"]
    states = [(task.state, task.error) for task in await queue.schedules.history("cancel")]
    assert [state for state, _ in states] == [State.PENDING, State.CANCELLED, State.CANCELLED]
    assert states[1][1] == "schedule cancel: its next fire came"
    await end_all(queue, "queue")
    await end_all(queue, "skip")
    await ticker.look()
    assert await payloads(queue, "queue") == ["report of 10:00", "report of 11:00"], "the first that had to wait"
    assert await payloads(queue, "skip") == ["report of 10:00"]


async def test_schedules_of_one_name_and_several_tenants_know_nothing_of_each_other(
    queue: AsyncQueue, clock: FakeClock, ticker: Ticker
) -> None:
    for tenant in ("", "a", "b"):
        await queue.schedules.put("hourly", "0 * * * *", task=TASK | {"tenant": tenant}, overlap="skip")
    clock.advance(HOUR)
    await ticker.look()
    theirs = {place: await queue.schedules.history(place) for place in ("hourly", "a/hourly", "b/hourly")}
    assert {place: [task.flow.tenant for task in tasks] for place, tasks in theirs.items()} == {
        "hourly": [""],
        "a/hourly": ["a"],
        "b/hourly": ["b"],
    }
    await queue.cancel(theirs["a/hourly"][0].id)
    clock.advance(HOUR)
    await ticker.look()
    assert {place: len(await queue.schedules.history(place)) for place in theirs} == {"hourly": 1, "a/hourly": 2, "b/hourly": 1}
    told = [event async for event in _events(queue) if event.type.startswith("schedule.")]
    assert sorted((event.tenant, event.type) for event in told) == sorted(
        [
            *(("", "schedule.fired"), ("", "schedule.skipped"), ("a", "schedule.fired"), ("a", "schedule.fired")),
            *(("b", "schedule.fired"), ("b", "schedule.skipped")),
        ]
    )
    await queue.schedules.update("a/hourly", task=TASK | {"priority": 9})
    assert [(one.place, one.task.priority) for one in await queue.schedules.list()] == [("a/hourly", 9), ("b/hourly", 5), ("hourly", 5)]
    assert [one.place for one in await queue.schedules.list(after="a/hourly")] == ["b/hourly", "hourly"]
    with pytest.raises(InvalidTask, match="put a schedule for that tenant instead"):
        await queue.schedules.update("a/hourly", task=TASK | {"tenant": "b"})
    await queue.schedules.remove("hourly")
    with pytest.raises(AmbiguousId, match="a/hourly and b/hourly"):
        await queue.schedules.get("hourly")
    await queue.schedules.remove("b/hourly")
    assert (await queue.schedules.get("hourly")).tenant == "a"


async def test_a_queue_without_room_loses_no_fire(queue: AsyncQueue, clock: FakeClock) -> None:
    ticker = Ticker(queue.store, clock=clock, rng=random.Random(1), max_queue_size=1)
    await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    filler = await queue.submit("gated", "work", payload={"name": "filler"})
    clock.advance(HOUR)
    await ticker.look()
    assert await payloads(queue) == []
    await filler.cancel()
    clock.advance(1)
    await ticker.look()
    assert await payloads(queue) == ["report of 10:00"]
    await ticker.stop()


async def test_run_makes_a_task_now_even_of_a_disabled_schedule_and_once_for_a_key(queue: AsyncQueue) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task=TASK, enabled=False)
    first = await queue.schedules.run("hourly", key="k")
    assert (await queue.schedules.run("hourly", key="k")).id == first.id
    assert (await queue.schedules.run("hourly")).id != first.id
    task = await first.refresh()
    assert (task.spec.payload["name"], task.spec.metadata["cron_by_hand"]) == ("report of 09:00", True)
    assert (await queue.schedules.get("hourly")).fire_count == 0


async def test_a_removed_schedule_fires_no_more_and_its_tasks_stay(queue: AsyncQueue, clock: FakeClock, ticker: Ticker) -> None:
    await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    handle = await queue.schedules.run("hourly")
    await ticker.look()
    await queue.schedules.remove("hourly")
    clock.advance(HOUR)
    await ticker.look()
    assert (await handle.refresh()).state is State.PENDING
    assert (await queue.stats()).total == 1
    with pytest.raises(RecordNotFound):
        await queue.schedules.remove("hourly")


async def test_two_tickers_make_each_fire_once(tmp_path: Path, clock: FakeClock) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    async with (
        AsyncQueue(url, backends=[Gated()], settings=tuned(), work=False, clock=clock) as one,
        AsyncQueue(url, backends=[Gated()], settings=tuned(), work=False, clock=clock) as two,
    ):
        await one.schedules.put("hourly", "0 * * * *", task=TASK, overlap="allow")
        tickers = [Ticker(queue.store, clock=clock, rng=random.Random(seed), max_queue_size=None) for seed, queue in enumerate((one, two))]
        for _ in range(10):
            clock.advance(HOUR)
            await _together(*(ticker.look() for ticker in tickers))
        assert len(await payloads(one)) == len(set(await payloads(one))) == 10
        for ticker in tickers:
            await ticker.stop()


async def _together(*looks: Any) -> None:
    await asyncio.gather(*looks)


class Deaf:
    """A store from which no news comes."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def listen(self, listener: Any) -> Any:
        return lambda: None


async def test_a_ticker_that_heard_nothing_finds_changes_when_it_reads_all_again(queue: AsyncQueue, clock: FakeClock) -> None:
    ticker = Ticker(Deaf(queue.store), clock=clock, rng=random.Random(1), max_queue_size=None)  # type: ignore[arg-type]
    await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    clock.advance(HOUR)
    await ticker.look()
    assert await payloads(queue) == ["report of 10:00"]
    await ticker.stop()


async def test_an_unreadable_schedule_of_a_newer_version_stops_no_other(queue: AsyncQueue, clock: FakeClock, ticker: Ticker) -> None:
    await queue.store.put_record(RecordPut("schedule", "broken", b'{"id": 1}'), clock.read())
    made = await queue.schedules.put("hourly", "0 * * * *", task=TASK)
    elsewhere = msgspec.structs.replace(made, name="elsewhere", tz="Mars/Olympus")
    await queue.store.put_record(RecordPut("schedule", "elsewhere", encoded(elsewhere)), clock.read())
    clock.advance(HOUR)
    await ticker.look()
    assert await payloads(queue) == ["report of 10:00"]
    assert [one.name for one in await queue.schedules.list()] == ["elsewhere", "hourly"]
    with pytest.raises(StoreError, match="schedule 'broken' cannot be read"):
        await queue.schedules.get("broken")
    await queue.schedules.remove("broken")


async def test_a_working_queue_fires_by_itself_and_runs_what_it_made(clock: FakeClock) -> None:
    gated = Gated()
    gated.everybody = True
    async with AsyncQueue("sqlite://:memory:", backends=[gated], settings=tuned(), clock=clock) as queue:
        await queue.schedules.put("hourly", "0 * * * *", task=Submission("gated", "work", payload={"name": "{schedule} {fire_count}"}))
        clock.advance(HOUR)
        await wait_until(lambda: gated.ended == ["hourly 1"])


async def test_a_held_fire_is_made_when_the_task_before_it_ends_and_nobody_looks_at_a_clock(clock: FakeClock) -> None:
    gated = Gated()
    async with AsyncQueue("sqlite://:memory:", backends=[gated], settings=tuned(), clock=clock) as queue:
        await queue.schedules.put("hourly", "0 * * * *", task={**TASK, "payload": {"name": "{fire_count}"}}, overlap="queue")
        clock.advance(HOUR)
        await wait_until(lambda: gated.started == ["1"])
        clock.advance(HOUR)

        async def held() -> bool:
            return (await queue.schedules.get("hourly")).held is not None

        await wait_until(held)
        gated.let_go("1")
        await wait_until(lambda: gated.started == ["1", "2"])
        gated.let_all_go()


async def test_a_running_task_is_cancelled_for_the_next_one(clock: FakeClock) -> None:
    gated = Gated()
    async with AsyncQueue("sqlite://:memory:", backends=[gated], settings=tuned(), clock=clock) as queue:
        await queue.schedules.put("hourly", "0 * * * *", task={**TASK, "payload": {"name": "{fire_count}"}}, overlap="cancel")
        clock.advance(HOUR)
        await wait_until(lambda: gated.started == ["1"])
        clock.advance(HOUR)
        await wait_until(lambda: gated.started == ["1", "2"])
        assert (gated.cancelled, gated.most) == (["1"], 1)
        gated.let_all_go()


def test_both_faces_of_schedules_take_the_same_parameters() -> None:
    def offered(face: type) -> dict[str, list[tuple[str, Any, Any]]]:
        methods = {name: value for name, value in vars(face).items() if inspect.isfunction(value) and not name.startswith("_")}
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()] for name, method in methods.items()
        }

    assert offered(SchedulesDoor) == offered(Schedules)


def test_the_blocking_queue_has_the_same_schedules(tmp_path: Path) -> None:
    with Queue(f"sqlite:///{tmp_path / 'q.db'}", backends=[Gated()], settings=tuned(), work=False) as queue:
        made = queue.schedules.put("hourly", "0 * * * *", task=TASK)
        assert isinstance(made, Schedule)
        assert [found.name for found in queue.schedules.list()] == ["hourly"]
        assert queue.schedules.update("hourly", overlap="allow").overlap == "allow"
        assert not queue.schedules.disable("hourly").enabled
        assert queue.schedules.enable("hourly").enabled
        handle = queue.schedules.run("hourly")
        assert [task.id for task in queue.schedules.history("hourly")] == [handle.id]
        assert len(queue.schedules.preview("@hourly", count=3)) == 3
        queue.schedules.remove("hourly")
        assert list(queue.schedules.list()) == []


async def test_schedules_of_an_older_store_keep_their_names_each_in_its_tenant(tmp_path: Path) -> None:
    db = files.connect(str(tmp_path / "old.db"))
    files.migrate(db, 8)
    for name, tenant in (("nightly", ""), ("weekly", "team-a")):
        task = Submission("gated", "work", payload={"name": "x"}, tenant=tenant)
        kept = Schedule(id=f"id-{name}", name=name, expression="0 3 * * *", task=task)
        db.execute("INSERT INTO record VALUES ('schedule', ?, 1, ?, 0, 0)", (name, encoded(kept)))
    db.commit()
    db.close()
    async with AsyncQueue(f"sqlite:///{tmp_path / 'old.db'}", backends=[Gated()], settings=tuned(), work=False) as queue:
        assert [one.place for one in await queue.schedules.list()] == ["nightly", "team-a/weekly"]
        assert (await queue.schedules.update("weekly", expression="0 4 * * *")).tenant == "team-a"
        assert len(await queue.schedules.list()) == 2
