"""`queue.on`: functions that are called for events in this process."""

from __future__ import annotations

from typing import Any

import pytest
from places import Does, tuned

from inferq import Call, Queue
from inferq.errors import InvalidQuery
from inferq.events import Event
from inferq.testing import wait_until


async def fate(call: Call) -> Any:
    return call.payload.get("n")


async def test_a_function_is_called_for_the_events_it_names_and_the_tasks_its_filter_lets_pass(opened: Any) -> None:
    queue = await opened(Does(fate))
    every: list[str] = []
    billing: list[str] = []

    @queue.on("task.completed")
    def note(event: Event) -> None:
        every.append(event.task_id)  # type: ignore[attr-defined, union-attr] # only tasks' events were asked for

    @queue.on("task.*", "queue.*", query="tag:billing state:completed")
    async def alert(event: Event) -> None:
        if event.type == "task.completed":
            billing.append(event.task_id)  # type: ignore[attr-defined, union-attr] # as above

    other = await queue.submit("does", "work", tags=["other"])
    wanted = await queue.submit("does", "work", tags=["billing"])
    await queue.pause("x")
    await wait_until(lambda: len(every) == 2 and len(billing) == 1, what="both functions to be called")
    assert sorted(every) == sorted([other.id, wanted.id])
    assert billing == [wanted.id]


async def test_wrong_names_and_filters_are_refused_at_once(opened: Any) -> None:
    queue = await opened(Does(fate), work=False)
    with pytest.raises(ValueError, match="nothing"):
        queue.on("nothing")(print)
    with pytest.raises(InvalidQuery):
        queue.on("task.*", query="nothing:1")


async def test_what_a_function_raises_harms_nobody(opened: Any) -> None:
    queue = await opened(Does(fate))
    seen: list[str] = []

    @queue.on("task.completed")
    def broken(event: Event) -> None:
        raise RuntimeError("as asked")

    @queue.on("task.completed")
    def fine(event: Event) -> None:
        seen.append(event.type)

    await (await queue.submit("does", "work")).result()
    await wait_until(lambda: seen == ["task.completed"])


def test_a_program_without_an_event_loop_reacts_too() -> None:
    seen: list[str] = []
    with Queue("sqlite://:memory:", backends=[Does(fate)], settings=tuned()) as queue:

        @queue.on("task.completed", query="executor:does")
        def note(event: Event) -> None:
            seen.append(queue.get(event.task_id).state)  # type: ignore[attr-defined, union-attr] # a task's event

        handle = queue.submit("does", "work")
        handle.result(timeout=10)
        while not seen:
            queue.get(handle.id)
    assert seen == ["completed"]
