"""Webhooks as values: signatures, what may be put, which events are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq import verify_webhook
from inferq.errors import InvalidSignature, InvalidTask
from inferq.events import QueuePaused, RecordChanged, TaskCompleted, TaskSubmitted, WebhookFailed
from inferq.executors.addresses import is_public
from inferq.webhook import (
    Webhook,
    check_events,
    check_headers,
    check_name,
    check_secret,
    check_url,
    is_own,
    make_delivery,
    new_secret,
    sign,
)

# The example of the specification (https://github.com/standard-webhooks/standard-webhooks, its libraries' tests).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, STAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(**changed: str) -> dict[str, str]:
    return {"Webhook-Id": ID, "Webhook-Timestamp": str(STAMP), "Webhook-Signature": SIGNATURE} | changed


def test_the_signature_is_that_of_the_specifications_example() -> None:
    assert sign(SECRET, ID, STAMP, BODY) == SIGNATURE
    assert verify_webhook(BODY, headers(), SECRET, now=STAMP) == {"test": 2432232314}
    assert verify_webhook(BODY.decode(), headers(), [new_secret(), SECRET], now=STAMP + 299)


@pytest.mark.parametrize(
    ("body", "changed", "now", "why"),
    [
        (BODY + b" ", {}, STAMP, "another"),
        (BODY, {"Webhook-Id": "msg_other"}, STAMP, "another"),
        (BODY, {"Webhook-Timestamp": str(STAMP + 1)}, STAMP, "another"),
        (BODY, {"Webhook-Signature": "v1,AAAA v2,BBBB"}, STAMP, "another"),
        (BODY, {"Webhook-Signature": "ü"}, STAMP, "another"),
        (BODY, {}, STAMP + 301, "clocks differ"),
        (BODY, {}, STAMP - 301, "clocks differ"),
        (BODY, {"Webhook-Timestamp": "soon"}, STAMP, "Unix seconds"),
        (BODY, {"Webhook-Timestamp": "9" * 400}, STAMP, "Unix seconds"),
    ],
)
def test_what_was_not_signed_so_is_refused(body: bytes, changed: dict[str, str], now: float, why: str) -> None:
    with pytest.raises(InvalidSignature, match=why):
        verify_webhook(body, headers(**changed), SECRET, now=now)


def test_missing_headers_and_secrets_that_are_none_are_named() -> None:
    with pytest.raises(InvalidSignature, match="webhook-id"):
        verify_webhook(BODY, {}, SECRET)
    with pytest.raises(InvalidSignature, match="whsec_"):
        verify_webhook(BODY, headers(), "MfKQ9r8G", now=STAMP)


def test_several_signatures_may_come_while_a_secret_is_replaced() -> None:
    both = headers(**{"Webhook-Signature": f"{sign(new_secret(), ID, STAMP, BODY)} {SIGNATURE}"})
    assert verify_webhook(BODY, both, SECRET, now=STAMP)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4), st.integers(0, 2**40))
def test_whatever_is_signed_is_verified_and_nothing_else(content: dict[str, Any], stamp: int) -> None:
    secret, body = new_secret(), json.dumps(content).encode()
    sent = {"webhook-id": "m", "webhook-timestamp": str(stamp), "webhook-signature": sign(secret, "m", stamp, body)}
    assert verify_webhook(body, sent, secret, now=stamp) == content
    with pytest.raises(InvalidSignature):
        verify_webhook(body, sent, new_secret(), now=stamp)


# ── what may be put ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 101, None])
def test_names_fit_into_paths_and_lanes(name: Any) -> None:
    with pytest.raises(InvalidTask, match="name"):
        check_name(name)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a.example",
        "https://",
        "https://user:pass@a.example",
        "https://a.example/#x",
        "https://a.example/ b",
        "https://a.example\\@b.example/",
        "http://a.example:99999/",
        "https://a%2eexample/",
        7,
        *[f"http://{host}/x" for host in ("127.0.0.1", "localhost", "a.localhost", "10.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0")],
    ],
)
def test_addresses_that_must_not_be_called_are_refused(url: Any) -> None:
    with pytest.raises(InvalidTask, match="url"):
        check_url(url, is_public)


def test_private_addresses_are_fine_where_they_are_allowed() -> None:
    assert check_url("http://127.0.0.1:9/x", None)
    assert check_url("https://ops.example:8443/hook?a=b", is_public)


def test_patterns_must_fit_an_event_that_is_told() -> None:
    assert check_events(["task.*", "batch.finished", "task_completed"])
    for wrong in ([], ["nothing"], [""], ["webhook.*"], ["task.*", "webhook.failed"]):
        with pytest.raises(InvalidTask, match="events"):
            check_events(wrong)


@pytest.mark.parametrize("wrong", [{"a b": "x"}, {"x": "a\nb"}, {"Content-Type": "x"}, {"webhook-id": "x"}, {"x": "ü"}, {"x": 1}])
def test_headers_that_cannot_be_sent_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidTask, match=r"headers\."):
        check_headers(wrong)


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_!!!!", "whsec_QUFB", "$OPS", None])
def test_a_wrong_secret_is_refused_and_not_repeated(secret: Any) -> None:
    with pytest.raises(InvalidTask) as refused:
        check_secret(secret, "/run/secrets")
    assert "hunter2" not in str(refused.value)
    for fine in (SECRET, "${OPS_SECRET}", "file:/run/secrets/ops", "file:ops", "file:team/ops", "credential:ops", new_secret()):
        assert check_secret(fine, "/run/secrets") == fine


# ── which events ────────────────────────────────────────────────────────────────────────────────────────────────────


def hook(**fields: Any) -> Webhook:
    return Webhook(**({"name": "ops", "url": "https://ops.example", "secret": SECRET} | fields))


def test_own_events_are_never_told() -> None:
    for event in (
        TaskSubmitted(position=1, lane="webhook/ops"),
        TaskCompleted(position=1, lane="webhook/ops"),
        WebhookFailed(position=1),
        RecordChanged(position=1, kind="webhook"),
        RecordChanged(position=1, kind="webhook.cursor"),
    ):
        assert is_own(event)
        assert not hook(events=("*",)).wants(event)
    assert hook(events=("*",)).wants(RecordChanged(position=1, kind="schedule"))


def test_a_webhook_wants_what_its_patterns_name_from_its_beginning_on_while_it_is_enabled() -> None:
    assert hook(events=("task.*",)).wants(TaskCompleted(position=5))
    assert not hook(events=("task.*",)).wants(QueuePaused(position=5))
    assert not hook(since=5).wants(TaskCompleted(position=5))
    assert hook(since=5).wants(TaskCompleted(position=6))
    assert not hook(enabled=False).wants(TaskCompleted(position=5))


def test_events_without_a_task_pass_no_filter() -> None:
    assert hook().passes(None, 0)
    assert not hook(query="tag:a").passes(None, 0)


def test_what_is_shown_has_no_secret() -> None:
    view = hook(headers={"Authorization": "Bearer s3cret", "x-team": "a"}).view
    assert SECRET not in repr(view)
    assert view.headers == {"Authorization": "***", "x-team": "a"}
    assert hook(secret="${OPS}").view.secret_from == "${OPS}"


def test_a_delivery_is_made_once_for_a_position_and_anew_for_a_new_webhook_of_that_name() -> None:
    made = [
        make_delivery("ops", "task.completed", 0, {}, now=0, retries=3, give_up=60, position=position, mark=mark)
        for position, mark in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))
    ]
    assert len({task.key for task in made}) == 3
    assert made[0].digest == made[1].digest
    assert made[0].expires == 60_000
