"""How many tokens a task may cost: never less for more text, images counted as images, size classes exact at their borders."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.estimate import (
    DEFAULT_OUTPUT_TOKENS,
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    estimate,
    input_tokens,
    output_tokens,
    size_class,
    text_tokens,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.text(), st.text())
def test_more_text_never_costs_less(text: str, more: str) -> None:
    assert text_tokens(text) <= text_tokens(text + more)
    assert input_tokens({"prompt": text}) <= input_tokens({"prompt": text + more})
    short, long = ({"messages": [{"role": "user", "content": content}]} for content in (text, text + more))
    assert input_tokens(short) <= input_tokens(long)


@given(st.text(st.characters()))
def test_tokens_are_bytes_over_3_4_rounded_up_lone_surrogates_included(text: str) -> None:
    exact = len(text.encode("utf-8", "surrogatepass")) / 3.4
    assert exact - 1e-6 <= text_tokens(text) <= math.floor(exact) + 1


def test_only_the_empty_text_is_free() -> None:
    assert text_tokens("") == 0
    assert text_tokens("a") == 1
    assert text_tokens("\u00e9" * 33) == 20


def test_each_message_has_a_frame() -> None:
    empty = {"role": "user", "content": ""}
    assert input_tokens({"messages": [empty] * 5}) == 5 * TOKENS_PER_MESSAGE


def test_an_image_costs_what_an_image_costs_and_not_its_base64() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    with_image = input_tokens({"messages": [{"role": "user", "content": parts}]})
    without = input_tokens({"messages": [{"role": "user", "content": parts[:1]}]})
    assert with_image - without == TOKENS_PER_IMAGE


def test_images_beside_the_text_are_counted_in_messages_and_prompts() -> None:
    image = "A" * 100_000
    message = {"role": "user", "content": "hi"}
    assert input_tokens({"messages": [message | {"images": [image] * 2}]}) == input_tokens({"messages": [message]}) + 2 * TOKENS_PER_IMAGE
    assert input_tokens({"prompt": "hi", "images": [image]}) == text_tokens("hi") + TOKENS_PER_IMAGE


def test_prompts_inputs_and_tools_count() -> None:
    assert input_tokens({"system": "abc", "prompt": "abcdef"}) == text_tokens("abc") + text_tokens("abcdef")
    assert input_tokens({"input": ["abcd", "abcd"]}) == 2 * text_tokens("abcd")
    assert input_tokens({"prompt": "x", "tools": [{"type": "function", "function": {"name": "f"}}]}) > input_tokens({"prompt": "x"})


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "images", "input", "tools", "x"]), anything))
def test_no_payload_however_odd_breaks_the_estimate(payload: dict[str, Any]) -> None:
    assert estimate("chat", payload, {}) >= 0


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "num_predict", "max_output_tokens"])
def test_a_tasks_own_bound_is_its_output_wherever_it_stands(name: str) -> None:
    assert output_tokens("chat", {name: 7}, {}) == 7
    assert output_tokens("chat", {}, {name: 7}) == 7
    assert output_tokens("chat", {name: 7}, {name: 9}) == 7


@pytest.mark.parametrize("bound", [None, 0, -1, True, "7", 7.5])
def test_what_is_no_bound_is_ignored(bound: object) -> None:
    assert output_tokens("chat", {"max_tokens": bound}, {}) == DEFAULT_OUTPUT_TOKENS


@pytest.mark.parametrize("action", ["embed", "execute", "request"])
def test_what_generates_nothing_has_no_output(action: str) -> None:
    assert output_tokens(action, {"max_tokens": 7}, {}) == 0


def test_an_estimate_is_input_and_output() -> None:
    payload = {"prompt": "a" * 33, "max_tokens": 5}
    assert estimate("generate", payload, {}) == 10 + 5


@pytest.mark.parametrize(
    ("tokens", "size"),
    [(0, "low"), (14_999, "low"), (15_000, "medium"), (74_999, "medium"), (75_000, "long"), (10**9, "long")],
)
def test_size_classes_change_exactly_at_their_borders(tokens: int, size: str) -> None:
    assert size_class(tokens) == size
