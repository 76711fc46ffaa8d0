"""A breaker opens after failures in a row, lets one probe through, and is never moved by what is the task's own fault."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from inferq.breaker import COUNTED, Breaker, BreakerPolicy

POLICY = BreakerPolicy(failures=3, initial_delay=2.0, max_delay=16.0)


def fail(breaker: Breaker, now: float, *, task: str = "", code: str = "connect", seed: int = 1) -> bool:
    return breaker.failed(code, now, random.Random(seed), task=task, reason="refused")


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for n in range(3):
        fail(breaker, now, task=str(n))
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(POLICY)
    assert [fail(breaker, 10, task=str(n)) for n in range(3)] == [False, False, True]
    assert breaker.gate(10) == "shut"
    assert breaker.until is not None
    assert 11 <= breaker.until <= 12


def test_when_its_time_has_come_one_probe_may_pass() -> None:
    breaker = opened()
    assert breaker.until is not None
    assert breaker.gate(breaker.until) == "probe"
    breaker.probe()
    assert breaker.gate(breaker.until + 100) == "shut"


def test_a_failed_probe_keeps_it_open_for_twice_as_long_up_to_the_bound() -> None:
    breaker, now, spans = opened(), 0.0, []
    for _ in range(6):
        assert breaker.until is not None
        spans.append(breaker.until - now)
        now = breaker.until
        breaker.probe()
        assert fail(breaker, now, task="same")
    bounds = [2, 4, 8, 16, 16, 16]
    assert all(bound / 2 <= span <= bound for bound, span in zip(bounds, spans, strict=True))


def test_a_probe_without_a_verdict_lets_the_next_task_try() -> None:
    breaker = opened()
    breaker.probe()
    breaker.withdraw()
    assert breaker.until is not None
    assert breaker.gate(breaker.until) == "probe"


def test_a_task_that_kills_its_server_again_and_again_counts_once() -> None:
    breaker = Breaker(POLICY)
    assert not any(fail(breaker, 0, task="poison", code="server_error") for _ in range(10))
    assert breaker.gate(0) == "open"


def test_an_unreachable_server_counts_each_time() -> None:
    breaker = Breaker(POLICY)
    assert [fail(breaker, 0, task="same") for _ in range(3)][-1]


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    breaker = opened()
    until = breaker.until
    assert not fail(breaker, 1, task="late")
    assert breaker.until == until


def test_permanent_errors_are_not_counted() -> None:
    assert COUNTED.isdisjoint({"bad_request", "context_length", "auth", "model_not_found", "content_filter", "rate_limited"})


@given(st.lists(st.tuples(st.sampled_from(["fail", "probe", "withdraw"]), st.floats(0, 100)), max_size=40), st.integers())
def test_never_more_than_one_probe_is_out(steps: list[tuple[str, float]], seed: int) -> None:
    breaker, now, out = opened(), 0.0, 0
    rng = random.Random(seed)
    for step, wait in steps:
        now += wait
        if step == "probe" and breaker.gate(now) == "probe":
            breaker.probe()
            out += 1
        elif step == "fail" and out:
            breaker.failed("connect", now, rng, task="t", reason="")
            out -= 1
        elif step == "withdraw" and out:
            breaker.withdraw()
            out -= 1
        assert out <= 1
        assert breaker.gate(now) != "open"
