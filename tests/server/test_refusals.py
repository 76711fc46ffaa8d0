"""What is wrong with a request is said as a problem, with its place; nothing is changed and nothing of our insides is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

Chat = Callable[..., dict[str, Any]]
JSON = {"Content-Type": "application/json"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "/colour"),
    ({"id": "mine"}, "/id"),
    ({"state": "completed"}, "/state"),
    ({"result": {}}, "/result"),
    ({"seq": 1}, "/seq"),
    ({"schedule": "nightly"}, "/schedule"),
    ({"created": 1}, "/created"),
    ({"priority": "huge"}, "/priority"),
    ({"priority": 1.5}, "/priority"),
    ({"model": 7}, "/model"),
    ({"payload": []}, "/payload"),
    ({"payload": {"messages": []}}, "/payload/messages"),
    ({"payload": {"messages": [{"role": "user", "content": "a\0b"}]}}, "/payload/messages/0/content"),
    ({"tags": ["a", 2]}, "/tags/1"),
    ({"scheduled_at": "tomorrow"}, "/scheduled_at"),
    ({"scheduled_at": "2026-11-22T09:30:00"}, "/scheduled_at"),
    ({"scheduled_at": 9007199254740991}, "/scheduled_at"),
    ({"timeout": "soon"}, "/timeout"),
    ({"delay": "1m", "scheduled_at": 5}, "/delay"),
    ({"executor": "nobody"}, "/executor"),
    ({"action": "dance"}, "/action"),
    ({"max_retries": -1}, "/max_retries"),
]


async def test_a_wrong_field_is_pointed_at_and_nothing_is_kept(site: Any, chat: Chat) -> None:
    for change, pointer in WRONG:
        status, body, headers = await site.ask("POST", "/api/tasks", json=chat() | change)
        assert status == 400
        assert headers["content-type"] == "application/problem+json"
        assert [error["pointer"] for error in body["errors"]] == [pointer]
        assert body["request_id"] == headers["x-request-id"]
    assert (await site.get("/api/stats"))["total"] == 0


async def test_one_wrong_task_of_a_list_is_pointed_at_and_none_is_kept(site: Any, chat: Chat) -> None:
    for wrong, pointer in (({"action": "dance"}, "/1/action"), ({"priority": "huge"}, "/1/priority"), ({"model": 7}, "/1/model")):
        status, body, _ = await site.ask("POST", "/api/tasks", json=[chat(), chat() | wrong])
        assert (status, body["errors"][0]["pointer"]) == (400, pointer)
    assert (await site.get("/api/stats"))["total"] == 0


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "bad_request"),
        (b"", JSON, 400, "bad_request"),
        (b'{"action": "chat"', JSON, 400, "bad_request"),
        (b"\xff\xfe", JSON, 400, "bad_request"),
        (b'{"executor": "echo", "payload": NaN}', JSON, 400, "bad_request"),
        (b"[" * 100_000, JSON, 400, "bad_request"),
        (b'{"payload":' * 5000, JSON, 400, "bad_request"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media"),
        (b"action=chat", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media"),
        (b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media"),
        (b"{}", JSON | {"Content-Encoding": "gzip"}, 415, "unsupported_media"),
        (b"{}", JSON | {"Accept": "text/html"}, 406, "not_acceptable"),
        (b" " * 2000, JSON, 413, "payload_too_large"),
    ],
)
async def test_what_cannot_be_read_is_refused(open_site: Any, content: bytes, headers: dict[str, str], status: int, code: str) -> None:
    site = await open_site(max_body_bytes=1000 if code == "payload_too_large" else 20_000_000)

    found, body, _ = await site.ask("POST", "/api/tasks", data=content, headers=headers)

    assert (found, body["code"]) == (status, code)
    assert "Traceback" not in str(body)


async def test_an_oversized_body_without_a_length_is_refused(open_site: Any) -> None:
    site = await open_site(max_body_bytes=1000)

    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 100

    status, body, _ = await site.ask("POST", "/api/tasks", data=pieces(), headers=JSON)

    assert (status, body["code"]) == (413, "payload_too_large")


async def test_a_wrong_method_says_which_are_right(site: Any) -> None:
    status, body, headers = await site.ask("PATCH", "/api/tasks")

    assert (status, body["code"]) == (405, "wrong_method")
    assert set(headers["allow"].split(", ")) == {"GET", "POST", "HEAD", "OPTIONS"}
    assert (await site.ask("OPTIONS", "/api/tasks"))[0] == 204


async def test_head_is_get_without_a_body(site: Any) -> None:
    status, body, headers = await site.ask("HEAD", "/api/stats")

    assert (status, body) == (200, None)
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("operations", {"verb": "zap", "q": "tag:x"}, "verb: expected one of cancel, retry, priority, delete, got 'zap'"),
        ("keys", {"name": "x", "role": "boss"}, "role: expected one of read, submit, operator, admin, got 'boss'"),
    ],
)
async def test_another_word_than_the_known_ones_is_answered_with_them(site: Any, path: str, body: dict[str, Any], detail: str) -> None:
    status, problem, _ = await site.ask("POST", f"/api/{path}", json=body)
    assert (status, problem["detail"]) == (400, detail)


async def test_an_unknown_path_is_404(site: Any) -> None:
    for path in ("/nothing", "/api", "/api/tasks/", "/api/tasks/a/b/c/d", "//", "/api//tasks", "/../etc/passwd"):
        answer = await plainly(site, path)
        assert answer.startswith("HTTP/1.1 404"), path
        assert '"no_such_route"' in answer


async def plainly(site: Any, target: str) -> str:
    """The whole answer to a GET, sent as it is written: a client library would mend the path."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_an_unknown_task_is_404(site: Any) -> None:
    for id in ("nobody", "%00", "a%2Fcancel", "%F0%9F%A6%84", "';%20DROP%20TABLE%20task;%20--", "x" * 5000):
        for what in ("", "/result", "/attempts", "/why", "/stream"):
            answer = await plainly(site, f"/api/tasks/{id}{what}")
            assert answer.startswith("HTTP/1.1 404"), (id, what)
            assert '"not_found"' in answer


