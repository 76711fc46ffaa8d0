"""Guide 6: watch what happens, find tasks, count them."""

from __future__ import annotations

from inferq import AsyncQueue, Filter, State
from inferq.testing import wait_until


async def test_everything_that_happens_is_told_in_order(queue: AsyncQueue) -> None:
    seen: list[str] = []
    unsubscribe = queue.subscribe(lambda event: seen.append(event.type))
    await (await queue.chat("my-model", "hi", executor="echo")).result()
    await wait_until(lambda: len(seen) == 3)
    assert seen == ["task.submitted", "task.started", "task.completed"]
    unsubscribe()


async def test_ask_only_for_what_matters(queue: AsyncQueue) -> None:
    failed: list[str] = []
    queue.subscribe(lambda event: failed.append(event.task_id), "task.failed")
    await (await queue.chat("my-model", "fine", executor="echo")).result()
    bad = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["auth"]})
    await bad.wait()
    await wait_until(lambda: failed == [bad.id])


async def test_the_log_can_be_read_from_the_beginning_or_any_cursor(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo")
    await task.result()
    cursor = 0
    async for event in queue.events("task.*", after=0):
        cursor = event.position
        if event.task_id == task.id and event.type == "task.completed":
            break
    await queue.chat("my-model", "more", executor="echo")
    async for event in queue.events(after=cursor):
        assert event.type == "task.submitted"
        break


async def test_find_tasks_and_count_them(queue: AsyncQueue) -> None:
    for number in range(3):
        await (await queue.chat("my-model", f"{number}", executor="echo", tags=["mine"])).result()
    page = await queue.list(Filter(states=(State.COMPLETED,), tag="mine"), limit=2)
    rest = await queue.list(Filter(states=(State.COMPLETED,), tag="mine"), limit=2, after=page.after)
    assert [task.spec.payload["messages"][0]["content"] for task in page.tasks + rest.tasks] == ["2", "1", "0"]
    stats = await queue.stats()
    assert (stats.states["completed"], stats.total) == (3, 3)
