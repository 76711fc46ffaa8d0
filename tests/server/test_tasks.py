"""Tasks over HTTP, asked by a client that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Chat = Callable[..., dict[str, Any]]


async def test_a_submit_answers_with_its_id_under_both_names_and_is_durable(site: Any, chat: Chat) -> None:
    status, body, headers = await site.ask("POST", "/api/tasks", json=chat())

    assert status == 201
    assert body["id"] == body["task_id"]
    assert headers["location"] == f"/api/tasks/{body['id']}"
    assert (await site.queue.get(body["id"])).model == "m"


async def test_a_result_can_be_waited_for(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat("say this"))

    result = await site.get(f"/api/tasks/{made['id']}/result?wait=30")

    assert "say this" in result["text"]
    assert (result["executed_on"], result["backend"]) == ("local", "echo")
    (attempt,) = (await site.get(f"/api/tasks/{made['id']}/attempts"))["items"]
    assert (attempt["executed_on"], attempt["outcome"]) == ("local", "completed")
    assert (await site.get(f"/api/tasks/{made['id']}"))["state"] == "completed"


async def test_the_same_idempotency_key_is_the_same_task(site: Any, chat: Chat) -> None:
    key = {"Idempotency-Key": "order-7"}
    first, made, _ = await site.ask("POST", "/api/tasks", json=chat(), headers=key)
    second, again, _ = await site.ask("POST", "/api/tasks", json=chat(), headers=key)
    third, other, _ = await site.ask("POST", "/api/tasks", json=chat("something else"), headers=key)

    assert (first, second, third) == (201, 200, 422)
    assert (again["id"], again["known"]) == (made["id"], True)
    assert other["code"] == "duplicate_key"
    assert (await site.get("/api/stats"))["total"] == 1


async def test_a_list_is_kept_whole_and_answered_in_order(site: Any, chat: Chat) -> None:
    made = (await site.post("/api/tasks", [chat(str(number), priority=number) for number in range(5)]))["items"]

    assert [task["priority"] for task in made] == list(range(5))
    assert len({task["id"] for task in made}) == 5


async def test_what_a_person_writes_is_taken(site: Any, chat: Chat) -> None:
    wish = chat(priority="high", scheduled_at="2099-01-01T00:00:00+01:00", timeout="10m", tags=["a"], metadata={"user": 7}, stream=False)
    task = await site.get(f"/api/tasks/{(await site.post('/api/tasks', wish))['id']}")

    assert (task["priority"], task["state"], task["timeout"]) == (10, "scheduled", 600.0)
    assert task["scheduled_at"] == 4_070_905_200_000
    assert (task["tags"], task["metadata"]) == (["a"], {"user": 7})


async def test_a_task_that_did_not_change_is_not_sent_again(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat(delay="1h"))
    _, _, headers = await site.ask("GET", f"/api/tasks/{made['id']}")
    same, body, _ = await site.ask("GET", f"/api/tasks/{made['id']}", headers={"If-None-Match": f'"x", W/{headers["etag"]}'})
    await site.post(f"/api/tasks/{made['id']}/priority", {"priority": "critical"})
    changed, _, now = await site.ask("GET", f"/api/tasks/{made['id']}", headers={"If-None-Match": headers["etag"]})

    assert (same, body, changed) == (304, None, 200)
    assert now["etag"] != headers["etag"]


async def test_a_cancelled_task_has_no_result_and_says_why(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat(delay="1h"))
    cancelled = await site.post(f"/api/tasks/{made['id']}/cancel", {"reason": "changed my mind"})
    status, problem, _ = await site.ask("GET", f"/api/tasks/{made['id']}/result?wait=5")
    again = await site.post(f"/api/tasks/{made['id']}/retry")

    assert (cancelled["state"], again["state"]) == ("cancelled", "pending")
    assert (status, problem["code"], problem["reason"]) == (409, "task_cancelled", "changed my mind")


async def test_a_failed_tasks_problem_says_what_failed(site: Any, chat: Chat) -> None:
    wish = chat(max_retries=0)
    wish["payload"]["fail"] = ["bad_request"]
    made = await site.post("/api/tasks", wish)
    status, problem, _ = await site.ask("GET", f"/api/tasks/{made['id']}/result?wait=10")

    assert (status, problem["code"], problem["failure"], problem["attempts"]) == (409, "task_failed", "bad_request", 1)
    assert [attempt["outcome"] for attempt in (await site.get(f"/api/tasks/{made['id']}/attempts"))["items"]] == ["failed"]


async def test_waiting_for_what_has_not_ended_says_so_in_time(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat(delay="1h"))
    asked = await site.get(f"/api/tasks/{made['id']}?wait=0.05")
    status, problem, _ = await site.ask("GET", f"/api/tasks/{made['id']}/result?wait=0.05")

    assert asked["state"] == "scheduled"
    assert (status, problem["code"], problem["retryable"]) == (408, "wait_timeout", True)


async def test_a_listing_goes_on_page_by_page_without_gap_or_repeat(site: Any, chat: Chat) -> None:
    made = [(await site.post("/api/tasks", chat(delay="1h")))["id"] for _ in range(7)]
    found: list[str] = []
    after = ""
    while True:
        page = await site.get(f"/api/tasks?limit=3&payload=false{after}")
        found += [task["id"] for task in page["items"]]
        assert not any("payload" in task for task in page["items"])
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert found == made[::-1]


async def test_a_pause_stops_claims_until_it_is_undone(site: Any, chat: Chat) -> None:
    await site.ask("POST", "/api/pause")
    made = await site.post("/api/tasks", chat())
    assert (await site.get("/api/stats"))["paused"] == ["*"]
    assert (await site.get(f"/api/tasks/{made['id']}"))["state"] == "pending"
    await site.ask("POST", "/api/resume", json={"scope": "*"})

    assert (await site.get(f"/api/tasks/{made['id']}/result?wait=10"))["text"]


def test_a_task_survives_the_way_over_the_wire() -> None:
    import msgspec

    from inferq import Submission, Task
    from inferq.task import FlowKey, State
    from inferq.wire.native import TaskView, task_view

    spec = Submission(
        "echo", "chat", "m", {"x": [1, {"y": None}]}, {"t": 0.5}, 7, "b", "tenant", "key", ["t"], {"m": 1}, 5, 1.5, 2.5, 6, 7, 0
    )
    spec.at_most_once, spec.estimate, spec.size, spec.remote, spec.batch, spec.schedule = True, 9, "long", False, "batch", "nightly"
    flow = FlowKey("echo@b/m", 7, "long", "tenant")
    task = Task("id", 3, State.FAILED, flow, spec, 9, 2, 1, 1, "w", 4, 1, 2, 3, "timeout", "slow")
    sent = msgspec.json.encode(task_view(task))

    assert msgspec.json.decode(sent, type=TaskView).task() == task


async def test_submit_takes_nothing_but_the_submissions_own_fields() -> None:
    from inferq import Submission
    from inferq.wire.native import SubmitBody

    own = set(Submission.__struct_fields__) - {"batch", "schedule"}
    assert own <= set(SubmitBody.__struct_fields__)
    assert set(SubmitBody.__struct_fields__) - own == {"delay", "type", "remote_execution"}
