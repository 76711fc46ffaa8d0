"""What is accepted comes back exactly as it was given; JSON from people is read in one way or refused."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq import InvalidTask, Queue, Settings, Submission
from inferq.config import StoreSettings
from inferq.intake import MAX_DEPTH, check_json, submission_from
from inferq.strict import strict_json
from inferq.task import new_id, priority_number
from inferq.testing import EchoExecutor

LIMIT = 100_000


def _settings() -> Settings:
    return Settings(store=StoreSettings(max_payload_bytes=LIMIT))


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inside: st.lists(inside, max_size=5) | st.dictionaries(texts, inside, max_size=5), max_leaves=40)


@pytest.fixture(scope="module")
def keeper() -> Iterator[Queue]:
    with Queue("sqlite://:memory:", backends=[EchoExecutor("echo")], settings=_settings(), work=False) as queue:
        yield queue


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@given(payload=st.dictionaries(texts, values, max_size=5), options=st.dictionaries(texts, values, max_size=2))
@settings(deadline=None, max_examples=150)
def test_any_json_comes_back_exactly_as_it_was_given(keeper: Queue, payload: dict[str, Any], options: dict[str, Any]) -> None:
    spec = keeper.submit("echo", "echo", payload={"kept": payload}, options=options, metadata=payload).refresh().spec
    assert same(spec.payload, {"kept": payload})
    assert same(spec.options, options)
    assert same(spec.metadata, payload)


@given(
    priority=st.integers(-(2**63), 2**63 - 1),
    model=texts,
    tenant=texts,
    tags=st.lists(texts, max_size=3),
    key=st.none() | texts.filter(bool).map(lambda text: text + new_id()),
    timeout=st.none() | st.floats(0.001, 1e6),
    max_retries=st.none() | st.integers(0, 2**31),
    at_most_once=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_every_field_comes_back_as_it_was_given(keeper: Queue, **fields: Any) -> None:
    task = keeper.submit("echo", "echo", **fields).refresh()
    assert {name: getattr(task.spec, name) for name in fields} == fields
    assert (task.priority, task.flow.tenant) == (fields["priority"], fields["tenant"])


@given(
    st.recursive(
        scalars | st.just(math.nan) | st.binary(max_size=3) | st.text(max_size=5),
        lambda i: st.lists(i) | st.dictionaries(st.text(max_size=3), i),
    )
)
@settings(deadline=None)
def test_whatever_is_accepted_survives_json_and_whatever_is_not_is_an_invalid_task(value: Any) -> None:
    try:
        check_json(value, "payload")
    except InvalidTask as error:
        refused = error.field
    else:
        refused = None
        assert same(json.loads(json.dumps(value)), value)
    assert refused is None or refused.startswith("payload")


def test_nesting_is_allowed_up_to_its_limit(keeper: Queue) -> None:
    payload = {"a": nested(MAX_DEPTH - 2)}
    assert keeper.submit("echo", "echo", payload=payload).refresh().spec.payload == payload


def test_mappings_of_other_kinds_are_refused_or_kept_as_objects(keeper: Queue) -> None:
    assert keeper.submit("echo", "echo", payload=OrderedDict(a=1)).refresh().spec.payload == {"a": 1}
    with pytest.raises(InvalidTask, match=r"payload\.a: .*OrderedDict"):
        keeper.submit("echo", "echo", payload={"a": OrderedDict(b=1)})


@pytest.mark.parametrize(
    ("given_", "seconds"), [("10m", 600), ("1h30m", 5400), ("250ms", 0.25), (90, 90), (1.5, 1.5), (timedelta(hours=1), 3600), ("1.5", 1.5)]
)
def test_durations_are_numbers_texts_or_timedeltas(keeper: Queue, given_: Any, seconds: float) -> None:
    assert keeper.submit("echo", "echo", timeout=given_).refresh().spec.timeout == seconds


def test_an_instant_of_any_zone_is_kept_as_unix_milliseconds(keeper: Queue) -> None:
    moment = datetime(2040, 5, 1, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    task = keeper.submit("echo", "echo", at=moment, deadline=moment).refresh()
    assert task.due == task.spec.scheduled_at == task.spec.deadline == round(moment.timestamp() * 1000)


# ── priorities, and JSON from people ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "number"), [("low", 1), ("normal", 5), ("high", 10), ("critical", 15), (" High ", 10), ("42", 42), ("-7", -7)]
)
def test_a_priority_is_a_name_or_any_integer(name: str, number: int) -> None:
    assert priority_number(name) == priority_number(number) == number


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"a": 1, "a": 2}', id="a key twice"),
        pytest.param('{"x": [{"a": 1, "b": 2, "a": 1}]}', id="a key twice, inside"),
        pytest.param('{"a": NaN}', id="NaN"),
        pytest.param('{"a": -Infinity}', id="infinity"),
        pytest.param('{"a": 1e999}', id="a number that overflows"),
        pytest.param('{"a": 1} {"b": 2}', id="text after the end"),
        pytest.param('{"a": 1,}', id="a trailing comma"),
        pytest.param("{'a': 1}", id="single quotes"),
        pytest.param("", id="nothing"),
        pytest.param(b"\xff\xfe\xfa", id="bytes that are no text"),
        pytest.param("[" * 200_000, id="deep nesting"),
        pytest.param("9" * 10_000, id="a number of ten thousand digits"),
    ],
)
def test_json_that_could_be_read_in_two_ways_or_none_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidTask) as caught:
        strict_json(text)
    assert "expected" in str(caught.value)


def test_a_repeated_key_is_named(keeper: Queue) -> None:
    with pytest.raises(InvalidTask) as caught:
        strict_json('{"payload": {"temperature": 1, "temperature": 2}}')
    assert caught.value.field == "temperature"


@given(values)
def test_json_that_is_sound_is_read_as_it_is(value: Any) -> None:
    assert same(strict_json(json.dumps(value)), value)


def test_a_submission_passes_through_as_it_is() -> None:
    mine = Submission("echo", "echo")
    assert submission_from(mine) is mine
