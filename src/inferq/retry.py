"""What follows a failed attempt: wait, again, or fail now. Pure; randomness is an argument."""

from __future__ import annotations

import math
import random
from typing import Final

import msgspec

from inferq.errors import ExecutorError, Reject, RetryLater, Unavailable
from inferq.task import Outcome

_DAY: Final = 86_400.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """Seconds, except the counts. `max_retries` 0 means that a task's first failure is its last."""

    max_retries: int = 3
    initial_delay: float = 1.0
    max_delay: float = 30.0
    backoff_factor: float = 2.0


def backoff(tries: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to wait before the next try after `tries` failures (1 for the first): exponential with full jitter.

    uniform(0, min(max_delay, initial_delay * factor ** (tries - 1))), as in Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
    """
    try:
        bound = min(policy.max_delay, policy.initial_delay * policy.backoff_factor ** max(0, tries - 1))
    except OverflowError:
        bound = policy.max_delay
    return rng.uniform(0.0, bound)


def patience(tries: int, after: float | None, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to leave a backend alone that asked for it: its own hint, a day at most, is a floor with up to 10 % added, so that not all
    come back at once. Without a hint, or with one that says nothing (0, negative, no number), exponential between half the bound and
    the bound: never nothing, for it just said that it is full."""
    if isinstance(after, int | float) and math.isfinite(after) and after > 0:
        after = min(float(after), _DAY)
        return after + rng.uniform(0.0, 0.1 * after)
    bound = min(policy.max_delay, policy.initial_delay * policy.backoff_factor ** min(max(0, tries - 1), 64))
    return bound / 2 + rng.uniform(0.0, bound / 2)


def decide(
    error: ExecutorError,
    *,
    attempt: int,
    failures: int,
    max_retries: int | None,
    at_most_once: bool,
    now: int,
    policy: RetryPolicy,
    rng: random.Random,
    backend: str | None = None,
) -> Outcome:
    """The outcome of an attempt that raised `error`; `now` and the outcome's `at` are wall milliseconds.

    *wait* (RetryLater): released until the hint, no retry burnt. *again* (Unavailable): retried while `failures` stays under
    `max_retries`. *now fail* (Reject). *ambiguous* (Unavailable after the request was sent): as *again*, but an `at_most_once` task
    fails as `lost`.
    """
    text = str(error)
    match error:
        case RetryLater():
            delay = round(patience(attempt, error.after, policy, rng) * 1000)
            return Outcome.released(at=now + delay, delay=delay, code=error.failure, error=text, backend=backend)
        case Unavailable() if at_most_once and error.sent:
            return Outcome.failed("lost", f"{text} (sent, then lost; at_most_once forbids another attempt)", backend=backend)
        case Unavailable():
            allowed = policy.max_retries if max_retries is None else max_retries
            if failures >= allowed:
                return Outcome.failed(error.failure, text, backend=backend)
            delay = round(backoff(failures + 1, policy, rng) * 1000)
            return Outcome.retry(now + delay, delay=delay, code=error.failure, error=text, backend=backend)
        case Reject():
            return Outcome.failed(error.failure, text, backend=backend)
        case _:
            return Outcome.failed("internal", text, backend=backend)
