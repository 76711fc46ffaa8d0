"""What the client and server of the forerunner promised about schedules and times, and did not keep: gaps B3, B4, B11, B12."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inferq import AsyncQueue, InvalidTask, State
from inferq.testing import EchoExecutor, FakeClock, wait_until

Opener = Callable[..., Awaitable[AsyncQueue]]
NINE = round(datetime(2027, 3, 1, 9, 0, 10, tzinfo=UTC).timestamp() * 1000)


async def test_b03_a_schedule_fires_without_anybody_asking_and_its_chat_is_answered(tmp_path: Any) -> None:
    clock = FakeClock(wall=NINE)
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")], clock=clock) as queue:
        task = {"type": "chat", "executor": "echo", "model": "m", "messages": [{"role": "user", "content": "of {scheduled_at:%H:%M}"}]}
        await queue.schedules.put("hourly", "0 * * * *", task=task)
        clock.advance(3600)

        async def answered() -> bool:
            return any(task.state is State.COMPLETED for task in await queue.schedules.history("hourly"))

        await wait_until(answered)
        (made,) = await queue.schedules.history("hourly")
        assert (await queue.result(made.id)).text == "of 10:00"
        assert (await queue.schedules.get("hourly")).fire_count == 1


def test_b03_a_schedule_that_the_command_line_adds_makes_a_task_that_its_executor_takes(inferq: Any) -> None:
    inferq(
        "cron", "add", "--name", "n", "--cron", "@hourly", "--executor", "echo", "--model", "m", "--prompt", "hi", "--system", "be brief"
    )
    inferq("cron", "run", "n")
    worker = inferq.start("work")
    (task,) = inferq.json("cron", "history", "n")
    assert task["payload"]["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert inferq("result", task["id"], "--wait").strip() == "hi"
    worker.terminate()


async def test_b04_a_task_with_a_time_waits_for_it(tmp_path: Any) -> None:
    clock = FakeClock(wall=NINE)
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")], clock=clock) as queue:
        at = datetime.fromtimestamp(NINE / 1000, UTC) + timedelta(hours=1)
        single = await queue.chat("m", "single", executor="echo", at=at)
        text = at.astimezone().isoformat()
        one = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "line"}]}}
        (line,) = await queue.submit_many([{**one, "scheduled_at": text}])
        for handle in (single, line):
            task = await handle.refresh()
            assert (task.state, task.due, task.spec.scheduled_at) == (State.SCHEDULED, NINE + 3_600_000, NINE + 3_600_000)
        assert (await queue.why(single.id)).startswith("scheduled: not before 2027-03-01T10:00:10")
        clock.advance(3599)
        assert (await single.refresh()).state is State.SCHEDULED
        clock.advance(1)
        assert [(await handle.result(timeout=20)).text for handle in (single, line)] == ["single", "line"]


async def test_b04_a_line_of_a_batch_waits_for_its_time(tmp_path: Any) -> None:
    clock = FakeClock(wall=NINE)
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")], clock=clock) as queue:
        one = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "line"}]}}
        batch = await queue.batches.from_rows([{**one, "scheduled_at": "2027-03-01T11:00:10+01:00"}])
        async for task in queue.iterate():
            assert (task.state, task.due, task.spec.batch) == (State.SCHEDULED, NINE + 3_600_000, batch.id)
        clock.advance(3600)
        assert (await batch.wait(timeout=20)).completed == 1


@pytest.mark.parametrize(
    "wrong", ["2027-01-31T10:00:00", "2027-01-31", "tomorrow", "", "1960-01-01T00:00:00Z", "9999-99-99T00:00:00Z", True, 1.5, []]
)
async def test_b04_a_time_without_its_zone_is_refused_and_named(opened: Opener, wrong: Any) -> None:
    queue = await opened()
    one = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "line"}]}}
    with pytest.raises(InvalidTask) as caught:
        await queue.submit_many([{**one, "scheduled_at": wrong}])
    assert caught.value.field == "submissions[0].scheduled_at"


def test_b04_the_command_line_takes_and_shows_times(inferq: Any) -> None:
    entries = [{"executor": "echo", "action": "echo", "payload": {"a": 1}, "scheduled_at": "2099-01-31T11:00:00+01:00"}]
    (inferq.home / "raw.json").write_text(json.dumps(entries))
    raw = inferq("submit", "raw", "--file", "raw.json", "-q").strip()
    at = inferq("submit", "chat", "--model", "m", "--executor", "echo", "hi", "--at", "2099-01-31T10:00:00Z", "-q").strip()
    due = round(datetime(2099, 1, 31, 10, tzinfo=UTC).timestamp() * 1000)
    for task_id in (raw, at):
        task = inferq.json("show", task_id)
        assert (task["state"], task["scheduled_at"], task["due"]) == ("scheduled", due, due)
    assert {task["id"] for task in inferq.json("list", "--status", "scheduled")} == {raw, at}
    assert "not before 2099-01-31T10:00:00" in inferq("status", at)


def test_b11_both_flags_a_positional_and_day_seven_work(inferq: Any) -> None:
    shown = [
        inferq("cron", "test", *how, "--after", "2026-11-22T00:00:00Z")
        for how in (["0 0 * * 7"], ["--schedule", "0 0 * * 7"], ["--cron", "0 0 * * 0"])
    ]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0].splitlines()[1:3] == ["2026-11-29T00:00:00+00:00", "2026-12-06T00:00:00+00:00"]
    for number, flag in enumerate(("--schedule", "--cron")):
        inferq("cron", "add", "--name", f"n{number}", flag, "0 0 * * 7", "--executor", "echo", "--model", "m", "--prompt", "hi")
    assert [one["next_fire"] for one in inferq.json("cron", "list")] == [inferq.json("cron", "show", "n0")["next_fire"]] * 2


async def test_b12_dates_come_when_they_come_days_are_alternatives_and_ranges_have_steps(opened: Opener) -> None:
    schedules = (await opened()).schedules

    async def dates(expression: str, count: int) -> list[str]:
        after = datetime(2026, 1, 1, tzinfo=UTC)
        return [at.strftime("%Y-%m-%d %H:%M") for at in await schedules.preview(expression, count=count, after=after)]

    assert await dates("0 0 29 2 *", 2) == ["2028-02-29 00:00", "2032-02-29 00:00"]
    assert await dates("0 0 13 * 5", 3) == ["2026-01-02 00:00", "2026-01-09 00:00", "2026-01-13 00:00"]
    assert await dates("0 8-18/5 1 1 *", 3) == ["2026-01-01 08:00", "2026-01-01 13:00", "2026-01-01 18:00"]
    with pytest.raises(InvalidTask, match="this date never comes"):
        await dates("0 0 31 2 *", 1)