@pytest.mark.parametrize("method", ["cancel", "retry", "priority"])
async def test_changing_an_unknown_task_is_404_and_an_ended_one_409(site: Any, chat: Chat, method: str) -> None:
    body = {"priority": 3} if method == "priority" else None
    made = await site.post("/api/tasks", chat())
    await site.queue.wait(made["id"])

    unknown, said, _ = await site.ask("POST", f"/api/tasks/nobody/{method}", json=body)
    ended, again, _ = await site.ask("POST", f"/api/tasks/{made['id']}/{method}", json=body)

    assert (unknown, said["code"]) == (404, "not_found")
    assert (ended, again["code"]) == (409, "wrong_state")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("limit=5&limit=6", "limit"),
        ("colour=red", "colour"),
        ("payload=null", "payload"),
        ("state=done", "state"),
        ("%FF=1", "query"),
        ("&".join(f"a{number}=1" for number in range(200)), "query"),
    ],
)
async def test_a_wrong_parameter_is_named(site: Any, query: str, parameter: str) -> None:
    answer = await plainly(site, f"/api/tasks?{query}")

    assert answer.startswith("HTTP/1.1 400")
    assert f'"parameter":"{parameter}' in answer


async def test_a_full_queue_says_when_to_try_again(open_site: Any, chat: Chat) -> None:
    from inferq import Settings
    from inferq.config import StoreSettings

    site = await open_site(settings=Settings(store=StoreSettings(max_queue_size=1)), work=False)
    await site.post("/api/tasks", chat())
    status, body, headers = await site.ask("POST", "/api/tasks", json=chat())

    assert (status, body["code"], body["retryable"]) == (503, "queue_full", True)
    assert int(headers["retry-after"]) >= 1


async def test_the_clients_own_request_id_comes_back(site: Any) -> None:
    _, _, headers = await site.ask("GET", "/livez", headers={"X-Request-Id": "trace-7"})
    _, _, others = await site.ask("GET", "/livez", headers={"X-Request-Id": "no spaces please"})

    assert headers["x-request-id"] == "trace-7"
    assert others["x-request-id"] != "no spaces please"


async def test_a_mistake_of_ours_tells_nothing_of_our_insides(open_site: Any, caplog: pytest.LogCaptureFixture) -> None:
    from inferq.server import Call, Reply, create_app, route

    @route("GET", "/broken", role="read")
    async def broken(call: Call) -> Reply:
        """Break."""
        raise RuntimeError("the password is hunter2")

    site = await open_site(app=lambda queue: create_app(queue, routes=[broken]))
    status, body, _ = await site.ask("GET", "/broken")

    assert (status, body["code"]) == (500, "internal")
    assert "hunter2" not in str(body)
    assert any(record.message == "server.failed" and record.exc_info for record in caplog.records)


async def test_what_is_no_http_is_a_problem_too(site: Any) -> None:
    for nonsense in ("x" * 70_000, "/a b c"):
        answer = await plainly(site, nonsense)
        assert answer.startswith("HTTP/1.1 400"), nonsense[:10]
        assert "application/problem+json" in answer
