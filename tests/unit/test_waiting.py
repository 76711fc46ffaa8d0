"""Why a task waits, from what is known: the first gate, the place, and an estimate that more slots never make later."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.backend import BackendView, BreakerView, GateView, Notice
from inferq.task import FlowKey, State, Submission, Task, lane_of
from inferq.waiting import UNKNOWN_WAIT, Facts, explain, retry_after, serves, span

NOW = 1_800_000_000_000
LANE = lane_of("k", "m")


def task(state: State = State.PENDING, **more: Any) -> Task:
    return Task("t", 9, state, FlowKey(more.pop("lane", LANE), 5, "low", more.pop("tenant", "")), Submission("k", "work", "m"), **more)


def view(name: str = "gpu", **more: Any) -> BackendView:
    return BackendView(**{"name": name, "executor": "k", "slots": 2, "since": NOW - 60_000} | more)


def facts(*views: BackendView, slots: int = 4, **more: Any) -> Facts:
    notices = (Notice(worker="w", slots=slots, backends=views or (view(),)),)
    return Facts(**{"now": NOW, "notices": notices, "running": {"gpu": 2}} | more)


@pytest.mark.parametrize(
    ("known", "gate", "words"),
    [
        (facts(paused=frozenset({"*"})), "paused", "paused: claims are stopped for all lanes"),
        (facts(paused=frozenset({LANE})), "paused", f"paused: claims are stopped for lane {LANE}"),
        (Facts(now=NOW), "no_worker", "start one with `inferq work`"),
        (facts(view(executor="other")), "no_backend", f"no backend here serves lane {LANE}"),
        (facts(view(state="disabled", reason="broken fan")), "disabled", "gpu is disabled: broken fan; `inferq backends enable gpu`"),
        (facts(view(state="draining")), "draining", "gpu is draining"),
        (facts(view(state="down", reason="refused")), "backend_down", "gpu is down since 2027-01-15T07:59:00Z: refused"),
        (facts(view(gates=(GateView(LANE, NOW + 17_000),))), "rate_limited", "gpu asked to wait; it goes on in 17 s"),
        (
            facts(view(breakers=(BreakerView("m", 5, open=True, until=NOW + 8_000, reason="refused"),))),
            "breaker",
            "gpu failed 5 times (refused); it is tried again in 8 s",
        ),
        (facts(tenant_full=3), "tenant_limit", "runs as many tasks as it may (3)"),
        (facts(lanes={LANE: 2}, service={LANE: 10.0}), "behind", "position 3, about 12 s"),
        (facts(service={LANE: 10.0}), "slots", "next in line; all 2 slots are busy (2 running), about 2 s"),
        (facts(running={}), "starting", "a slot is free"),
    ],
)
def test_the_first_gate_that_holds_a_task_is_named(known: Facts, gate: str, words: str) -> None:
    found = explain(task(), known)
    assert found.gate == gate
    assert words in found.reason


def test_of_several_closed_backends_the_one_that_opens_first_speaks_and_the_others_are_named() -> None:
    views = (view(state="disabled"), view(name="b", state="down"), view(name="a", state="draining"))
    assert explain(task(), facts(*views)).reason == "b is down since 2027-01-15T07:59:00Z; closed too: a, gpu"


@pytest.mark.parametrize(
    ("lane", "views", "notice", "words"),
    [
        (LANE, (view("has", state="down", models=("m",)), view("other", models=("x",))), {}, "has is down"),
        (LANE, (view("has", state="down", models=("m",)), view("unknown")), {}, "a slot is free"),
        (LANE, (view("other", models=("x",)),), {}, "a slot is free"),
        (lane_of("k", "m:latest"), (view("has", state="down", models=("m",)), view("other", models=("x",))), {}, "has is down"),
        (lane_of("k", "m", remote=True), (view("far", remote=True, state="down"), view("near")), {}, "a slot is free"),
        (lane_of("k", "m", remote=True), (view("far", remote=True, state="down"), view("near")), {"fallback": False}, "far is down"),
    ],
)
def test_only_backends_that_a_worker_would_choose_among_count(
    lane: str, views: tuple[BackendView, ...], notice: dict[str, Any], words: str
) -> None:
    known = Facts(now=NOW, notices=(Notice(worker="w", slots=4, backends=views, **notice),))
    assert words in explain(task(lane=lane), known).reason


def test_what_does_not_wait_says_so() -> None:
    for state in (State.RUNNING, State.COMPLETED, State.FAILED, State.CANCELLED):
        found = explain(task(state), facts())
        assert (found.gate, found.reason) == (None, f"it does not wait: it is {state}")


def test_a_scheduled_task_says_when_and_after_what() -> None:
    found = explain(task(State.SCHEDULED, due=NOW + 30_000, code="connect", error="refused"), facts())
    assert (found.gate, found.until, found.estimated_start, found.estimate_seconds) == ("scheduled", NOW + 30_000, NOW + 30_000, 30.0)
    assert found.reason.endswith("after connect: refused")


def test_a_task_of_a_paused_batch_is_held() -> None:
    assert explain(task(State.SCHEDULED, due=2**53 - 1), facts()).gate == "held"


def test_the_backend_that_opens_first_speaks_for_all() -> None:
    down, limited = view("a", state="down"), view("b", gates=(GateView(LANE, NOW + 1000),))
    found = explain(task(), facts(down, limited))
    assert (found.gate, found.until, found.backends) == ("rate_limited", NOW + 1000, ("a", "b"))


def test_one_open_backend_is_enough() -> None:
    assert explain(task(), facts(view("a", state="down"), view("gpu"))).gate == "slots"


def test_lanes_that_share_slots_stand_before_it_too_and_paused_or_foreign_ones_do_not() -> None:
    other, foreign, paused = lane_of("k", "n"), lane_of("x", "m"), lane_of("k", "p")
    known = facts(lanes={LANE: 1, other: 4, foreign: 9, paused: 7}, paused=frozenset({paused}))
    found = explain(task(), known)
    assert (found.position, found.ahead) == (2, 5)


def test_nothing_is_estimated_while_nobody_can_know() -> None:
    assert explain(task(), facts(lanes={LANE: 5})).estimate_seconds is None
    assert explain(task(), facts(view(state="down"), service={LANE: 1.0})).estimate_seconds is None


def test_a_bounded_count_is_a_least_position() -> None:
    found = explain(task(), facts(lanes={LANE: 10_000}, more=True))
    assert found.more
    assert "position at least 10001" in found.reason


@given(
    ahead=st.integers(0, 500),
    seconds=st.floats(0.01, 100),
    slots=st.integers(1, 20),
    more=st.integers(1, 20),
)
def test_an_estimate_grows_with_those_before_and_shrinks_with_slots(ahead: int, seconds: float, slots: int, more: int) -> None:
    def estimate(count: int, width: int) -> float:
        known = facts(view(slots=width), slots=width, running={"gpu": width}, lanes={LANE: count}, service={LANE: seconds})
        found = explain(task(), known).estimate_seconds
        assert found is not None
        return found

    assert estimate(ahead + 1, slots) >= estimate(ahead, slots)
    assert estimate(ahead, slots + more) <= estimate(ahead, slots)
    assert abs(estimate(ahead, slots) - (ahead + 0.5) * seconds / slots) < 0.01


def test_a_refused_caller_is_told_when_a_place_should_be_free() -> None:
    assert retry_after(facts(service={LANE: 30.0})) == 15.0
    assert retry_after(facts(service={LANE: 0.01})) == 1.0
    assert retry_after(facts()) == UNKNOWN_WAIT
    assert retry_after(Facts(now=NOW)) == UNKNOWN_WAIT


@pytest.mark.parametrize(
    ("lane", "found"),
    [
        (LANE, True),
        (lane_of("guest", "m"), True),
        (lane_of("k", "other"), False),
        (lane_of("k", "m", "gpu"), True),
        (lane_of("k", "m", "cpu"), False),
        (lane_of("k", "m", remote=True), True),
        (lane_of("k", "m", remote=False), False),
    ],
)
def test_a_view_knows_which_lanes_it_serves(lane: str, found: bool) -> None:
    assert serves(view(remote=True, serves=("guest",), models=("m",), listed=True), lane) is found


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (20, "20 s"), (200, "3 min"), (7300, "2 h")])
def test_durations_are_said_shortly(seconds: float, words: str) -> None:
    assert span(seconds) == words
