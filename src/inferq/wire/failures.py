"""What a model server's refusal means: HTTP status, headers and body to RetryLater, Unavailable or Reject. Pure.

Sources: OpenAI's error codes and rate-limit headers, RFC 9110 (Retry-After), llama.cpp's and Ollama's own error texts,
and what compatible servers (vLLM, Azure, Groq, Gemini, OpenRouter) are seen to answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from inferq.clock import seconds
from inferq.errors import ExecutorError, FailureCode, Reject, RetryLater, Unavailable
from inferq.wire.framing import MalformedError, decode_json

MAX_MESSAGE: Final = 500
"""Characters of a backend's own message that are kept."""
MAX_WAIT: Final = 86_400.0
"""Seconds; a longer hint is taken for this."""

_QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "spend_limit_reached",
        "insufficient_credits",
        "insufficient_balance",
        "credit_limit_reached",
        "budget_exceeded",
    }
)
_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_FILTER_CODES: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "moderation_blocked",
    }
)
_MODEL_CODES: Final = frozenset(
    {
        "model_not_found",
        "invalid_model",
        "model_not_available",
        "modelnotfound",
        "deploymentnotfound",
    }
)
_LIMIT_CODES: Final = frozenset({"rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "too_many_requests"})
_BUSY_CODES: Final = frozenset({"overloaded_error", "unavailable_error", "capacity_exceeded", "engine_overloaded"})
_KEY_CODES: Final = frozenset({"invalid_api_key", "authentication_error"})

_QUOTA: Final = re.compile(r"spend(ing)? limit|insufficient (credit|balance|funds)|credit balance|out of credits")
_CONTEXT: Final = re.compile(
    r"(maximum|available|exceeds?( the)?|model'?s) context|context (length|window|size)( is)? exceed|max_model_len"
    r"|prompt is too long|too many tokens|reduce the length|input (length|is too large|too long)|request too large"
    r"|longer than the (maximum )?(context|model)"
)
_FILTERED: Final = re.compile(r"content (management )?(policy|filter)|safety system")
_MODEL: Final = re.compile(
    r"model\b.{0,200}?(not found|does not exist|doesn't exist|not exist|is not (available|supported|a valid))"
    r"|unknown model|invalid model|not a valid model|no such model|try pulling it"
)
_BUSY: Final = re.compile(
    r"loading model|model is (still )?loading|server (is )?busy|overload|maximum pending requests"
    r"|at capacity|over capacity|too many (pending |concurrent )?requests|high demand"
)
_KEY: Final = re.compile(r"api key not valid|(invalid|incorrect|missing) api[ -]key")
_TRY_AGAIN: Final = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|[hms]))+|\d+(?:\.\d+)? ?sec)")


@dataclass(frozen=True, slots=True)
class Complaint:
    """A backend's own words: `message` for people, `codes` (lower case) what its `code`, `type` and `status` say."""

    message: str
    codes: frozenset[str] = frozenset()
    status: int | None = None
    wait: float | None = None


def failure_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    source: str,
    secrets: Iterable[str] = (),
) -> ExecutorError:
    """The error that an answer other than 2xx means. `headers` with lower-case names, `now` in Unix seconds.

    The message begins with `source` (who answered) and holds the status and the backend's own words, cut to 500
    characters and without any of `secrets`.
    """
    complaint = complaint_of(body)
    words = hidden(complaint.message, secrets) or "no reason given"
    after = retry_after(headers, now=now)
    if after is None:
        after = complaint.wait
    return _classified(status, complaint, f"{source} answered {status}: {words}", after)


def failure_in_stream(value: Any, *, source: str, secrets: Iterable[str] = ()) -> ExecutorError:
    """The error that an `error` object or text in the midst of a stream (under status 200) means."""
    complaint = _complaint(value)
    message = f"{source} broke off: {hidden(complaint.message, secrets) or 'no reason given'}"
    status = complaint.status
    if status is None:
        status = 429 if complaint.codes & (_LIMIT_CODES | _QUOTA_CODES) else 500
        if complaint.codes & (_KEY_CODES | {"invalid_request_error", "bad_request"}) or _MODEL.search(complaint.message.lower()):
            status = 400
    return _classified(status, complaint, message, complaint.wait)


