"""Every method of the client against a real server."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from misbehaving import Proxy
from served import Site

import inferq
from inferq import AsyncClient, Client, Filter, State, Submission, TaskFailed, TaskResult
from inferq.testing import wait_until


async def test_cancel_and_retry(site: Site) -> None:
    await site.client.pause("echo/m")
    one, two = [await site.client.chat("m", word, executor="echo") for word in ("one", "two")]
    await site.client.cancel(one.id, two.id, reason="no more")
    with pytest.raises(inferq.TaskCancelled, match="no more") as caught:
        await one.result()
    assert (caught.value.task_id, caught.value.reason) == (one.id, "no more")
    with pytest.raises(inferq.WrongState):
        await one.cancel()
    await two.retry()
    await site.client.resume("echo/m")
    assert (await two.result(timeout=10)).text == "two"


async def test_a_change_of_several_tasks_is_made_of_none_when_one_is_unknown(site: Site) -> None:
    await site.client.pause()
    handle = await site.client.chat("m", "one", executor="echo")
    with pytest.raises(inferq.TaskNotFound):
        await site.client.cancel(handle.id, "nobody")
    assert (await handle.refresh()).state is State.PENDING


async def test_a_failed_task_is_the_same_error(site: Site) -> None:
    handle = await site.client.chat("m", "hello", executor="echo", payload={"fail": ["bad_request"]})
    with pytest.raises(TaskFailed) as there:
        await handle.result(timeout=10)
    with pytest.raises(TaskFailed) as here:
        await site.queue.result(handle.id)
    assert (str(there.value), there.value.failure, there.value.attempts) == (str(here.value), here.value.failure, here.value.attempts)


async def test_several_in_order_with_failures_in_their_places(site: Site) -> None:
    def chat(word: str, **more: Any) -> dict[str, Any]:
        return {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": word}], **more}}

    results = await site.client.batch([chat("one"), Submission(**chat("two", fail=["bad_request"])), chat("three")])
    assert [result.text if isinstance(result, TaskResult) else type(result) for result in results] == ["one", TaskFailed, "three"]
    assert await site.client.batch([]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": "urgent"},
        {"payload": {"x": float("nan")}},
        {"payload": {"x": object()}},
        {"timeout": -1},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - without a zone, on purpose
        {"key": ""},
        {"executor": "nobody"},
        {"tags": ["a\x00"]},
        {"metadata": {"\ud800": 1}},
    ],
    ids=str,
)
async def test_a_mistake_is_the_same_error_on_both_sides(site: Site, wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"executor": "echo", "action": "echo", "model": "m"} | wrong
    executor, action = given.pop("executor"), given.pop("action")
    with pytest.raises(inferq.InvalidTask) as here:
        await site.queue.submit(executor, action, **given)
    with pytest.raises(inferq.InvalidTask) as there:
        await site.client.submit(executor, action, **given)
    assert (type(there.value), there.value.field, str(there.value)) == (type(here.value), here.value.field, str(here.value))


async def test_the_same_key_with_another_body_is_refused(site: Site) -> None:
    first = await site.client.chat("m", "hello", executor="echo", key="k")
    assert (await site.client.chat("m", "hello", executor="echo", key="k")).id == first.id
    with pytest.raises(inferq.DuplicateKey):
        await site.client.chat("m", "other", executor="echo", key="k")


async def test_a_task_waits_for_its_time(site: Site) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    handle = await site.client.chat("m", "later", executor="echo", at=at)
    task = await handle.refresh()
    assert (task.state, task.due) == (State.SCHEDULED, round(at.timestamp() * 1000))
    later = await (await site.client.chat("m", "later", executor="echo", delay="90m")).refresh()
    assert abs((later.due or 0) - later.created - 90 * 60_000) < 5_000


async def test_waiting_ends_with_its_own_error_and_the_task_goes_on(site: Site) -> None:
    await site.client.pause()
    handle = await site.client.chat("m", "hello", executor="echo")
    with pytest.raises(inferq.WaitTimeout, match="goes on"):
        await handle.result(timeout=0.05)
    waiting = asyncio.create_task(handle.result())
    await site.client.resume()
    assert (await waiting).text == "hello"
    with pytest.raises(inferq.TaskNotFound):
        await site.client.wait("nobody")


async def test_a_reply_that_is_lost_after_the_commit_costs_no_second_task(site: Site) -> None:
    async with Proxy(site.server.port) as proxy, AsyncClient(proxy.url) as client:
        proxy.cut_replies = 2
        handle = await client.chat("m", "once", executor="echo")
        assert proxy.forwarded == 3
        assert (await handle.result(timeout=10)).text == "once"
        proxy.cut_replies = 1
        several = await client.submit_many([{"executor": "echo", "action": "echo", "payload": {"n": n}} for n in range(3)])
        assert [(await one.result(timeout=10)).data for one in several] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert (await site.queue.stats()).total == 4


@pytest.mark.parametrize("tenant", [None, "acme"], ids=["a key for everything", "a tenant's key"])
async def test_many_may_wait_at_once_and_share_connections(site: Site, tenant: str | None) -> None:
    made = await site.queue.keys.create("waiter", role="admin" if tenant is None else "submit", tenant=tenant)
    await site.queue.pause()
    async with AsyncClient(site.url, api_key=made.secret) as client:
        handles = await client.submit_many([{"executor": "echo", "action": "echo", "payload": {"n": n}} for n in range(200)])
        waiting = [asyncio.create_task(handle.result()) for handle in handles]
        await wait_until(lambda: len(site.server.server_state.connections) > 16)
        await site.queue.resume()
        assert [result.data["n"] for result in await asyncio.gather(*waiting)] == list(range(200))
        assert len(site.server.server_state.connections) <= 101
        assert client._ends.refused is (tenant is not None)


async def test_a_wait_ends_in_time_although_the_server_is_gone(site: Site) -> None:
    await site.queue.pause()
    handle = await site.client.chat("m", "hello", executor="echo")
    async with AsyncClient(site.url, patience=60) as client:
        await client.stats()
        waiting = asyncio.create_task(client.wait(handle.id, timeout=0.2))
        site.server.stop()
        with pytest.raises(inferq.WaitTimeout):
            await waiting


async def test_the_blocking_client_does_the_same(site: Site) -> None:
    def work() -> list[Any]:
        with Client(site.url) as queue:
            handle = queue.chat("m", "hello", executor="echo")
            told: list[str] = []
            handle.add_done_callback(lambda ended: told.append(ended.id))
            return [handle.result(timeout=10).text, queue.get(handle.id).state, queue.stats().states["completed"], queue.url]

    assert await asyncio.to_thread(work) == ["hello", State.COMPLETED, 1, site.url]


async def test_what_is_submitted_can_be_asked_for_as_if_it_were_here(site: Site) -> None:
    handle = await site.client.chat("m", "hello", executor="echo", tags=["a"], metadata={"n": 1}, priority="high", max_retries=0)
    assert (await handle.result(timeout=10)).text == "hello"
    there, here = await site.client.get(handle.id), await site.queue.get(handle.id)
    assert there == here
    assert await site.client.attempts(handle.id) == await site.queue.attempts(handle.id)
    assert await handle.result() == await site.queue.result(handle.id)
    assert await site.client.resolve(handle.id[:13]) == handle.id


async def test_a_task_that_was_moved_still_tells_what_it_was_submitted_with(site: Site) -> None:
    await site.client.pause()
    handle = await site.client.chat("m", "hello", executor="echo", priority="low")
    await handle.set_priority("critical")
    there, here = await site.client.get(handle.id), await site.queue.get(handle.id)
    assert there == here
    assert (there.priority, there.spec.priority) == (15, 1)


async def test_listing_filters_and_pages(site: Site) -> None:
    await site.client.pause()
    for n in range(5):
        await site.client.chat("m" if n % 2 else "other", f"{n}", executor="echo", tags=["odd"] if n % 2 else ())
    page = await site.client.list(limit=2)
    assert page == await site.queue.list(limit=2)
    rest = await site.client.list(limit=10, after=page.after)
    assert len(page.tasks) + len(rest.tasks) == 5
    for where in (
        Filter(models=("m",)),
        Filter(tag="odd"),
        Filter(states=(State.PENDING, State.FAILED), executors=("echo",), priorities=(5,)),
        Filter(states=(State.FAILED,)),
        Filter(prefix=page.tasks[0].id[:20]),
        Filter(since=page.tasks[1].created, until=page.tasks[0].created + 1),
    ):
        assert await site.client.list(where) == await site.queue.list(where)
    assert [task.id async for task in site.client.iterate(Filter(models=("m",)))] == [
        task.id async for task in site.queue.iterate(Filter(models=("m",)))
    ]


async def test_the_store_is_looked_after_from_afar(site: Site, tmp_path: Path) -> None:
    await (await site.client.chat("m", "hello", executor="echo")).result(timeout=10)
    there, here = [await door.store_stats() for door in (site.client, site.queue)]
    # Others write to the disk meanwhile.
    assert msgspec.structs.replace(there, disk_free_bytes=0) == msgspec.structs.replace(here, disk_free_bytes=0)
    assert await site.client.check() == []
    await site.client.backup(tmp_path / "copy.db")
    async with inferq.AsyncQueue(str(tmp_path / "copy.db"), work=False) as copy:
        assert (await copy.stats()).states["completed"] == 1
    with pytest.raises(inferq.StoreError, match="exists"):
        await site.client.backup(tmp_path / "copy.db")
    assert not [path for path in await asyncio.to_thread(os.listdir, tmp_path) if path.endswith(".part")]
