"""Messages reach their receivers: signed, once for each event, tried again, visible, and never to places they must not go."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferq import AsyncQueue, Settings, State
from inferq.clock import SystemClock
from inferq.config import WebhookSettings
from inferq.config.settings import StoreSettings
from inferq.errors import InvalidTask, WrongState
from inferq.events import WebhookDelivered, WebhookFailed
from inferq.store import RecordPut
from inferq.testing import EchoExecutor, wait_until
from inferq.webhook import Delivery

ASKED = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "a private prompt"}]}}


async def ended(queue: AsyncQueue, name: str, count: int) -> list[Delivery]:
    """All deliveries of a webhook, oldest first, when `count` have ended."""

    async def all_ended() -> list[Delivery] | None:
        found = (await queue.webhooks.deliveries(name)).deliveries
        return found if sum(State(one.state).is_final for one in found) >= count else None

    found: Any = await wait_until(all_ended, what=f"{count} deliveries to end")
    return list(reversed(found))


async def test_an_event_is_told_signed_with_what_tells_whose_it_is_and_no_payload(opened: Any, receiver: Any) -> None:
    queue = await opened()
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"], headers={"x-team": "a"})
    handle = await queue.submit(**ASKED, tags=["nightly"], metadata={"order": 7}, tenant="a", key="k-1")
    await handle.result()
    await receiver.until(1)
    (delivery,) = await ended(queue, "ops", 1)
    (message,) = receiver.messages(made.secret)
    headers, body = receiver.got[0]
    assert message["type"] == "task.completed"
    assert message["timestamp"].endswith("Z")
    assert message["data"]["task_id"] == handle.id
    assert message["data"]["position"] == delivery.event
    about = message["data"]["task"]
    assert (about["tags"], about["metadata"], about["tenant"], about["key"]) == (["nightly"], {"order": 7}, "a", "k-1")
    assert "private" not in body.decode()
    assert (headers["content-type"], headers["x-team"]) == ("application/json", "a")
    assert (delivery.state, delivery.status, delivery.attempts, delivery.type) == ("completed", 204, 1, "task.completed")


async def test_the_message_that_the_page_shows_has_the_fields_of_a_real_one(opened: Any, receiver: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    queue = await opened()
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.failed"])
    asked = ASKED | {"payload": ASKED["payload"] | {"fail": ["timeout"]}}
    await queue.submit(**asked, tags=["billing"], metadata={"order": 7}, max_retries=0)
    await receiver.until(1)
    (real,) = receiver.messages(made.secret)

    def shape(value: Any) -> Any:
        return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else type(value)

    assert shape(real) == shape(shown)
    assert (real["type"], real["data"]["code"]) == (shown["type"], shown["data"]["code"])


async def test_only_what_is_wanted_is_told_and_nothing_from_before(opened: Any, receiver: Any) -> None:
    queue = await opened()
    await (await queue.submit(**ASKED, tags=["billing"])).result()
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed", "queue.*"], query="tag:billing")
    await (await queue.submit(**ASKED, tags=["other"])).result()
    wanted = await queue.submit(**ASKED, tags=["billing"])
    await wanted.result()
    await queue.pause("x")
    await receiver.until(1)
    await ended(queue, "ops", 1)
    assert [message["data"]["task_id"] for message in receiver.messages(made.secret)] == [wanted.id]


async def test_deliveries_themselves_are_never_told(opened: Any, receiver: Any) -> None:
    queue = await opened()
    made = await queue.webhooks.put("all", url=receiver.url)
    await (await queue.submit(**ASKED)).result()
    found = await ended(queue, "all", 3)
    assert [one.type for one in found] == ["task.submitted", "task.started", "task.completed"]
    assert {message["type"] for message in receiver.messages(made.secret)} == {"task.submitted", "task.started", "task.completed"}


async def test_each_event_is_told_once_however_many_processes_work(opened: Any, receiver: Any) -> None:
    queues = [await opened() for _ in range(3)]
    made = await queues[0].webhooks.put("ops", url=receiver.url, events=["task.completed"])
    handles = [await queues[n % 3].submit(**ASKED) for n in range(30)]
    for handle in handles:
        await handle.result()
    await ended(queues[0], "ops", 30)
    told = [message["data"]["task_id"] for message in receiver.messages(made.secret)]
    assert sorted(told) == sorted(handle.id for handle in handles)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 30


async def test_what_fails_is_tried_again_with_the_same_id_and_body(opened: Any, receiver: Any) -> None:
    queue = await opened()
    receiver.answers = [500, "cut", 404, 200]
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.status, delivery.attempts) == ("completed", 200, 4)
    assert len(receiver.messages(made.secret)) == 4
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1


async def test_a_message_is_given_up_after_its_retries_and_the_reason_is_visible(opened: Any, receiver: Any) -> None:
    queue = await opened(max_retries=2)
    receiver.answers = [500, 502, 503]
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    before = await queue.store.last_event()
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.status, delivery.attempts) == ("failed", 503, 3)
    assert "answered 503" in delivery.error

    async def told() -> Any:
        return [event for event in await queue.store.events(after=before) if isinstance(event, WebhookFailed | WebhookDelivered)]

    (event,) = await wait_until(told)
    assert (event.webhook, event.task_id) == ("ops", delivery.id)
    assert "503" in event.error
    assert (await queue.webhooks.get("ops")).failing_since


async def test_success_is_told_with_its_status_and_ends_the_failing(opened: Any, receiver: Any) -> None:
    queue = await opened()
    receiver.answers = [500, 202]
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    await ended(queue, "ops", 1)

    async def told() -> Any:
        return [event for event in await queue.store.events() if isinstance(event, WebhookDelivered)]

    (event,) = await wait_until(told)
    assert (event.webhook, event.status) == ("ops", 202)
    assert (await queue.webhooks.get("ops")).failing_since is None


async def test_retry_after_is_obeyed_and_burns_no_attempt(opened: Any, receiver: Any) -> None:
    queue = await opened(max_retries=0)
    receiver.answers = [web.Response(status=429, headers={"retry-after": "1"}), 200]
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.status) == ("completed", 200)
    first, second = (int(headers["webhook-timestamp"]) for headers, _ in receiver.got)
    assert second - first >= 1


async def test_gone_disables_the_webhook_with_the_reason(opened: Any, receiver: Any) -> None:
    queue = await opened()
    receiver.answers = [410]
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.status, delivery.attempts) == ("failed", 410, 1)
    hook = await queue.webhooks.get("ops")
    assert (hook.enabled, "410" in hook.reason) == (False, True)
    await (await queue.submit(**ASKED)).result()
    with pytest.raises(WrongState, match="enable it first"):
        await queue.webhooks.test("ops")
    await queue.webhooks.enable("ops")
    later = await queue.submit(**ASKED)
    await later.result()
    assert len(await ended(queue, "ops", 2)) == 2


async def test_a_webhook_that_fails_for_too_long_is_disabled(opened: Any, receiver: Any) -> None:
    queue = await opened(max_retries=0, disable_after=0.001)
    receiver.answers = [500] * 50
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])

    async def disabled() -> bool:
        await (await queue.submit(**ASKED)).result()
        return not (await queue.webhooks.get("ops")).enabled

    await wait_until(disabled, what="the webhook to be disabled")
    assert "every delivery has failed" in (await queue.webhooks.get("ops")).reason


async def test_a_slow_receiver_fails_in_time_and_holds_up_no_task(opened: Any, receiver: Any) -> None:
    queue = await opened(timeout=0.2, max_retries=0)
    receiver.held.clear()
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    for _ in range(10):
        await (await queue.submit(**ASKED)).result(timeout=10)
    found = await ended(queue, "ops", 10)
    assert {one.state for one in found} == {"failed"}
    assert "did not answer within 0.2 s" in found[0].error


async def test_redirects_are_not_followed(opened: Any, receiver: Any) -> None:
    queue = await opened(max_retries=0)
    receiver.answers = [web.Response(status=307, headers={"location": receiver.url.replace("hook", "other")})]
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.status) == ("failed", 307)
    assert "final address" in delivery.error
    assert len(receiver.got) == 1


async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_connected_to(
    opened: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def rebound(host: Any, *args: Any, **how: Any) -> Any:
        return real("127.0.0.1" if host == "ops.example" else host, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    queue = await opened(allow_private=False)
    url = receiver.url.replace("127.0.0.1", "ops.example")
    await queue.webhooks.put("ops", url=url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    (delivery,) = await ended(queue, "ops", 1)
    assert (delivery.state, delivery.attempts) == ("failed", 1)
    assert "allow_private" in delivery.error
    assert receiver.got == []


async def test_a_test_message_and_replays(opened: Any, receiver: Any) -> None:
    queue = await opened(max_retries=0)
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    ping = await queue.webhooks.test("ops")
    await ended(queue, "ops", 1)
    assert receiver.messages(made.secret)[0]["type"] == "webhook.test"
    assert (await queue.webhooks.delivery(ping.id)).state == "completed"
    receiver.answers = [500, 500]
    for _ in range(2):
        await (await queue.submit(**ASKED)).result()
    failed = [one for one in await ended(queue, "ops", 3) if one.state == "failed"]
    assert len(failed) == len((await queue.webhooks.deliveries("ops", failed=True)).deliveries) == 2
    again = await queue.webhooks.replay("ops")
    assert len(again) == 2
    await ended(queue, "ops", 5)
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert sorted(ids[1:3]) == sorted(ids[3:5])
    assert await queue.webhooks.replay("ops") == []
    await queue.webhooks.replay("ops", ping.id)
    await ended(queue, "ops", 6)
    assert [headers["webhook-id"] for headers, _ in receiver.got][5] == ids[0]


async def test_a_new_secret_signs_from_now_on_and_a_reference_is_resolved_where_it_is_used(
    opened: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await opened()
    first = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    kept = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    assert first.secret
    assert kept.secret is None
    await (await queue.submit(**ASKED)).result()
    await ended(queue, "ops", 1)
    monkeypatch.setenv("OPS_SECRET", "whsec_" + "QUFB" * 12)
    referred = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"], secret="${OPS_SECRET}")
    assert referred.webhook.secret_from == "${OPS_SECRET}"
    await (await queue.submit(**ASKED)).result()
    await ended(queue, "ops", 2)
    (one, two) = receiver.got
    assert json.loads(one[1])["type"] == json.loads(two[1])["type"]
    from inferq import verify_webhook

    verify_webhook(one[1], one[0], first.secret)
    verify_webhook(two[1], two[0], [first.secret, "whsec_" + "QUFB" * 12])


SECRET_TEXT = "whsec_" + "QUFB" * 12


async def test_a_secret_in_the_folder_for_them_signs(opened: Any, receiver: Any, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ops").write_text(SECRET_TEXT + "\n")
    queue = await opened(secret_dir=str(tmp_path / "secrets"))
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"], secret="file:ops")
    assert made.webhook.secret_from == "file:ops"
    await (await queue.submit(**ASKED)).result()
    await ended(queue, "ops", 1)
    assert len(receiver.messages(SECRET_TEXT)) == 1


async def test_a_reference_tells_nothing_of_what_is_on_the_disk(
    opened: Any, receiver: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (tmp_path / "there").write_text(SECRET_TEXT)
    (folder / "link").symlink_to(tmp_path / "there")
    (folder / "text").write_text("no secret of ours")
    queue = await opened(secret_dir=str(folder), max_retries=0)
    for outside in (tmp_path / "there", tmp_path / "not there", "../there", "../gone", f"{folder}/../there", "/etc/passwd", "/", "."):
        with pytest.raises(InvalidTask, match=rf"expected a file in {folder} \(webhooks.secret_dir\), got one in another place"):
            await queue.webhooks.put("ops", url=receiver.url, secret=f"file:{outside}")
    errors = set()
    for secret in ("file:link", "file:gone", "file:text", "${HOME}", "${INFERQ_NOT_THERE}", "credential:ops"):
        await queue.webhooks.put("ops", url=receiver.url, events=["batch.finished"], secret=secret)
        tried = await queue.webhooks.test("ops")
        await queue.wait(tried.id)
        errors.add((await queue.webhooks.delivery(tried.id)).error)
    assert errors == {"the secret of webhook 'ops' cannot be used by the process that delivers; its log says why"}
    assert receiver.got == []
    said = [record.error for record in caplog.records if record.message == "webhook.secret_unusable"]
    assert len(said) == 6
    assert all("AAA" not in error and SECRET_TEXT not in error for error in said)


async def test_a_removed_webhook_tells_nothing_more(opened: Any, receiver: Any) -> None:
    queue = await opened()
    await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    await queue.webhooks.remove("ops")
    await (await queue.submit(**ASKED)).result()
    await queue.webhooks.put("other", url=receiver.url, events=["task.completed"])
    await (await queue.submit(**ASKED)).result()
    await ended(queue, "other", 1)
    assert len(receiver.got) == 1


async def test_keys_and_filters_that_others_left_hold_up_no_message(opened: Any, receiver: Any) -> None:
    queue = await opened()
    made = await queue.webhooks.put("ops", url=receiver.url, events=["task.completed"])
    broken = await queue.store.record("webhook", "ops")
    body = json.loads(broken.body) | {"name": "broken", "query": "nothing:of-this"}
    await queue.store.put_record(RecordPut("webhook", "broken", json.dumps(body).encode()), SystemClock().read())
    last = await queue.store.last_event()
    taken = [f"webhook:ops:{made.webhook.created}:{position}" for position in range(last + 42, last + 82)]
    handles = await queue.submit_many([ASKED | {"key": key, "payload": ASKED["payload"]} for key in taken])
    for handle in handles:
        await handle.result()
    await ended(queue, "ops", 40)
    assert {message["data"]["task_id"] for message in receiver.messages(made.secret)} == {handle.id for handle in handles}
    assert (await queue.webhooks.deliveries("broken")).deliveries == []


async def test_messages_that_wait_leave_the_queue_its_room_and_say_what_they_wait_for(receiver: Any, tmp_path: Path) -> None:
    receiver.held.clear()
    settings = Settings(store=StoreSettings(max_queue_size=3), webhooks=WebhookSettings(allow_private=True, slots=1))
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")], settings=settings) as queue:
        await queue.webhooks.put("hook", url=receiver.url, events=["task.completed"])
        for _ in range(6):
            await (await queue.submit("echo", "echo")).result()
        messages = "executor:webhook state:pending sort:-created"
        await wait_until(lambda: _all_wait(queue, messages, 5), what="five messages that wait")
        batch = await queue.batches.from_rows([{"executor": "echo", "action": "echo"}] * 3)
        assert (await batch.wait()).completed == 3
        last = (await queue.list(messages)).tasks[0]
        found = await queue.explain(last.id)
        assert (found.gate, found.position is not None, "of the messages to its receiver" in found.reason) == ("behind", True, True)
        receiver.held.set()


async def _all_wait(queue: AsyncQueue, where: str, count: int) -> bool:
    return len((await queue.list(where)).tasks) >= count