def complaint_of(body: bytes) -> Complaint:
    """What an error body says, whatever its shape: OpenAI's object, Ollama's text, FastAPI's detail, an HTML page."""
    text = body[:65_536].decode(errors="replace").strip()
    try:
        value = decode_json(body)
    except MalformedError:
        # A proxy's page or plain text: without its tags, and marked as nobody's protocol.
        return Complaint(re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.S)).strip())
    return _complaint(value)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text on one line, with every secret replaced by `***`, cut to 500 characters."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a server asks to wait, None when it does not say. `now` is Unix seconds, for hints that are dates.

    In this order: `retry-after-ms`, `retry-after` (seconds or an HTTP date), `x-ratelimit-reset-requests` and `-tokens`
    (of the limits that are used up, the later; where none is known to be, the earlier), `x-ratelimit-reset`.
    """
    for hint in (
        _scaled(headers.get("retry-after-ms"), 0.001),
        _span(headers.get("retry-after"), now=now),
        _exhausted(headers, now=now),
        _span(headers.get("x-ratelimit-reset"), now=now),
        _span(headers.get("ratelimit-reset"), now=now),
    ):
        if hint is not None:
            return hint
    return None


def _classified(status: int, complaint: Complaint, message: str, after: float | None) -> ExecutorError:
    codes, text = complaint.codes, complaint.message.lower()
    if status in (401, 407) or codes & _KEY_CODES or (status < 500 and _KEY.search(text)):
        return Reject(message, failure="auth")
    if status == 402 or codes & _QUOTA_CODES or (status in (403, 429) and _QUOTA.search(text)):
        return Reject(message, failure="quota_exhausted")
    if codes & _CONTEXT_CODES or (status in (400, 413, 422, 429, 500) and _CONTEXT.search(text)):
        return Reject(message, failure="context_length")
    if codes & _FILTER_CODES or (status in (400, 403) and _FILTERED.search(text)):
        return Reject(message, failure="content_filter")
    if status == 429 or (codes & _LIMIT_CODES and status >= 500):
        return RetryLater(message, after=after, failure="rate_limited")
    if status in (498, 529) or (status >= 500 and (codes & _BUSY_CODES or _BUSY.search(text))):
        return RetryLater(message, after=after, failure="overloaded")
    if status == 503:
        if after is not None:
            return RetryLater(message, after=after, failure="overloaded")
        return Unavailable(message, failure="overloaded")
    if codes & _MODEL_CODES or (status in (400, 404, 422) and _MODEL.search(text)):
        return Reject(message, failure="model_not_found")
    return _by_status(status, message)


def _by_status(status: int, message: str) -> ExecutorError:
    if status == 408:
        return Unavailable(message, failure="timeout")
    if status in (409, 425, 499) or (status >= 500 and status not in (501, 505)):
        return Unavailable(message, failure="server_error")
    refused: dict[int, FailureCode] = {403: "permission", 404: "not_found", 405: "not_found", 410: "not_found"}
    return Reject(message, failure=refused.get(status, "bad_request"))


def _complaint(value: Any) -> Complaint:
    """Digs the words out of the shapes that are about: `{"error": …}`, a bare object, a list of either, a text."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if not isinstance(value, dict):
        return Complaint(value if isinstance(value, str) else str(value))
    outer = value
    error = outer.get("error")
    if isinstance(error, str) and error:
        return Complaint(error, _codes(outer))
    inner = error if isinstance(error, dict) else outer
    message = next((inner[key] for key in ("message", "detail", "msg", "error") if inner.get(key)), "")
    if isinstance(message, list):
        message = "; ".join(str(part.get("msg", part)) if isinstance(part, dict) else str(part) for part in message)
    status = next((n for key in ("code", "status") if _is_status(n := inner.get(key))), None)
    text = str(message)
    return Complaint(text, _codes(inner), status, _wait_in(inner, text))


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _codes(error: Mapping[str, Any]) -> frozenset[str]:
    inner = error.get("innererror") or error.get("inner_error")
    nested = _codes(inner) if isinstance(inner, dict) else frozenset()
    return nested | {v.lower() for key in ("code", "type", "status") if isinstance(v := error.get(key), str)}


def _wait_in(error: Mapping[str, Any], message: str) -> float | None:
    """Hints that only stand in the body: Gemini's `retryDelay`, OpenAI's "Please try again in 1.2s"."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(delay := detail.get("retryDelay"), str):
            return _go(delay)
    found = _TRY_AGAIN.search(message.lower())
    return _go(found[1].replace(" ", "").replace("sec", "s")) if found else None


def _exhausted(headers: Mapping[str, str], *, now: float) -> float | None:
    resets: list[float] = []
    used_up: list[float] = []
    for what in ("requests", "tokens"):
        reset = _span(headers.get(f"x-ratelimit-reset-{what}"), now=now)
        if reset is not None:
            resets.append(reset)
            if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
                used_up.append(reset)
    return max(used_up) if used_up else min(resets, default=None)


def _span(value: str | None, *, now: float) -> float | None:
    """Seconds from a number of them, a Go-style duration, a Unix time (seconds or milliseconds) or a date."""
    if not value or not (value := value.strip()):
        return None
    number = _scaled(value, 1.0, limit=math.inf)
    if number is not None:
        if number > 1e11:
            number = number / 1000 - now
        elif number > 1e9:
            number -= now
        return _bounded(number)
    if (duration := _go(value)) is not None:
        return duration
    return _until(value, now=now)


def _until(value: str, *, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        try:
            date = datetime.fromisoformat(value)
        except ValueError:
            return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return _bounded(date.timestamp() - now)


def _go(value: str) -> float | None:
    try:
        return _bounded(seconds(value))
    except ValueError:
        return None


def _scaled(value: str | None, factor: float, *, limit: float = MAX_WAIT) -> float | None:
    try:
        number = float(value) if value else math.nan
    except ValueError:
        return None
    # A negative or infinite hint is no hint (Azure has sent -1).
    return min(number * factor, limit) if math.isfinite(number) and number >= 0 else None


def _bounded(value: float) -> float:
    return min(max(value, 0.0), MAX_WAIT)
