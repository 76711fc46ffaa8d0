"""Messages and inputs that are refused before they travel, with the place of the fault."""

from __future__ import annotations

from typing import Any

import pytest

from inferq.errors import InvalidTask
from inferq.wire import checks, ollama

WRONG_MESSAGES: list[tuple[Any, str]] = [
    (None, "payload.messages"),
    ([], "payload.messages"),
    ("hi", "payload.messages"),
    ({"role": "user"}, "payload.messages"),
    (["hi"], "payload.messages[0]"),
    ([{"content": "x"}], "payload.messages[0].role"),
    ([{"role": "user", "content": "x"}, {"role": "bot", "content": "x"}], "payload.messages[1].role"),
    ([{"role": "user"}], "payload.messages[0].content"),
    ([{"role": "user", "content": 5}], "payload.messages[0].content"),
    ([{"role": ["user"], "content": "x"}], "payload.messages[0].role"),
    ([{"role": "user", "content": "x", "images": "aGk="}], "payload.messages[0].images"),
    ([{"role": "user", "content": "x", "images": ["aGk=", "%"]}], "payload.messages[0].images[1]"),
]


@pytest.mark.parametrize(("messages", "field"), WRONG_MESSAGES)
def test_wrong_messages_are_refused_with_the_place_of_the_fault(messages: Any, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        checks.check_messages({"messages": messages}, roles=ollama.ROLES, images=True)
    assert caught.value.field == field
    assert "expected" in str(caught.value)


def test_messages_that_say_something_without_text_are_accepted() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "", "tool_name": "f"},
    ]
    payload = {"messages": messages}
    checks.check_messages(payload, roles=ollama.ROLES, images=True)
    assert payload == {"messages": messages}


@pytest.mark.parametrize(
    ("value", "tokens", "field"),
    [
        (None, True, "payload.input"),
        (5, True, "payload.input"),
        ([], True, "payload.input"),
        ([None], True, "payload.input[0]"),
        (["a", 5], True, "payload.input[1]"),
        ([5, True], True, "payload.input[1]"),
        ([[]], True, "payload.input[0]"),
        ([1, 2], False, "payload.input[0]"),
    ],
)
def test_a_wrong_input_is_refused_with_the_place_of_the_fault(value: Any, tokens: bool, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        checks.check_input({"input": value}, "input", tokens=tokens)
    assert caught.value.field == field
