"""What is counted, from events alone: every attempt by its end, every label bounded."""

from __future__ import annotations

import pytest

from inferq.events import TaskCancelled, TaskCompleted, TaskFailed, TaskReleased, TaskRescued, TaskRetrying, TaskStarted, TaskSubmitted
from inferq.metrics import MOST_NAMES, MOST_SERIES, OTHER, Counter, Histogram, Metrics
from inferq.task import lane_of

LANE = lane_of("ollama", "m")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def completed(**told: object) -> TaskCompleted:
    return TaskCompleted(lane=LANE, backend="gpu", waited_ms=500, ran_ms=2000, **told)  # type: ignore[arg-type]


def test_every_attempt_is_counted_once_by_its_end(metrics: Metrics) -> None:
    for event in (
        TaskStarted(lane=LANE),
        TaskRetrying(lane=LANE, backend="gpu", code="timeout"),
        TaskReleased(lane=LANE, backend="gpu", code="rate_limited"),
        TaskRescued(lane=LANE, backend="gpu"),
        TaskFailed(lane=LANE, backend="gpu", code="auth"),
        TaskFailed(lane=LANE, backend="gpu", code="lost"),
        TaskFailed(lane=LANE, code="expired"),
        TaskCancelled(lane=LANE, backend="gpu"),
        TaskCancelled(lane=LANE),
        completed(),
    ):
        metrics.hear(event)
    assert metrics.attempts.values == {
        ("gpu", "m", "retry", "timeout"): 1,
        ("gpu", "m", "released", "rate_limited"): 1,
        ("gpu", "m", "lost", "lost"): 2,
        ("gpu", "m", "failed", "auth"): 1,
        ("gpu", "m", "cancelled", ""): 1,
        ("gpu", "m", "completed", ""): 1,
    }
    assert metrics.started.values == {("ollama", "m"): 1}
    assert metrics.rescued.values == {(): 1}
    assert metrics.finished.values[("ollama", "", "m", "failed")] == 1, "what waited has no backend"


def test_a_streamed_answer_tells_its_first_token_and_its_rate(metrics: Metrics) -> None:
    metrics.hear(completed(first_ms=500, input_tokens=10, output_tokens=31, cached_tokens=4, reasoning_tokens=2, estimate=82))
    metrics.hear(completed())
    assert (metrics.first.times["gpu", "m"].count, metrics.first.times["gpu", "m"].sum) == (1, 0.5)
    assert metrics.rate.times["gpu", "m"].sum == 20.0
    counted = {"input": 10, "output": 31, "cached": 4, "reasoning": 2}
    assert metrics.tokens.values == {("gpu", "m", direction): count for direction, count in counted.items()}
    assert metrics.misjudged.times["m", "over"].sum == 1.0
    assert metrics.total.times["gpu", "m", "5"].sum == 5.0


@pytest.mark.parametrize("told", [{"first_ms": 2000, "output_tokens": 9}, {"first_ms": 100, "output_tokens": 1}, {"first_ms": 100}])
def test_no_rate_is_made_up_where_there_is_none(metrics: Metrics, told: dict[str, int]) -> None:
    metrics.hear(completed(**told))
    assert metrics.rate.times == {}


def test_where_tasks_come_from_is_told(metrics: Metrics) -> None:
    for event in (
        TaskSubmitted(lane=LANE),
        TaskSubmitted(lane=LANE, batch_id="b"),
        TaskSubmitted(lane=LANE, schedule="nightly"),
        TaskSubmitted(lane=lane_of("webhook", "ops")),
    ):
        metrics.hear(event)
    assert {labels[-1] for labels in metrics.submitted.values} == {"submit", "batch", "schedule", "webhook"}


def test_models_and_combinations_are_capped(metrics: Metrics) -> None:
    for number in range(MOST_NAMES + 50):
        metrics.hear(TaskSubmitted(lane=lane_of("ollama", f"m{number}")))
    for number in range(MOST_NAMES + 50):
        metrics.hear(completed(priority=number))
    assert len(metrics.submitted.values) == MOST_NAMES + 1
    assert metrics.submitted.values["ollama", OTHER, "submit"] == 50
    assert len(metrics.waited.times) < 30
    counter, histogram = Counter("c", "", "a", "b"), Histogram("h", "", "a", "b")
    for number in range(2 * MOST_SERIES):
        counter.add(str(number), "x")
        histogram.add(1.0, str(number), "x")
    assert len(counter.values) == len(histogram.times) == MOST_SERIES + 1
    assert counter.values[OTHER, OTHER] == histogram.times[OTHER, OTHER].count == MOST_SERIES


def test_what_has_no_labels_is_there_from_the_start(metrics: Metrics) -> None:
    assert [counter.values for counter in metrics.counters() if not counter.labels] == [{(): 0.0}] * 7
