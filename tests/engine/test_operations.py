"""Bulk operations: what a filter names is changed, nothing else, and the counts stay true whatever happens on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from places import Gated

from inferq import AsyncQueue, InvalidQuery, InvalidTask, State
from inferq.errors import Conflict, RecordNotFound, WaitTimeout
from inferq.operation import BITE, KIND, Kept, Operation, decoded, encoded
from inferq.store import RecordPut
from inferq.testing import wait_until


async def fill(queue: AsyncQueue, count: int, **fields: Any) -> list[str]:
    given = {"executor": "gated", "action": "work", "model": "m", **fields}
    return [handle.id for handle in await queue.submit_many([given] * count)]


async def ids(queue: AsyncQueue, where: str) -> list[str]:
    return [task.id async for task in queue.iterate(where)]


@pytest.fixture
async def queue(opened: Any) -> AsyncQueue:
    made: AsyncQueue = await opened(Gated(), work=False)
    return made


async def test_a_dry_run_counts_and_shows_and_changes_nothing(queue: AsyncQueue) -> None:
    wanted = await fill(queue, 12, tags=["a"], payload={"prompt": "Why is the sky blue?"})
    await fill(queue, 3)
    seen = await queue.operations.start("cancel", "tag:a", dry_run=True)
    assert (seen.id, seen.state, seen.expected, seen.more, seen.done) == ("", "preview", 12, False, 0)
    assert [one.id for one in seen.examples] == wanted[::-1][:10]
    assert seen.examples[0].asked == "Why is the sky blue?"
    assert await queue.operations.list() == []
    assert len(await ids(queue, "state:pending")) == 15


async def test_cancel_ends_what_passes_and_nothing_else(queue: AsyncQueue) -> None:
    wanted, others = await fill(queue, 4, tags=["a"]), await fill(queue, 3)
    await queue.cancel(wanted[0])
    begun = await queue.operations.start("cancel", "tag:a", reason="not needed")
    assert (begun.state, begun.expected) == ("running", 3)
    over = await queue.operations.wait(begun.id, 10)
    assert (over.state, over.matched, over.done, over.failed, over.failures) == ("done", 3, 3, 0, ())
    assert await ids(queue, "state:pending") == others[::-1]
    assert (await queue.get(wanted[1])).error == "not needed"
    assert [one.id for one in await queue.operations.list()] == [over.id]
    assert over.finished is not None


async def test_each_verb_touches_the_states_it_can_change(queue: AsyncQueue) -> None:
    first, second, third = await fill(queue, 3)
    await queue.cancel(first, second)
    for verb, how, expected in (
        ("priority", {"priority": "high"}, [third]),
        ("retry", {}, [second, first]),
        ("cancel", {}, [third, second, first]),
        ("delete", {}, [third, second, first]),
    ):
        seen = await queue.operations.start(verb, "state:*", dry_run=True, **how)
        assert [one.id for one in seen.examples] == expected, verb
        over = await queue.operations.wait((await queue.operations.start(verb, "state:*", **how)).id, 10)
        assert (over.done, over.failed) == (len(expected), 0), verb
    assert await ids(queue, "") == []


async def test_a_moved_priority_is_the_new_one(queue: AsyncQueue) -> None:
    await fill(queue, 3, tags=["a"])
    await queue.operations.wait((await queue.operations.start("priority", "tag:a", priority="critical")).id, 10)
    assert len(await ids(queue, "priority:critical")) == 3


async def test_more_than_a_bite_is_changed_bite_by_bite(queue: AsyncQueue) -> None:
    await fill(queue, 2 * BITE + 10)
    over = await queue.operations.wait((await queue.operations.start("cancel", "model:m")).id, 30)
    assert (over.state, over.matched, over.done) == ("done", 2 * BITE + 10, 2 * BITE + 10)
    assert (await queue.stats()).states["cancelled"] == 2 * BITE + 10


async def test_tasks_that_come_after_the_preview_are_not_touched(queue: AsyncQueue) -> None:
    await fill(queue, 5)
    seen = await queue.operations.start("cancel", "model:m", dry_run=True)
    late = await fill(queue, 5)
    begun = await queue.operations.start("cancel", "model:m", expected=seen.expected, bound=seen.bound)
    assert (await queue.operations.wait(begun.id, 10)).done == 5
    assert await ids(queue, "state:pending") == late[::-1]


async def test_a_filter_that_fits_many_more_by_now_is_refused(queue: AsyncQueue) -> None:
    tasks = await fill(queue, 20, tags=["a"])
    await queue.cancel(*tasks[:5])
    seen = await queue.operations.start("cancel", "tag:a", dry_run=True)
    await queue.retry(*tasks[:5])
    with pytest.raises(Conflict, match=r"expected about 15 tasks .* by now 20"):
        await queue.operations.start("cancel", "tag:a", expected=seen.expected, bound=seen.bound)
    assert await queue.operations.list() == []


async def test_what_is_not_a_filter_is_refused(queue: AsyncQueue) -> None:
    for text, said in (("", "for all of them say state:"), ("model:m limit:3", "without sort: and limit:"), ("modle:m", "did you mean")):
        with pytest.raises(InvalidQuery, match=said):
            await queue.operations.start("cancel", text)
    with pytest.raises(InvalidTask, match="verb"):
        await queue.operations.start("explode", "model:m")  # type: ignore[arg-type]
    for verb, priority in (("priority", None), ("cancel", 5)):
        with pytest.raises(InvalidTask, match="priority"):
            await queue.operations.start(verb, "model:m", priority=priority)  # type: ignore[arg-type]
    with pytest.raises(RecordNotFound, match="'nothing'"):
        await queue.operations.get("nothing")


async def test_a_stopped_operation_says_truly_what_it_has_changed(queue: AsyncQueue) -> None:
    await fill(queue, 6 * BITE)
    begun = await queue.operations.start("cancel", "model:m")
    await wait_until(lambda: _begun(queue, begun.id), what="the first bite")
    stopped = await queue.operations.stop(begun.id)
    assert stopped.state in ("stopped", "done")
    assert await queue.operations.stop(begun.id) == stopped
    assert await queue.operations.wait(begun.id, 10) == stopped
    assert (await queue.stats()).states["cancelled"] == stopped.done


async def _begun(queue: AsyncQueue, id: str) -> bool:
    return (await queue.operations.get(id)).done > 0


async def test_waiting_for_an_operation_may_end_before_it(queue: AsyncQueue) -> None:
    kept = Kept(_operation(queue, id="0"), 1, (), queue.store.instance)
    await queue.store.put_record(RecordPut(KIND, "0", encoded(kept)), queue._clock.read())
    with pytest.raises(WaitTimeout, match="it goes on"):
        await queue.operations.wait("0", 0.01)


def _operation(queue: AsyncQueue, **fields: Any) -> Operation:
    now = queue._clock.read().wall
    return Operation(**{"verb": "cancel", "q": "model:m", "state": "running", "bound": 10**6, "created": now, "updated": now, **fields})


async def test_what_a_dead_process_left_is_gone_on_with_and_counted_once(queue: AsyncQueue) -> None:
    tasks = await fill(queue, 10)
    await queue.cancel(*tasks[7:], reason="by the process that died in this bite")
    kept = Kept(_operation(queue, id="1", expected=10), (await queue.get(tasks[5])).seq, tuple(tasks[:4:-1]), "host-1-gone")
    await queue.store.put_record(RecordPut(KIND, "1", encoded(kept)), queue._clock.read())
    assert await queue.operations.adopt() == 1
    over = await queue.operations.wait("1", 10)
    assert (over.state, over.matched, over.done, over.failed) == ("done", 10, 10, 0)
    assert (await queue.stats()).states["cancelled"] == 10


async def test_tasks_that_cannot_be_changed_any_more_are_told_with_their_reasons(queue: AsyncQueue) -> None:
    gone, kept_ = await fill(queue, 2)
    await queue.cancel(gone)
    await queue.delete(gone)
    left = Kept(_operation(queue, id="2"), 0, (gone, kept_), "host-1-gone")
    await queue.store.put_record(RecordPut(KIND, "2", encoded(left)), queue._clock.read())
    await queue.operations.adopt()
    over = await queue.operations.wait("2", 10)
    assert (over.done, over.failed) == (1, 1)
    assert [(failure.task_id, failure.code) for failure in over.failures] == [(gone, "not_found")]


async def test_what_somebody_works_on_is_left_to_him(queue: AsyncQueue) -> None:
    kept = Kept(_operation(queue, id="3"), 1, (), queue.store.instance)
    await queue.store.put_record(RecordPut(KIND, "3", encoded(kept)), queue._clock.read())
    assert await queue.operations.adopt() == 0
    silent = replace(kept, operation=replace(kept.operation, updated=kept.operation.updated - 61_000))
    await queue.store.put_record(RecordPut(KIND, "3", encoded(silent)), queue._clock.read())
    assert await queue.operations.adopt() == 1
    assert (await queue.operations.wait("3", 10)).state == "done"


async def test_a_closed_queue_hands_its_operations_to_another(opened: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    first = AsyncQueue(url, backends=[Gated()], work=False)
    await first.start()
    await fill(first, 8 * BITE)
    begun = await first.operations.start("cancel", "model:m")
    await first.close()
    second = await opened(Gated(), url=url, work=False)
    found = decoded((await second.store.record(KIND, begun.id)).body)
    assert found.owner == "" or found.operation.is_over
    second.operations.tend()
    over = await second.operations.wait(begun.id, 30)
    assert (over.state, over.done) == ("done", 8 * BITE)
    assert (await second.stats()).states["cancelled"] == 8 * BITE


_PROGRAM = """
import asyncio, sys
from inferq import AsyncQueue, Settings

