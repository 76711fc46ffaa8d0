"""Guide 4: who goes first, who waits until when, and how to change one's mind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from inferq import AsyncQueue, State, TaskCancelled
from inferq.testing import wait_until


async def test_higher_priority_goes_first_and_equals_in_order(queue: AsyncQueue) -> None:
    await queue.pause()
    wanted = [("later", "low"), ("soon", "normal"), ("now", "critical"), ("soon too", 5), ("between", 7)]
    tasks = [await queue.chat("my-model", text, executor="echo", priority=priority) for text, priority in wanted]
    started: list[str] = []
    queue.subscribe(lambda event: started.append(event.task_id), "task.started")
    await queue.resume()
    for task in tasks:
        await task.result()
    await wait_until(lambda: len(started) == len(tasks))
    names = {task.id: text for task, (text, _) in zip(tasks, wanted, strict=True)}
    assert [names[id] for id in started] == ["now", "between", "soon", "soon too", "later"]


async def test_a_waiting_task_can_be_moved(queue: AsyncQueue) -> None:
    await queue.pause()
    task = await queue.chat("my-model", "hi", executor="echo", priority="low")
    await queue.set_priority(task.id, "critical")
    assert (await task.refresh()).priority == 15


async def test_a_task_can_wait_for_its_time(queue: AsyncQueue) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    task = await queue.chat("my-model", "good morning", executor="echo", at=tomorrow)
    soon = await queue.chat("my-model", "hi", executor="echo", delay="20ms")
    assert (await soon.result()).text == "hi"
    assert (await task.refresh()).state is State.SCHEDULED
    assert (await queue.why(task.id)).startswith("scheduled: not before")


async def test_a_task_can_be_cancelled_while_it_waits_or_runs(queue: AsyncQueue) -> None:
    waiting = await queue.chat("my-model", "hi", executor="echo", delay="1h")
    running = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["hang"]})
    await waiting.cancel()
    await running.cancel("changed my mind")
    with pytest.raises(TaskCancelled, match="changed my mind"):
        await running.result()
    assert (await waiting.refresh()).state is State.CANCELLED


async def test_a_paused_lane_keeps_its_tasks_until_it_is_resumed(queue: AsyncQueue) -> None:
    await queue.pause("echo/my-model")
    task = await queue.chat("my-model", "hi", executor="echo")
    assert (await queue.why(task.id)).startswith("paused")
    await queue.resume("echo/my-model")
    assert (await task.result()).text == "hi"
