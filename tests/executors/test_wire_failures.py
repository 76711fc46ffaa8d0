"""Refusals in their classes and codes, hints to wait, secrets kept out of messages."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

import pytest
from doubles.drawn import json_values
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import FAILURE_CODES, ExecutorError, Reject, RetryLater, Unavailable
from inferq.wire.failures import failure_in_stream, failure_of, hidden, retry_after

NOW = 1_800_000_000.0


def error(message: str, **rest: Any) -> bytes:
    return json.dumps({"error": {"message": message, **rest}}).encode()


TOO_LONG = "request (9031 tokens) exceeds the available context size (2048 tokens), try increasing it"
TOO_LARGE = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 42000."
FAILURES: list[tuple[int, dict[str, str], bytes, type[ExecutorError], str, float | None]] = [
    (429, {"retry-after": "7"}, error("slow down", code="rate_limit_exceeded"), RetryLater, "rate_limited", 7.0),
    (429, {"retry-after-ms": "250", "retry-after": "7"}, b"", RetryLater, "rate_limited", 0.25),
    (429, {"retry-after": formatdate(NOW + 30, usegmt=True)}, b"", RetryLater, "rate_limited", 30.0),
    (429, {}, b"", RetryLater, "rate_limited", None),
    (429, {}, error("Please try again in 1.2s."), RetryLater, "rate_limited", 1.2),
    (429, {}, error("x", status="RESOURCE_EXHAUSTED", details=[{"retryDelay": "34s"}]), RetryLater, "rate_limited", 34.0),
    (429, {"retry-after": "7"}, error("quota", code="insufficient_quota"), Reject, "quota_exhausted", None),
    (429, {}, error("You have reached your spend limit"), Reject, "quota_exhausted", None),
    (429, {}, error(TOO_LARGE, code="rate_limit_exceeded"), Reject, "context_length", None),
    (402, {}, b"", Reject, "quota_exhausted", None),
    (503, {}, error("Loading model", type="unavailable_error", code=503), RetryLater, "overloaded", None),
    (503, {}, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', RetryLater, "overloaded", None),
    (503, {"retry-after": "3"}, b"maintenance", RetryLater, "overloaded", 3.0),
    (503, {}, b"<html>Service Unavailable</html>", Unavailable, "overloaded", None),
    (529, {}, error("Overloaded", type="overloaded_error"), RetryLater, "overloaded", None),
    (498, {}, error("x", code="capacity_exceeded"), RetryLater, "overloaded", None),
    (500, {}, b'{"error":"server busy, please try again"}', RetryLater, "overloaded", None),
    (500, {}, error("The server had an error"), Unavailable, "server_error", None),
    (502, {}, b"<html><body>Bad Gateway</body></html>", Unavailable, "server_error", None),
    (504, {}, b"", Unavailable, "server_error", None),
    (501, {}, error("This server does not support embeddings"), Reject, "bad_request", None),
    (408, {}, b"", Unavailable, "timeout", None),
    (409, {}, b"", Unavailable, "server_error", None),
    (401, {}, error("Invalid API Key", type="authentication_error"), Reject, "auth", None),
    (400, {}, b'[{"error":{"code":400,"message":"API key not valid."}}]', Reject, "auth", None),
    (403, {}, error("Country not supported"), Reject, "permission", None),
    (404, {}, b'{"error":"model \'x\' not found, try pulling it first"}', Reject, "model_not_found", None),
    (404, {}, error("The model `x` does not exist or you do not have access to it."), Reject, "model_not_found", None),
    (404, {}, error("nope", code="model_not_found"), Reject, "model_not_found", None),
    (404, {}, b"404 page not found", Reject, "not_found", None),
    (400, {}, error("x is not a valid model ID"), Reject, "model_not_found", None),
    (400, {}, error(TOO_LONG, type="exceed_context_size_error", code=400), Reject, "context_length", None),
    (400, {}, error("too long", code="context_length_exceeded"), Reject, "context_length", None),
    (400, {}, error("This model's maximum context length is 4096 tokens."), Reject, "context_length", None),
    (500, {}, error("input is too large to process. increase the physical batch size"), Reject, "context_length", None),
    (400, {}, error("blocked", code="content_filter"), Reject, "content_filter", None),
    (400, {}, error("x", innererror={"code": "ResponsibleAIPolicyViolation"}), Reject, "content_filter", None),
    (400, {}, error("messages: field required"), Reject, "bad_request", None),
    (422, {}, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', Reject, "bad_request", None),
    (413, {}, b"", Reject, "bad_request", None),
    (301, {"location": "https://x"}, b"", Reject, "bad_request", None),
]


@pytest.mark.parametrize(("status", "headers", "body", "kind", "failure", "after"), FAILURES)
def test_each_refusal_gets_its_class_and_code(
    status: int, headers: dict[str, str], body: bytes, kind: type[ExecutorError], failure: str, after: float | None
) -> None:
    made = failure_of(status, headers, body, now=NOW, source="b")
    assert (type(made), made.failure) == (kind, failure), str(made)
    assert getattr(made, "after", None) == (pytest.approx(after, abs=0.001) if after is not None else None)
    assert str(made).startswith(f"b answered {status}: ")


@pytest.mark.parametrize(
    ("value", "kind", "failure"),
    [
        ({"error": {"message": "Loading model", "code": 503}}, RetryLater, "overloaded"),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, RetryLater, "rate_limited"),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, Reject, "quota_exhausted"),
        ({"error": {"message": "x", "code": "context_length_exceeded", "type": "invalid_request_error"}}, Reject, "context_length"),
        ({"error": "an unknown error was encountered while running the model"}, Unavailable, "server_error"),
        ({"error": "model 'x' not found"}, Reject, "model_not_found"),
        ({"error": {"message": "x", "type": "server_error"}}, Unavailable, "server_error"),
    ],
)
def test_an_error_in_the_midst_of_a_stream_is_classified_like_any_other(value: Any, kind: type[ExecutorError], failure: str) -> None:
    made = failure_in_stream(value, source="b")
    assert (type(made), made.failure) == (kind, failure), str(made)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(NOW - 60, usegmt=True)}, 0.0),
        ({"retry-after": "9" * 30}, 86_400.0),
        ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "6m0s"}, 0.012),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
            },
            360.0,
        ),
        ({"x-ratelimit-reset-tokens": "-1"}, None),
        ({"x-ratelimit-reset": str(int(NOW) + 20)}, 20.0),
        ({"x-ratelimit-reset": str(int(NOW + 20) * 1000)}, 20.0),
        ({"x-ratelimit-reset-requests": "2027-01-15T08:00:05Z"}, 5.0),
        ({}, None),
    ],
)
def test_hints_to_wait_are_read_in_all_their_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == (pytest.approx(seconds) if seconds is not None else None)


hint_names = st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-reset", "date"])


@given(st.integers(300, 599), st.dictionaries(hint_names, st.text()), st.binary() | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_refusal_is_beyond_classification(status: int, headers: dict[str, str], body: bytes) -> None:
    made = failure_of(status, headers, body, now=NOW, source="b")
    assert made.failure in FAILURE_CODES
    assert len(str(made)) <= 540
    if isinstance(made, RetryLater):
        assert made.after is None or 0 <= made.after <= 86_400


@given(st.text(max_size=2_000), st.text(min_size=6, max_size=40).map(str.strip).filter(lambda s: len(s) >= 6 and "*" not in s))
def test_a_secret_never_survives_in_a_message(text: str, secret: str) -> None:
    shown = hidden(text + secret + text, [secret])
    assert secret not in shown
    assert len(shown) <= 500
