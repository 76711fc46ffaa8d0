"""The worker claims only for free slots, in order of priority, woken by what happens and by nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from places import Does, Gated, place

from inferq import Call, Filter, RetryLater, State, Unavailable
from inferq.testing import FakeClock, wait_until


async def states(queue: Any) -> dict[str, int]:
    counts: dict[str, int] = {state: number for state, number in (await queue.stats()).states.items() if number}
    return counts


async def test_only_as_many_tasks_as_there_are_slots_are_claimed(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=3)
    await queue.submit_many([{"executor": "gated", "action": "work"} for _ in range(10)])
    await wait_until(lambda: gated.running == 3)
    assert await states(queue) == {"running": 3, "pending": 7}
    gated.let_all_go()
    await wait_until(lambda: len(gated.ended) == 10)
    assert gated.most == 3


async def test_a_freed_slot_is_filled_without_a_poll(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    for name in "abc":
        await queue.submit("gated", "work", payload={"name": name})
    for name in "abc":
        await wait_until(lambda name=name: gated.started[-1:] == [name])
        gated.let_go(name)
    await wait_until(lambda: gated.ended == ["a", "b", "c"])


async def test_each_backends_own_slots_hold_with_several_backends_and_models(opened: Any) -> None:
    small, big, other = Gated("small"), Gated("big"), Gated("other")
    queue = await opened(
        place(small, kind="gated", slots=1, models=("m1",)),
        place(big, kind="gated", slots=2, models=("m1", "m2")),
        place(other, kind="other", slots=2),
        slots=50,
    )
    wanted = [("gated", "m1"), ("gated", "m2"), ("other", "x"), ("other", "y")] * 8
    handles = await queue.submit_many([{"executor": kind, "action": "work", "model": model} for kind, model in wanted])
    await wait_until(lambda: (small.running, big.running, other.running) == (1, 2, 2))
    assert (await states(queue))["running"] == 5
    for gated in (small, big, other):
        gated.let_all_go()
    await asyncio.gather(*(handle.result() for handle in handles))
    assert (small.most, big.most, other.most) == (1, 2, 2)
    assert len(small.ended) + len(big.ended) == len(other.ended) == 16


async def test_the_workers_slots_bound_all_backends_together(opened: Any) -> None:
    one, two = Gated("one"), Gated("two")
    queue = await opened(one, two, slots=3)
    handles = await queue.submit_many([{"executor": kind, "action": "work"} for kind in ("one", "two") * 5])
    await wait_until(lambda: one.running + two.running == 3)
    assert (await states(queue))["running"] == 3
    one.let_all_go()
    two.let_all_go()
    await asyncio.gather(*(handle.result() for handle in handles))
    assert one.most <= 3
    assert two.most <= 3


async def test_a_backend_runs_only_the_models_that_it_serves(opened: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    queue = await opened(place(gated, kind="gated", models=("known",)))
    stranger = await queue.submit("gated", "work", model="unknown")
    await (await queue.submit("gated", "work", model="known")).result()
    assert (await stranger.refresh()).state is State.PENDING
    assert await queue.why(stranger.id) == "no backend here serves lane gated/unknown"


async def test_a_task_for_a_named_backend_runs_there_and_nowhere_else(opened: Any) -> None:
    left, right = Gated("left"), Gated("right")
    left.let_all_go()
    right.let_all_go()
    queue = await opened(place(left, kind="gated"), place(right, kind="gated"))
    handles = [await queue.submit("gated", "work", backend="right") for _ in range(6)]
    results = [await handle.result() for handle in handles]
    assert {result.backend for result in results} == {"right"}
    assert left.started == []


async def test_higher_priority_goes_first_always_and_equals_in_order(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    await queue.submit("gated", "work", payload={"name": "first"})
    await wait_until(lambda: gated.started == ["first"])
    for name, priority in [("n1", "normal"), ("l1", "low"), ("c1", "critical"), ("odd", 7), ("n2", 5), ("c2", 15), ("neg", -3)]:
        await queue.submit("gated", "work", payload={"name": name}, priority=priority)
    gated.let_all_go()
    await wait_until(lambda: len(gated.ended) == 8)
    assert gated.started == ["first", "c1", "c2", "odd", "n1", "n2", "l1", "neg"]


async def test_priority_holds_over_lanes_that_share_the_slots(opened: Any) -> None:
    one, two = Gated("one"), Gated("two")
    queue = await opened(one, two, slots=1)
    await queue.submit("one", "work", payload={"name": "first"})
    await wait_until(lambda: one.running == 1)
    late = await queue.submit("one", "work", priority="low")
    urgent = await queue.submit("two", "work", priority="high")
    one.let_go("first")
    await wait_until(lambda: two.running == 1)
    assert (await late.refresh()).state is State.PENDING
    two.let_all_go()
    one.let_all_go()
    await urgent.result()
    await late.result()


async def test_a_changed_priority_changes_the_order_of_those_who_wait(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=1)
    await queue.submit("gated", "work", payload={"name": "first"})
    await wait_until(lambda: gated.started == ["first"])
    await queue.submit("gated", "work", payload={"name": "a"})
    b = await queue.submit("gated", "work", payload={"name": "b"})
    await queue.set_priority(b.id, "critical")
    gated.let_all_go()
    await wait_until(lambda: len(gated.ended) == 3)
    assert gated.started == ["first", "b", "a"]


async def test_a_delayed_task_starts_at_its_time_without_a_poll(opened: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", delay=0.05)
    assert (await handle.refresh()).state is State.SCHEDULED
    await handle.result(timeout=5)
    task = await handle.refresh()
    assert task.started is not None
    assert task.started >= task.created + 50


async def test_a_full_backend_closes_only_its_lane_and_burns_nothing(opened: Any) -> None:
    async def behaviour(call: Call) -> str:
        if call.model == "busy":
            raise RetryLater("429: come back in an hour", after=3600)
        return "done"

    does = Does(behaviour)
    queue = await opened(does, slots=1)
    busy = await queue.submit_many([{"executor": "does", "action": "work", "model": "busy"} for _ in range(5)])
    free = await queue.submit_many([{"executor": "does", "action": "work", "model": "free"} for _ in range(5)])
    await asyncio.gather(*(handle.result() for handle in free))
    assert [call.model for call in does.calls].count("busy") == 1, "the gate stayed open"
    first = await busy[0].refresh()
    assert (first.state, first.failures, first.code) == (State.SCHEDULED, 0, "rate_limited")
    assert [record.outcome for record in await queue.attempts(first.id)] == ["released"]
    assert [(await handle.refresh()).state for handle in busy[1:]] == [State.PENDING] * 4


async def test_a_gate_opens_again_and_the_lane_goes_on_without_a_poll(opened: Any) -> None:
    async def behaviour(call: Call) -> str:
        if len(does.calls) <= 3:
            raise RetryLater("503", after=0.02, failure="overloaded")
        return "done"

    does = Does(behaviour)
    queue = await opened(does, slots=1, max_retries=0)
    handles = await queue.submit_many([{"executor": "does", "action": "work"} for _ in range(3)])
    await asyncio.gather(*(handle.result(timeout=10) for handle in handles))
    page = await queue.list(Filter(states=(State.COMPLETED,)))
    assert [task.failures for task in page.tasks] == [0, 0, 0]


async def test_a_gate_on_one_backend_leaves_the_lane_open_on_another(opened: Any) -> None:
    async def full(call: Call) -> str:
        raise RetryLater("429", after=3600)

    async def fine(call: Call) -> str:
        return "done"

    crowded, quiet = Does(full, "crowded"), Does(fine, "quiet")
    queue = await opened(place(crowded, kind="does", slots=1), place(quiet, kind="does", slots=1))
    handles = await queue.submit_many([{"executor": "does", "action": "work"} for _ in range(8)])
    await wait_until(lambda: len(quiet.calls) == 7)
    assert len(crowded.calls) == 1
    ended = [await handle.refresh() for handle in handles]
    await wait_until(lambda: len(crowded.calls) + len(quiet.calls) == 8)
    assert len(ended) == 8


async def test_a_paused_lane_stands_still_while_others_go_on(opened: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    queue = await opened(gated)
    await queue.pause("gated/still")
    still = await queue.submit("gated", "work", model="still")
    await (await queue.submit("gated", "work", model="moving")).result()
    assert (await still.refresh()).state is State.PENDING
    assert await queue.why(still.id) == "paused: claims are stopped for lane gated/still"
    await queue.resume("gated/still")
    await still.result(timeout=5)


async def test_a_pause_of_everything_lets_running_tasks_go_on(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    running = await queue.submit("gated", "work", payload={"name": "running"})
    await wait_until(lambda: gated.running == 1)
    await queue.pause()
    waiting = await queue.submit("gated", "work", payload={"name": "waiting"})
    gated.let_all_go()
    assert (await running.result()).data == {"name": "running"}
    assert (await waiting.refresh()).state is State.PENDING
    assert (await queue.stats()).paused == ["*"]
    await queue.resume()
    await waiting.result(timeout=5)


async def test_a_queue_that_does_not_work_only_keeps(opened: Any, tmp_path: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    door = await opened(gated, url=tmp_path / "q.db", work=False)
    handle = await door.submit("gated", "work")
    assert (await door.stats()).workers_idle == 0
    worker = await opened(gated, url=tmp_path / "q.db", slots=2)
    await handle.result(timeout=5)
    assert (await worker.stats()).workers_idle == 2


async def test_an_idle_worker_is_woken_by_what_another_process_submits(opened: Any, tmp_path: Any) -> None:
    gated = Gated()
    gated.let_all_go()
    await opened(gated, url=tmp_path / "q.db")
    door = await opened(gated, url=tmp_path / "q.db", work=False)
    for number in range(5):
        handle = await door.submit("gated", "work", payload={"name": str(number)})
        await handle.result(timeout=10)
    assert gated.ended == ["0", "1", "2", "3", "4"]


async def test_a_retry_comes_although_the_clock_was_set_back_by_an_hour(opened: Any) -> None:
    clock = FakeClock()

    async def second_time(call: Call) -> str:
        if call.attempt == 1:
            clock.step(-3600)
            raise Unavailable("500", failure="server_error")
        return "done"

    does = Does(second_time)
    queue = await opened(does, clock=clock)
    handle = await queue.submit("does", "work")
    await wait_until(lambda: does.calls)
    clock.step(3600)
    assert (await handle.result(timeout=10)).attempts == 2
    assert len(does.calls) == 2


async def test_a_delayed_task_waits_for_the_wall_clock_that_dates_it(opened: Any) -> None:
    clock = FakeClock()
    gated = Gated()
    gated.let_all_go()
    queue = await opened(gated, clock=clock)
    handle = await queue.submit("gated", "work", delay="1h", payload={"name": "late"})
    clock.advance(3599)
    await (await queue.submit("gated", "work", payload={"name": "now"})).result(timeout=10)
    assert (await handle.refresh()).state is State.SCHEDULED
    clock.advance(1)
    await handle.result(timeout=10)
    assert gated.ended == ["now", "late"]


async def test_no_retry_is_forgotten_while_another_is_being_staged(opened: Any) -> None:
    async def third_time(call: Call) -> str:
        if call.attempt < 4:
            raise Unavailable("500", failure="server_error")
        return "done"

    queue = await opened(Does(third_time))
    for _ in range(300):
        handle = await queue.submit("does", "work")
        assert (await handle.result(timeout=10)).attempts == 4


async def test_no_opening_of_a_gate_is_missed(opened: Any) -> None:
    async def full_at_first(call: Call) -> str:
        if call.attempt < 4:
            raise RetryLater("429", after=0.001)
        return "done"

    queue = await opened(Does(full_at_first))
    for _ in range(200):
        handle = await queue.submit("does", "work")
        assert (await handle.result(timeout=10)).attempts == 4


async def test_with_ageing_a_low_priority_is_served_although_higher_work_keeps_coming(opened: Any) -> None:
    served: list[str] = []
    queue: Any = None

    async def keeps_coming(call: Call) -> str:
        served.append(call.payload["name"])
        if call.payload["name"] == "high" and len(served) < 10_000 and "low" not in served:
            await queue.submit("does", "work", payload={"name": "high"}, priority="high")
        return "done"

    queue = await opened(Does(keeps_coming), slots=1, ageing=0.02, ageing_bound=20)
    await queue.pause()
    low = await queue.submit("does", "work", payload={"name": "low"}, priority="low")
    for _ in range(3):
        await queue.submit("does", "work", payload={"name": "high"}, priority="high")
    await queue.resume()
    await low.result(timeout=30)
    assert served.index("low") > 0, "the higher class went first"


async def test_a_task_that_is_cancelled_in_the_commit_that_claims_it_does_not_go_on_running(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated)
    loop, tasks, handles = asyncio.get_running_loop(), [], []

    def cancel_a_turn_later(_: object) -> None:
        loop.call_soon(lambda: tasks.append(loop.create_task(handles[-1].cancel())))

    queue.subscribe(cancel_a_turn_later, "queue.resumed")
    shared = 0
    for number in range(10):
        await queue.pause()
        handles.append(await queue.submit("gated", "work", payload={"name": f"{number}"}))
        await queue.resume()
        assert (await handles[-1].wait(timeout=10)).state is State.CANCELLED
        await wait_until(lambda: gated.running == 0)
        shared += (await handles[-1].refresh()).attempt == 1 and f"{number}" not in gated.started
    await asyncio.gather(*tasks)
    assert shared, "the claim and the cancel shared a commit at least once"

    async def all_free() -> bool:
        return bool((await queue.stats()).workers_idle == queue.settings.worker.slots)

    await wait_until(all_free)
