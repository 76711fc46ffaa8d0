"""Bulk operations and filters over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import AsyncQueue
from inferq.cli.params import SORTS
from inferq.client import AsyncClient
from inferq.errors import Conflict, InvalidQuery, RecordNotFound
from inferq.testing import FakeClock


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


@pytest.mark.parametrize(
    ("narrowed", "names"),
    [
        ("state=pending", "chat embed"),
        ("status=cancelled", "other"),
        ("state=pending,cancelled", "chat embed other"),
        ("state=pending&state=cancelled", "chat embed other"),
        ("action=embed", "embed"),
        ("type=chat,generate", "chat other"),
        ("executor=echo", "chat embed other"),
        ("executor_type=ollama", ""),
        ("model=m,n", "chat embed"),
        ("priority=high", "embed"),
        ("priority=-3,high", "chat embed"),
        ("tag=a", "chat other"),
        ("tag=a&state=pending&model=m&q=priority:%3Chigh", "chat"),
        ("limit=2", "embed other"),
        ("limit=1&q=sort:created", "chat"),
    ],
)
async def test_each_filter_of_a_list_narrows_it_alone_and_together(site: Any, narrowed: str, names: str) -> None:
    fields: dict[str, dict[str, Any]] = {
        "chat": {"priority": -3, "tags": ["a"]},
        "embed": {"action": "embed", "model": "n", "priority": 10, "payload": {"input": "x"}},
        "other": {"model": "o", "tags": ["a", "b"]},
    }
    ids = {name: (await fill(site.queue, 1, **given))[0] for name, given in fields.items()}
    await site.queue.cancel(ids["other"])
    found = [item["id"] for item in (await site.get(f"/api/tasks?{narrowed}"))["items"]]
    assert sorted(found) == sorted(ids[name] for name in names.split())


@pytest.mark.parametrize("order", SORTS)
async def test_pages_go_on_by_their_next_in_every_order(open_site: Any, order: str) -> None:
    clock = FakeClock()
    site = await open_site(work=False, clock=clock)
    hours = (4, 1, 7, 2, 6, 3, 5)
    ids = [(await fill(site.queue, 1, scheduled_at=clock.read().wall + 3_600_000 * hour))[0] for hour in hours]
    by_hour = [id for _, id in sorted(zip(hours, ids, strict=True))]
    state, expected = {"created": ("", ids), "scheduled": ("state:scheduled ", by_hour), "finished": ("state:ended ", by_hour)}[
        order.lstrip("-")
    ]
    if "finished" in order:
        for id in by_hour:
            clock.advance(1)
            await site.queue.cancel(id)
    read: list[str] = []
    page: dict[str, Any] = {"next": None}
    while not read or page["next"] is not None:
        further = {"after": page["next"]} if page["next"] else {}
        page = await site.get("/api/tasks", params={"q": f"{state}sort:{order}", "limit": "2", **further})
        read += [item["id"] for item in page["items"]]
    assert read == (expected[::-1] if order.startswith("-") else expected)


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
