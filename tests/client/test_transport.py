"""What a client makes of answers and of their absence: the right error, and another try only where it is safe."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest
from misbehaving import Asked, Scripted, cuts, hangs, refuses, says, sends

import inferq
from inferq import errors
from inferq.client import AsyncClient
from inferq.testing import wait_until
from inferq.wire.native import StatsView

PAGE = b"<html>Please log in</html>"
ZERO = {int: 0, float: 0.0, str: "", bool: False, list: [], dict: {}}
STATS = {field.name: ZERO[get_origin(field.type) or field.type] for field in msgspec.structs.fields(StatsView)}
STATS |= {"pending_by_priority": {"5": 1}}
SUBMITTED = {"id": "t1", "task_id": "t1", "state": "pending", "executor": "echo", "action": "chat", "model": "m", "priority": 5}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_request", errors.InvalidTask),
        (400, "unknown_executor", errors.UnknownExecutor),
        (400, "bad_query", errors.InvalidQuery),
        (401, "unauthenticated", errors.Unauthenticated),
        (403, "forbidden", errors.Forbidden),
        (404, "not_found", errors.TaskNotFound),
        (404, "no_such_route", errors.NoSuchRoute),
        (409, "wrong_state", errors.WrongState),
        (409, "stale", errors.StaleRecord),
        (413, "payload_too_large", errors.PayloadTooLarge),
        (422, "duplicate_key", errors.DuplicateKey),
        (429, "rate_limited", errors.RateLimited),
        (503, "queue_full", errors.QueueFull),
        (503, "store_locked", errors.StoreLocked),
        (507, "store_full", errors.StoreFull),
        (418, "teapot", errors.ApiError),
    ],
)
async def test_a_refusal_is_the_error_that_the_queue_itself_would_raise(
    scripted: Scripted, status: int, code: str, kind: type[errors.InferqError]
) -> None:
    scripted.script = [refuses(status, code, "expected this, got that", request_id="r-1")]
    async with AsyncClient(scripted.url, api_key="iq_a_b", retries=0) as client:
        with pytest.raises(kind, match=r"^expected this, got that$") as caught:
            await client.get("t1")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (code, status, "r-1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.ProtocolError),
        (429, errors.RateLimited),
        (502, errors.Rejected),
        (503, errors.Rejected),
        (500, errors.ApiError),
    ],
)
async def test_a_refusal_without_a_problem_document_still_has_a_kind(
    scripted: Scripted, status: int, kind: type[errors.InferqError]
) -> None:
    scripted.script = [says("<h1>Gateway</h1>", status)]
    async with AsyncClient(scripted.url, retries=0) as client:
        with pytest.raises(kind, match="Gateway") as caught:
            await client.get("t1")
    assert caught.value.status == (status if status != 404 else 502)


async def test_a_mistake_in_a_submission_names_its_field(scripted: Scripted, client: AsyncClient) -> None:
    fault = {"pointer": "/payload/messages/0/role", "detail": "expected a role"}
    scripted.script = [refuses(400, "bad_request", "payload.messages[0].role: expected a role", errors=[fault])]
    with pytest.raises(inferq.InvalidTask) as caught:
        await client.chat("m", "hi", executor="echo")
    assert caught.value.field == "payload.messages[0].role"
    assert str(caught.value) == "payload.messages[0].role: expected a role"


async def test_a_hint_when_to_try_again_reaches_the_caller(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [refuses(503, "queue_full", "1,000 tasks wait", retry_after=12.5)]
    with pytest.raises(inferq.QueueFull) as caught:
        await client.chat("m", "hi", executor="echo")
    assert caught.value.retry_after == 12.5
    assert len(scripted.asked) == 1  # what to do about a full queue is the caller's choice, as it is without a server


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), errors.ProtocolError),
        (says("<html>It works!</html>"), errors.ProtocolError),
        (says({"something": "else"}), errors.ProtocolError),
        (says("", 302, location="https://elsewhere.example/api"), errors.ProtocolError),
        (sends(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), errors.ConnectionLost),
        (cuts, errors.ConnectionLost),
    ],
    ids=["no http", "a web page", "other json", "a redirect", "half an answer", "nothing"],
)
async def test_something_that_is_no_inferq_server_is_told_from_one_that_refuses(
    scripted: Scripted, answer: Any, kind: type[errors.InferqError]
) -> None:
    scripted.script = [answer]
    async with AsyncClient(scripted.url, retries=0) as client:
        with pytest.raises(kind, match=f"127.0.0.1:{scripted.port}"):
            await client.stats()


async def test_an_answer_that_does_not_come_ends_with_a_timeout(scripted: Scripted) -> None:
    scripted.script = [hangs]
    async with AsyncClient(scripted.url, timeout=0.05) as client:
        with pytest.raises(errors.RequestTimeout, match=r"did not answer within 0\.05 s") as caught:
            await client.stats()
    assert isinstance(caught.value, TimeoutError)
    assert len(scripted.asked) == 1


async def test_without_a_server_the_error_says_how_to_start_one() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(
                errors.ConnectFailed, match=rf"No server at http://127\.0\.0\.1:{port} \(connection refused\).*inferq serve.*INFERQ_URL"
            ):
                await client.stats()


async def test_a_question_whose_answer_was_lost_is_asked_again(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [cuts, says(STATS)]
    assert (await client.stats()).pending_by_priority == {5: 1}
    assert len(scripted.asked) == 2


async def test_a_change_whose_answer_was_lost_is_not_made_again(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [cuts]
    with pytest.raises(errors.ConnectionLost, match="cut before the answer"):
        await client.cancel("t1")
    assert len(scripted.asked) == 1


async def test_a_submit_carries_a_key_of_its_own_and_is_sent_again_as_it_was(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [cuts, cuts, says(SUBMITTED, 201)]
    handle = await client.chat("m", "hi", executor="echo", delay="10m")
    first, second, third = scripted.asked
    assert handle.id == "t1"
    assert first.body == second.body == third.body
    assert first.json["key"].startswith("client-")
    scripted.script = [says(SUBMITTED, 201)]
    await client.chat("m", "hi", executor="echo", key="mine")
    await client.chat("m", "hi", executor="echo")
    assert scripted.asked[3].json["key"] == "mine"
    assert scripted.asked[4].json["key"] != first.json["key"]


async def test_tries_are_bounded(scripted: Scripted) -> None:
    scripted.script = [cuts]
    async with AsyncClient(scripted.url, retries=2) as client:
        with pytest.raises(errors.ConnectionLost):
            await client.stats()
    assert len(scripted.asked) == 3


async def test_whoever_asks_too_often_waits_as_long_as_the_server_says(scripted: Scripted, client: AsyncClient) -> None:
    moments: list[float] = []

    def noted(answer: Any) -> Any:
        async def act(asked: Any, writer: asyncio.StreamWriter) -> None:
            moments.append(asyncio.get_running_loop().time())
            await answer(asked, writer)

        return act

    scripted.script = [noted(refuses(429, "rate_limited", retry_after=0.3)), noted(says(STATS))]
    await client.stats()
    assert moments[1] - moments[0] >= 0.3


async def test_a_wait_beyond_the_time_of_the_call_is_left_to_the_caller(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [refuses(429, "rate_limited", retry_after=3600)]
    with pytest.raises(errors.RateLimited) as caught:
        await client.stats()
    assert caught.value.retry_after == 3600
    assert len(scripted.asked) == 1


async def test_connections_are_kept_and_the_key_goes_with_every_request(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [says(STATS)]
    for _ in range(5):
        await client.stats()
    assert scripted.connections == 1
    assert {asked.headers["authorization"] for asked in scripted.asked} == {"Bearer iq_abc_s3cret"}


async def test_a_key_is_never_shown(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [refuses(403, "forbidden")]
    with pytest.raises(errors.Forbidden) as caught:
        await client.stats()
    shown = f"{client!r} {client.transport!r} {vars(client.transport)} {caught.value!r} {caught.value.__cause__!r}"
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    "url", ["", "queue.lan:7125", "ftp://queue.lan", "http://", "http://x:99999", "http://u:p4ss@queue.lan", "http://x/?a=1"]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="expected a server's address") as caught:
        AsyncClient(url)
    assert "p4ss" not in str(caught.value)


async def test_a_prefix_of_the_address_is_kept(scripted: Scripted) -> None:
    scripted.script = [says(STATS)]
    async with AsyncClient(f"{scripted.url}/queues/one/") as client:
        await client.stats()
    assert scripted.asked[0].path == "/queues/one/api/stats"


async def test_what_comes_from_outside_cannot_leave_its_place_in_the_address(scripted: Scripted, client: AsyncClient) -> None:
    scripted.script = [refuses(404, "not_found")]
    with pytest.raises(inferq.TaskNotFound):
        await client.get("../stats?x=1#y")
    assert scripted.asked[0].path == "/api/tasks/..%2Fstats%3Fx%3D1%23y"


async def test_a_closed_client_says_so() -> None:
    client = AsyncClient("http://127.0.0.1:1")
    with pytest.raises(errors.StoreClosed, match="async with AsyncClient"):
        await client.stats()
    await client.start()
    await client.close()
    await client.close()
    with pytest.raises(errors.StoreClosed):
        await client.get("t1")


async def test_a_call_that_is_cancelled_closes_its_connection(scripted: Scripted, client: AsyncClient) -> None:
    gone = asyncio.Event()

    async def waits(asked: Asked, _: asyncio.StreamWriter) -> None:
        assert asked.reader is not None
        assert await asked.reader.read(1) == b""
        gone.set()

    scripted.script = [waits]
    asking = asyncio.create_task(client.stats())
    await wait_until(lambda: scripted.asked)
    asking.cancel()
    await asyncio.wait_for(gone.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_page_to_log_in_is_no_copy_of_the_store(scripted: Scripted, client: AsyncClient, tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
    scripted.script = [sends(head % len(PAGE) + PAGE)]
    with pytest.raises(errors.ProtocolError, match=r"text/html.* where a copy of the store was expected"):
        await client.backup(tmp_path / "copy.db")
    assert os.listdir(tmp_path) == []
