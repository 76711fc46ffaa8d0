"""Bulk operations and filters over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import AsyncQueue
from inferq.client import AsyncClient
from inferq.errors import Conflict, InvalidQuery, RecordNotFound


@pytest.fixture
async def site(open_site: Any) -> Any:
    return await open_site(work=False)


async def fill(queue: AsyncQueue, count: int, **fields: Any) -> list[str]:
    given = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "hello"}]}, **fields}
    return [handle.id for handle in await queue.submit_many([given] * count)]


async def test_a_list_takes_the_filter_language_and_the_forerunners_names(site: Any) -> None:
    low, high = await fill(site.queue, 2, priority=1), await fill(site.queue, 2, priority=10, tags=["a"], model="n")

    async def found(query: str) -> list[str]:
        return [item["id"] for item in (await site.get(f"/api/tasks?{query}"))["items"]]

    assert await found("q=priority:%3E%3Dhigh") == high[::-1]
    assert await found("q=-tag:a&limit=1") == low[::-1][:1]
    assert await found("q=sort:created%20limit:3") == [*low, high[0]]
    assert await found("status=pending&type=chat&priority=low,5") == low[::-1]
    assert await found("executor_type=echo&action=chat&model=n&tag=a") == high[::-1]
    assert await found("state=completed") == []


async def test_pages_go_on_by_their_next_in_every_order(site: Any) -> None:
    ids = await fill(site.queue, 5)
    await site.queue.cancel(*ids)
    for query, expected in (("q=state:ended%20sort:finished", sorted(ids)), ("q=model:m", sorted(ids, reverse=True))):
        read: list[str] = []
        page: dict[str, Any] = {"next": None}
        while not read or page["next"] is not None:
            page = await site.get(f"/api/tasks?{query}&limit=2" + (f"&after={page['next']}" if page["next"] else ""))
            read += [item["id"] for item in page["items"]]
        assert read == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("q=stat:failed", "did you mean state?"),
        ("q=state:failed%20tokens:many", "character 21 of the filter"),
        ("q=sort:finished", "state:ended"),
        ("after=nonsense", "`next` of a page"),
        ("priority=urgent", "critical"),
    ],
)
async def test_what_is_wrong_with_a_filter_is_a_problem_with_its_place(site: Any, query: str, said: str) -> None:
    status, problem, headers = await site.ask("GET", f"/api/tasks?{query}")
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert said in problem["detail"]


async def test_an_operation_is_previewed_begun_and_seen(site: Any) -> None:
    ids = await fill(site.queue, 3, tags=["a"])
    await fill(site.queue, 2)
    seen = await site.post("/api/operations", {"verb": "cancel", "q": "tag:a", "dry_run": True})
    assert (seen["state"], seen["expected"], [one["id"] for one in seen["examples"]]) == ("preview", 3, ids[::-1])
    told = {"verb": "cancel", "q": "tag:a", "expected": seen["expected"], "bound": seen["bound"]}
    status, begun, headers = await site.ask("POST", "/api/operations", json=told)
    assert (status, headers["location"]) == (202, f"/api/operations/{begun['id']}")
    over = await site.get(f"/api/operations/{begun['id']}?wait=10")
    assert (over["state"], over["done"], over["failed"], over["who"]) == ("done", 3, 0, "local")
    assert [item["id"] for item in (await site.get("/api/operations"))["items"]] == [begun["id"]]
    assert (await site.post(f"/api/operations/{begun['id']}/stop"))["state"] == "done"
    assert (await site.get("/api/status"))["states"]["cancelled"] == 3


async def test_an_ended_task_is_deleted_and_another_is_refused(site: Any) -> None:
    first, second = await fill(site.queue, 2)
    await site.queue.cancel(first)
    assert (await site.ask("DELETE", f"/api/tasks/{first}"))[0] == 204
    assert (await site.ask("GET", f"/api/tasks/{first}"))[0] == 404
    status, problem, _ = await site.ask("DELETE", f"/api/tasks/{second}")
    assert (status, problem["code"]) == (409, "wrong_state")


async def test_a_client_does_the_same_from_afar(site: Any) -> None:
    ids = await fill(site.queue, 3, tags=["a"])
    async with AsyncClient(site.url) as client:
        page = await client.list("tag:a limit:2")
        assert [task.id for task in page.tasks] == ids[::-1][:2]
        assert [task.id async for task in client.iterate("tag:a sort:created")] == ids
        seen = await client.operations.start("priority", "tag:a", priority="high", dry_run=True)
        assert (seen.expected, seen.state) == (3, "preview")
        begun = await client.operations.start("priority", "tag:a", priority="high", expected=3, bound=seen.bound)
        over = await client.operations.wait(begun.id, 10)
        assert (over.state, over.done) == ("done", 3)
        assert [task.id async for task in client.iterate("priority:high")] == ids[::-1]
        assert [one.id for one in await client.operations.list()] == [begun.id]
        assert await client.operations.get(begun.id) == await client.operations.stop(begun.id) == over
        await client.cancel(*ids)
        await client.delete(ids[0])
        assert [task.id async for task in client.iterate("state:cancelled")] == ids[:0:-1]
        with pytest.raises(InvalidQuery, match="did you mean state"):
            await client.operations.start("cancel", "stat:x")
        with pytest.raises(RecordNotFound):
            await client.operations.get("nothing")
        with pytest.raises(Conflict):
            await client.operations.start("delete", "state:*", expected=1)
