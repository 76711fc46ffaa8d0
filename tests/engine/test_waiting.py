"""A waiting task says why it waits, also to a process that runs nothing; refusals say when to come again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from places import Gated, place

from inferq.errors import QueueFull
from inferq.testing import wait_until


async def work(queue: Any, name: str, **more: Any) -> Any:
    return await queue.submit("gated", "work", payload={"name": name}, **more)


async def test_position_and_estimate_come_from_what_stands_before_and_from_measured_times(opened: Any, tmp_path: Path) -> None:
    gated = Gated()
    queue = await opened(place(gated, kind="gated", slots=2), url=tmp_path / "q.db")
    first = [await work(queue, f"warm{n}") for n in range(2)]
    gated.let_go("warm0", "warm1")
    for task in first:
        await task.result()
    for name in ("a", "b"):
        await work(queue, name)
    await wait_until(lambda: gated.running == 2)
    waiting = [await work(queue, name) for name in ("c", "d", "e")]
    door = await opened(url=tmp_path / "q.db", work=False)
    for asked in (queue, door):
        found = [await asked.explain(task.id) for task in waiting]
        assert [(one.gate, one.position, one.in_flow, one.ahead) for one in found] == [
            ("slots", 1, 1, 0),
            ("behind", 2, 2, 1),
            ("behind", 3, 3, 2),
        ]
        estimates = [one.estimate_seconds for one in found]
        assert None not in estimates
        assert estimates == sorted(estimates)
        assert found[2].backends == ("gated",)
        assert "position 3, about" in await asked.why(waiting[2].id)


async def test_higher_priority_and_other_lanes_on_the_same_slots_stand_before_it(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    await work(queue, "running")
    await wait_until(lambda: gated.running == 1)
    low = await work(queue, "low", priority="low")
    for n in range(3):
        await work(queue, f"high{n}", priority="high")
    await work(queue, "other", model="other")
    found = await queue.explain(low.id)
    assert (found.position, found.in_flow, found.ahead) == (4, 1, 4)


async def test_who_stopped_working_is_no_longer_counted(opened: Any, tmp_path: Path) -> None:
    worker = await opened(Gated(), url=tmp_path / "q.db", slots=1)
    door = await opened(Gated(), url=tmp_path / "q.db", work=False)
    running = await work(door, "a")
    waiting = await work(door, "b")
    await wait_until(lambda: worker.places()[0].busy == 1)
    assert (await door.explain(waiting.id)).gate == "slots"
    await worker.close(0)
    again = await opened(Gated(), url=tmp_path / "q.db", work=False)
    assert [(await again.explain(task.id)).gate for task in (running, waiting)] == ["no_worker", "no_worker"]


async def test_a_full_queue_says_when_to_come_again(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1, max_queue_size=1)
    await work(queue, "a")
    await wait_until(lambda: gated.running == 1)
    await work(queue, "b")
    with pytest.raises(QueueFull) as caught:
        await work(queue, "c")
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 3600


async def test_a_tenant_at_its_limit_is_the_gate(opened: Any, tmp_path: Path) -> None:
    gated = Gated()
    queue = await opened(gated, url=tmp_path / "q.db")
    await queue.keys.set_limits("acme", concurrency=1)
    await work(queue, "a", tenant="acme")
    await wait_until(lambda: gated.running == 1)
    second = await work(queue, "b", tenant="acme")
    assert (await queue.explain(second.id)).gate == "tenant_limit"
