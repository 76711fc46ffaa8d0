"""Backends through the door, here and behind a server: list, drain, disable, enable, test, why a task waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from served import Open

from inferq.backend import BackendInfo
from inferq.client import AsyncClient
from inferq.errors import InvalidTask, RecordNotFound, WaitTimeout
from inferq.executor import Answer, Call, Executor, Health
from inferq.testing import wait_until


class Slow(Executor):
    """Each call waits until the test lets them all go."""

    actions = ("work",)

    def __init__(self) -> None:
        super().__init__("slow")
        self.door = asyncio.Event()
        self.running = 0

    async def run(self, call: Call) -> Any:
        self.running += 1
        try:
            await self.door.wait()
        finally:
            self.running -= 1
        return Answer(data=1)

    async def health(self) -> Health:
        return Health(ok=True, detail="fine")

    async def models(self) -> list[str]:
        return ["m"]


@pytest.fixture(params=["here", "behind a server"])
async def doors(request: pytest.FixtureRequest, open_site: Open) -> Any:
    slow = Slow()
    site = await open_site(executor=slow)
    yield slow, site.queue if request.param == "here" else site.client
    slow.door.set()


async def test_a_backend_is_listed_with_how_it_stands_and_what_it_did(doors: Any) -> None:
    slow, queue = doors
    await queue.submit("slow", "work")
    await wait_until(lambda: slow.running == 1)
    (info,) = await queue.backends.list()
    assert isinstance(info, BackendInfo)
    assert (info.name, info.executor, info.state, info.remote, info.busy, info.completed) == ("slow", "slow", "up", False, 1, 0)
    assert len(info.workers) == 1
    assert info.slots is not None
    slow.door.set()
    assert await _settled(queue, "slow") == (0, 1)


async def _settled(queue: Any, name: str) -> tuple[int, int]:
    while True:
        info = await queue.backends.get(name)
        if not info.busy and info.completed:
            return info.busy, info.completed


async def test_draining_waits_for_the_last_task_and_enable_undoes_it(doors: Any) -> None:
    slow, queue = doors
    first = await queue.submit("slow", "work")
    await wait_until(lambda: slow.running == 1)
    with pytest.raises(WaitTimeout, match="goes on draining"):
        await queue.backends.drain("slow", reason="new fan", wait=True, timeout=0.2)
    waiting = await queue.submit("slow", "work")
    found = await queue.explain(waiting.id)
    assert (found.gate, found.reason) == ("draining", "slow is draining: new fan; `inferq backends enable slow`")
    draining = asyncio.create_task(queue.backends.drain("slow", reason="new fan", wait=True))
    slow.door.set()
    info = await draining
    assert (info.state, info.reason, info.busy) == ("draining", "new fan", 0)
    await first.result()
    assert (await queue.backends.enable("slow")).state == "up"
    await waiting.result()


async def test_disable_is_idempotent_and_seen_by_every_door(doors: Any) -> None:
    _, queue = doors
    for _ in range(2):
        assert (await queue.backends.disable("slow")).state == "disabled"
    assert (await queue.explain((await queue.submit("slow", "work")).id)).gate in ("disabled", "starting")

    async def is_disabled() -> bool:
        return bool((await queue.backends.get("slow")).state == "disabled")

    await wait_until(is_disabled)
    await queue.backends.enable("slow")
    await queue.backends.enable("slow")


async def test_a_test_asks_now_and_tells_the_models(doors: Any) -> None:
    _, queue = doors
    tested = await queue.backends.test("slow")
    assert (tested.ok, tested.detail, tested.models) == (True, "fine", ("m",))


@pytest.mark.parametrize("verb", ["get", "test", "drain", "disable", "enable"])
async def test_an_unknown_backend_is_named(doors: Any, verb: str) -> None:
    _, queue = doors
    with pytest.raises(RecordNotFound, match="'nobody'"):
        await getattr(queue.backends, verb)("nobody")


async def test_a_reason_that_is_no_text_is_refused(doors: Any) -> None:
    _, queue = doors
    with pytest.raises(InvalidTask, match="reason"):
        await queue.backends.disable("slow", reason="x" * 3000)


async def test_a_waiting_task_is_explained_over_http_with_position_and_estimate(open_site: Open) -> None:
    slow = Slow()
    site = await open_site(executor=slow)
    client: AsyncClient = site.client
    tasks = [await client.submit("slow", "work") for _ in range(8)]
    await wait_until(lambda: slow.running == 4)
    last = await client.explain(tasks[-1].id)
    assert (last.gate, last.position, last.in_flow) == ("behind", 4, 4)
    assert last == await site.queue.explain(tasks[-1].id)
    slow.door.set()
    assert (await tasks[-1].result()).executed_on == "local"
