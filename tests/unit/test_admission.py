"""Many submissions admitted in a row come out as each would alone, whatever came before it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq import Executor, InvalidTask, Submission
from inferq.errors import Forbidden
from inferq.intake import Admission, admit
from inferq.testing import EchoExecutor

ECHO = EchoExecutor("echo")
LIMIT = 400


def executor_of(executor: str, backend: str | None) -> Executor:
    if executor != "echo":
        raise InvalidTask(f"expected echo, got {executor!r}", field="executor")
    return ECHO


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.none() | st.booleans() | numbers | st.text(max_size=5) | st.just("x" * LIMIT)
payloads = st.dictionaries(st.sampled_from(["text", "n", "fail", "\x00"]), values, max_size=3) | st.none() | st.just([1])
rows = st.fixed_dictionaries(
    {"executor": st.sampled_from(["echo", "echo", "echo", "other"]), "action": st.sampled_from(["echo", "echo", "chat", "sing"])},
    optional={
        "payload": payloads,
        "priority": st.sampled_from([1, "high", "soon"]),
        "model": st.sampled_from(["m", "\ud800"]),
        "tags": st.sampled_from([["a"], "a"]),
        "scheduled_at": st.sampled_from([5, -1]),
        "batch": st.just("b"),
        "colour": st.just("red"),
    },
)


def outcome(make: Any, row: dict[str, Any]) -> Any:
    try:
        made = make(deepcopy(row))
    except InvalidTask as error:
        # Of several faults either may be named first.
        return f"refused with {error.code}"
    return msgspec.structs.replace(made, id="")


@given(st.lists(rows, max_size=6))
def test_each_is_admitted_or_refused_as_it_would_be_alone(given_rows: list[dict[str, Any]]) -> None:
    admission = Admission(executor_of, max_bytes=LIMIT)
    for row in given_rows:
        assert outcome(admission.admit, row) == outcome(lambda one: admit(one, executor_of, max_bytes=LIMIT), row)


def test_whoever_allows_sees_each_one_and_may_change_or_refuse_it() -> None:
    seen: list[Submission] = []

    def allow(submission: Submission) -> Submission:
        seen.append(submission)
        if submission.payload.get("n") == 3:
            raise Forbidden("not this one")
        return msgspec.structs.replace(submission, tenant="t")

    admission = Admission(executor_of, max_bytes=LIMIT, allow=allow)
    made = [admission.admit({"executor": "echo", "action": "echo", "payload": {"n": n}}) for n in range(3)]
    assert [task.flow.tenant for task in made] == ["t"] * 3
    with pytest.raises(Forbidden):
        admission.admit({"executor": "echo", "action": "echo", "payload": {"n": 3}})
    assert [submission.payload["n"] for submission in seen] == [0, 1, 2, 3]