async def main():
    async with AsyncQueue(sys.argv[1], work=False, settings=Settings()) as queue:
        begun = await queue.operations.start("cancel", "model:m")
        print(begun.id, flush=True)
        await queue.operations.wait(begun.id)

asyncio.run(main())
"""


@pytest.mark.faults
async def test_an_operation_survives_the_death_of_its_process_with_true_counts(opened: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    queue = await opened(Gated(), url=url, work=False)
    count = 20 * BITE
    await fill(queue, count)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, url, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    id = (await child.stdout.readline()).decode().strip()
    await wait_until(lambda: _begun(queue, id), what="the first bite")
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    assert not (await queue.operations.get(id)).is_over
    # Its claims and its name are given up by whoever looks after the store.
    await queue.store.rescue(queue._clock.read())
    assert await queue.operations.adopt() == 1
    over = await queue.operations.wait(id, 60)
    assert (over.state, over.matched, over.done, over.failed) == ("done", count, count, 0)
    assert (await queue.stats()).states["cancelled"] == count


async def test_a_worker_takes_up_what_was_left(opened: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    queue = await opened(Gated(), url=url, work=False)
    tasks = await fill(queue, 3)
    await queue.cancel(*tasks)
    kept = Kept(_operation(queue, id="4", verb="delete"), 100, (), "")
    await queue.store.put_record(RecordPut(KIND, "4", encoded(kept)), queue._clock.read())
    await opened(Gated(), url=url)
    assert (await queue.operations.wait("4", 20)).done == 3


async def test_a_deleted_task_is_gone_and_one_that_waits_is_refused(queue: AsyncQueue) -> None:
    first, second = await fill(queue, 2)
    await queue.cancel(first)
    await queue.delete(first)
    assert await ids(queue, "") == [second]
    with pytest.raises(Conflict, match="completed, failed or cancelled, but it is pending"):
        await queue.delete(second)
    assert (await queue.get(second)).state is State.PENDING
