"""A reply that is lost after the commit: the same key finds the same task."""

from __future__ import annotations

import asyncio
import json

import pytest
from faultkit.children import Start
from faultkit.history import read_contents, read_history
from faultkit.place import Place

from inferq import DuplicateKey, TaskNotFound
from inferq.testing import wait_until

pytestmark = pytest.mark.faults


async def test_a_submitter_killed_between_commit_and_reply_finds_its_task_by_the_key(place: Place, start: Start) -> None:
    payload = {"n": 7}
    async with place.queue(work=False) as queue:
        with start("unheard", place, payload=payload, key="once").ready() as unheard:

            async def kept() -> list[str]:
                return [task.id async for task in queue.iterate()]

            (id,) = await wait_until(kept, what="the commit")
            unheard.kill()
        again = await queue.submit("record", "do", payload=payload, key="once")
        assert again.id == id
        with start("worker", place).ready():
            assert (await again.result(timeout=20)).data["n"] == 7
            third = await queue.submit("record", "do", payload=payload, key="once")
            assert third.id == id
        with pytest.raises(DuplicateKey):
            await queue.submit("record", "do", payload={"n": 8}, key="once")
        contents = await read_contents(queue)
    assert list(contents.tasks) == [id]
    assert [run.what for run in read_history(place, set()).runs] == ["start", "end"]
    assert contents.complaints == []


async def test_many_submitters_with_one_key_at_once_are_one_task(place: Place, start: Start) -> None:
    submitters = [start("submitter", place, name="same", count=20, seed=1) for _ in range(4)]
    for submitter in submitters:
        assert await asyncio.to_thread(submitter.wait) == 0
    acks = read_history(place, set()).acks
    async with place.queue(work=False) as queue:
        contents = await read_contents(queue)
        with pytest.raises(TaskNotFound):
            await queue.get(json.dumps("no such task"))
    assert len(acks) >= 20
    assert {ack.id for ack in acks} == set(contents.tasks)
    assert len(contents.tasks) == 20
