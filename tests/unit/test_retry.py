"""What follows a failed attempt: bounds and randomness of the waits, and the decision for each class of error."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import ExecutorError, Reject, RetryLater, Unavailable
from inferq.retry import RetryPolicy, backoff, decide, patience
from inferq.task import Outcome

NOW = 1_800_000_000_000
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 10),
    initial_delay=st.floats(0, 100),
    max_delay=st.floats(0, 1000),
    backoff_factor=st.floats(1, 10),
)
seeds = st.integers(0, 2**32)


def decided(error: ExecutorError, **asked: object) -> Outcome:
    defaults = {"attempt": 1, "failures": 0, "max_retries": None, "at_most_once": False, "now": NOW}
    return decide(error, **(defaults | {"policy": RetryPolicy(), "rng": random.Random(1)} | asked))  # type: ignore[arg-type] # by name


# ── waits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 10_000), policies, seeds)
def test_a_backoff_lies_between_nothing_and_its_bound(tries: int, policy: RetryPolicy, seed: int) -> None:
    wait = backoff(tries, policy, random.Random(seed))
    assert 0 <= wait <= policy.max_delay
    if tries <= 1:
        assert wait <= policy.initial_delay


@given(st.integers(1, 50), policies, seeds)
def test_the_same_seed_gives_the_same_wait(tries: int, policy: RetryPolicy, seed: int) -> None:
    assert backoff(tries, policy, random.Random(seed)) == backoff(tries, policy, random.Random(seed))
    assert patience(tries, None, policy, random.Random(seed)) == patience(tries, None, policy, random.Random(seed))


@given(st.integers(1, 20), seeds)
def test_the_bound_of_a_backoff_doubles_until_its_cap(tries: int, seed: int) -> None:
    policy = RetryPolicy(initial_delay=1.0, backoff_factor=2.0, max_delay=30.0)
    assert backoff(tries, policy, random.Random(seed)) <= min(30.0, 2.0 ** (tries - 1))


def test_full_jitter_fills_the_whole_range() -> None:
    policy = RetryPolicy(initial_delay=8.0, max_delay=8.0)
    rng = random.Random(7)
    waits = [backoff(1, policy, rng) for _ in range(2000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
    assert 3.7 < sum(waits) / len(waits) < 4.3


@given(st.integers(0, 1000), st.floats(0.001, 86_400), policies, seeds)
def test_a_backends_own_hint_is_a_floor_with_a_tenth_on_top(tries: int, after: float, policy: RetryPolicy, seed: int) -> None:
    assert after <= patience(tries, after, policy, random.Random(seed)) <= after * 1.1


@given(st.integers(0, 1000), policies, seeds)
def test_without_a_hint_a_full_backend_is_left_alone_for_half_the_bound_at_least(tries: int, policy: RetryPolicy, seed: int) -> None:
    bound = min(policy.max_delay, policy.initial_delay * policy.backoff_factor ** min(max(0, tries - 1), 64))
    assert bound / 2 <= patience(tries, None, policy, random.Random(seed)) <= bound


@pytest.mark.parametrize("hint", [-5.0, 0.0, float("nan"), float("inf")])
def test_a_hint_that_says_nothing_counts_as_none(hint: float) -> None:
    assert patience(1, hint, RetryPolicy(), random.Random(1)) == patience(1, None, RetryPolicy(), random.Random(1)) > 0


def test_a_hint_of_more_than_a_day_is_a_day() -> None:
    assert 86_400 <= patience(1, 1e9, RetryPolicy(), random.Random(1)) <= 1.1 * 86_400


# ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 100), st.integers(0, 100), st.none() | st.floats(0, 1000), seeds, st.booleans())
def test_waiting_for_a_full_backend_burns_no_retry_however_often(
    attempt: int, failures: int, after: float | None, seed: int, once: bool
) -> None:
    error = RetryLater("slow down", after=after)
    outcome = decided(error, attempt=attempt, failures=failures, max_retries=0, at_most_once=once, rng=random.Random(seed))
    assert (outcome.kind, outcome.code, outcome.error) == ("released", "rate_limited", "slow down")
    assert outcome.at is not None
    assert outcome.at >= NOW + (round(after * 1000) if after is not None else 0)


@given(st.integers(0, 10), st.integers(0, 12), st.booleans())
def test_an_unavailable_backend_is_tried_again_as_often_as_allowed(allowed: int, failures: int, sent: bool) -> None:
    outcome = decided(Unavailable("refused", sent=sent), failures=failures, max_retries=allowed)
    if failures < allowed:
        assert (outcome.kind, outcome.code) == ("retry", "connect")
        assert outcome.at is not None
        assert NOW <= outcome.at <= NOW + 30_000
    else:
        assert (outcome.kind, outcome.code, outcome.error) == ("failed", "connect", "refused")


def test_a_task_without_its_own_bound_takes_the_policys() -> None:
    policy = RetryPolicy(max_retries=2)
    kinds = [decided(Unavailable("down"), failures=n, policy=policy).kind for n in range(4)]
    assert kinds == ["retry", "retry", "failed", "failed"]


def test_no_retries_means_that_the_first_failure_is_the_last() -> None:
    assert decided(Unavailable("down"), max_retries=0).kind == "failed"


def test_what_was_sent_and_lost_is_not_repeated_for_a_task_that_must_run_at_most_once() -> None:
    outcome = decided(Unavailable("cut", failure="server_error", sent=True), at_most_once=True, max_retries=5)
    assert (outcome.kind, outcome.code) == ("failed", "lost")
    assert "cut" in outcome.error


def test_what_was_never_sent_is_repeated_even_then() -> None:
    assert decided(Unavailable("refused", sent=False), at_most_once=True).kind == "retry"


@pytest.mark.parametrize("failure", ["bad_request", "model_not_found", "context_length", "auth"])
def test_what_cannot_help_fails_now_with_its_own_code(failure: str) -> None:
    outcome = decided(Reject("no", failure=failure), max_retries=9)  # type: ignore[arg-type] # codes from the list above
    assert (outcome.kind, outcome.code, outcome.at) == ("failed", failure, None)


def test_an_error_of_no_class_fails_as_internal() -> None:
    assert decided(ExecutorError("odd", failure="timeout")).code == "internal"


@pytest.mark.parametrize("error", [RetryLater("x"), Unavailable("x"), Reject("x")])
def test_the_outcome_names_the_backend(error: ExecutorError) -> None:
    assert decided(error, backend="gpu-1").backend == "gpu-1"
