"""Guide 9: tasks that come again at set times."""

from __future__ import annotations

from datetime import UTC, datetime

from inferq import AsyncQueue

TASK = {
    "executor": "echo",
    "action": "chat",
    "model": "my-model",
    "payload": {"messages": [{"role": "user", "content": "{schedule} says hi"}]},
}


async def test_a_schedule_is_put_at_every_start_of_a_program(queue: AsyncQueue) -> None:
    first = await queue.schedules.put("daily", "0 9 * * mon-fri", task=TASK, tz="Europe/Berlin")
    again = await queue.schedules.put("daily", "0 9 * * mon-fri", task=TASK, tz="Europe/Berlin")
    assert first == again
    assert first.description == "at 09:00 on Monday to Friday"


async def test_its_task_can_be_made_at_once(queue: AsyncQueue) -> None:
    await queue.schedules.put("daily", "@daily", task=TASK)
    task = await queue.schedules.run("daily")
    assert (await task.result()).text == "daily says hi"
    assert [made.id for made in await queue.schedules.history("daily")] == [task.id]


async def test_policies_say_what_follows_a_missed_fire_and_a_slow_task(queue: AsyncQueue) -> None:
    made = await queue.schedules.put("careful", "*/10 * * * *", task=TASK, misfire="all", window="1h", overlap="queue", jitter="30s")
    assert (made.misfire, made.window, made.overlap, made.jitter) == ("all", 3600.0, "queue", 30.0)


async def test_a_schedule_is_switched_off_and_on_and_changed(queue: AsyncQueue) -> None:
    await queue.schedules.put("daily", "@daily", task=TASK)
    assert (await queue.schedules.disable("daily")).due is None
    assert (await queue.schedules.enable("daily")).due is not None
    changed = await queue.schedules.update("daily", expression="30 8 * * *")
    assert (changed.expression, changed.task.model) == ("30 8 * * *", "my-model")
    await queue.schedules.remove("daily")
    assert await queue.schedules.list() == []


async def test_an_expression_can_be_looked_at_before_it_is_used(queue: AsyncQueue) -> None:
    after = datetime(2026, 3, 28, 12, tzinfo=UTC)
    fires = await queue.schedules.preview("30 2 * * *", tz="Europe/Berlin", count=2, after=after)
    assert [fire.isoformat() for fire in fires] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
