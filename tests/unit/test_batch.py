"""Batch files of every shape are read piece by piece: each line becomes a task or an error that says where and why."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.batch import BadForm, Form, Line, LineError, Reader


def read(data: bytes | str, form: Form | None = None, *, piece: int = 1 << 16, **bounds: int) -> list[Line | LineError]:
    data = data.encode() if isinstance(data, str) else data
    reader = Reader(form, **bounds)
    found = [line for start in range(0, len(data), piece) for line in reader.feed(data[start : start + piece])]
    return found + reader.end()


def only(found: list[Line | LineError]) -> Line:
    (line,) = found
    assert isinstance(line, Line), line
    return line


def errors(found: Iterable[Line | LineError]) -> list[LineError]:
    return [line for line in found if isinstance(line, LineError)]


def fields(found: Iterable[Line | LineError]) -> list[dict[str, Any]]:
    return [line.fields for line in found if isinstance(line, Line)]


OURS = {"executor": "echo", "action": "echo", "payload": {"text": 'hi, [you] {there} "x\\'}}

# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_of_ours_keeps_its_fields_and_its_key() -> None:
    line = only(read(json.dumps({**OURS, "key": "k1", "priority": "high"})))
    assert (line.number, line.key) == (1, "k1")
    assert line.fields == {**OURS, "priority": "high", "stream": False}


def test_the_forerunners_entries_become_tasks_of_the_three_kinds() -> None:
    entries = [
        {"type": "chat", "model": "qwen3", "priority": "high", "system": "Be brief", "messages": [{"role": "user", "content": "hi"}]},
        {"type": "generate", "model": "qwen3", "priority": 10, "prompt": "Once", "stream": True, "messages": None, "input": ""},
        {"type": "embed", "model": "nomic", "input": ["a", "b"], "scheduled_at": "2027-01-31T10:00:00+01:00"},
    ]
    chat, generate, embed = fields(read(json.dumps(entries)))
    assert chat["payload"] == {"system": "Be brief", "messages": [{"role": "user", "content": "hi"}]}
    assert (chat["executor"], chat["action"], chat["model"], chat["priority"]) == ("ollama", "chat", "qwen3", "high")
    assert (generate["payload"], generate["stream"]) == ({"prompt": "Once"}, True)
    assert embed["scheduled_at"] == datetime(2027, 1, 31, 9, tzinfo=UTC).timestamp() * 1000


@pytest.mark.parametrize(("url", "body", "action"), [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "chat"),
    ("/v1/completions", {"prompt": "Once"}, "generate"),
    ("/v1/embeddings", {"input": "a"}, "embed"),
])  # fmt: skip
def test_an_openai_batch_line_becomes_a_task_with_its_custom_id_as_key(url: str, body: dict[str, Any], action: str) -> None:
    row = {"custom_id": "r-1", "method": "POST", "url": url, "body": {"model": "m", "max_tokens": 5, "stream": False, **body}}
    line = only(read(json.dumps(row)))
    assert line.key == "r-1"
    assert line.fields == {"executor": "openai", "action": action, "model": "m", "payload": {"max_tokens": 5, **body}, "stream": False}
    local = only(read(json.dumps(row), Form(executor="ollama")))
    assert (local.fields["options"], local.fields["payload"]) == ({"num_predict": 5}, body)


def test_any_object_becomes_a_task_by_a_template() -> None:
    form = Form(prompt="{question}\nFor {who.name}, {n} times {{so}}.", system="You are {who.role}", model="qwen3", key="id")
    row = {"id": 7, "question": "Why?", "who": {"name": "Ann", "role": "a cook"}, "n": [1, 2], "type": "chat"}
    line = only(read(json.dumps(row), form))
    assert line.key == "7"
    assert line.fields["model"] == "qwen3"
    assert line.fields["payload"]["messages"] == [
        {"role": "system", "content": "You are a cook"},
        {"role": "user", "content": "Why?\nFor Ann, [1,2] times {so}."},
    ]
    assert only(read(json.dumps(row), Form(prompt="{question}", action="embed"))).fields["payload"] == {"input": "Why?"}
    assert only(read(json.dumps(row), Form(prompt="{question}", key="{who.name}-{id}"))).key == "Ann-7"


def test_a_form_fills_in_what_lines_leave_out_and_overrides_what_it_must() -> None:
    form = Form(model="m", fields={"priority": 1}, always={"tenant": "t"})
    rows = [{**OURS, "tenant": "other"}, {**OURS, "model": "own", "priority": 9}]
    first, second = fields(read("\n".join(map(json.dumps, rows)), form))
    assert (first["model"], first["priority"], first["tenant"]) == ("m", 1, "t")
    assert (second["model"], second["priority"], second["tenant"]) == ("own", 9, "t")


@pytest.mark.parametrize("broken", ["{", "{}", "{a!r}", "{a:>3}", "a}", '{"json": 1}'])
def test_a_template_that_can_never_work_is_refused_before_any_line(broken: str) -> None:
    with pytest.raises(BadForm, match="prompt: expected a template"):
        Reader(Form(prompt=broken))


# ── errors of lines ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("row", "field", "reason"), [
    ({"type": "chat", "model": "m"}, "messages", "expected this field for type chat"),
    ({"type": "generate", "model": "m", "prompt": ""}, "prompt", "expected this field"),
    ({"type": "embed", "model": "m"}, "input", "expected this field"),
    ({"type": "sing", "model": "m"}, "type", "expected chat, generate or embed, got 'sing'"),
    ({"type": "embed", "input": "a", "colour": "red"}, "colour", "expected a field of a embed entry"),
    ({"custom_id": "", "url": "/v1/embeddings", "body": {}}, "custom_id", "expected a text"),
    ({"custom_id": "a", "url": "/v1/images", "body": {}}, "url", "expected one of /v1/chat/completions"),
    ({"custom_id": "a", "url": "/v1/embeddings", "method": "GET", "body": {}}, "method", "expected POST"),
    ({"custom_id": "a", "url": "/v1/embeddings", "body": []}, "body", "expected a JSON object, got a list"),
    ({"custom_id": "a", "url": "/v1/embeddings", "body": {}}, "body.input", "expected this field"),
    ({**OURS, "batch": "b"}, "batch", "the queue itself"),
    ({**OURS, "scheduled_at": "tomorrow"}, "scheduled_at", "expected a time with its zone"),
    ({**OURS, "scheduled_at": "2027-01-31T10:00:00"}, "scheduled_at", "expected a time with its zone"),
    ({**OURS, "key": True}, "key", "expected a text or a number"),
    ({"question": "Why?"}, "", "for other objects give a prompt template"),
    ({}, "", "got the fields of none"),
])  # fmt: skip
def test_a_wrong_line_says_where_and_why(row: dict[str, Any], field: str, reason: str) -> None:
    (error,) = errors(read(json.dumps(row)))
    assert (error.number, error.field) == (1, field)
    assert reason in error.reason
    assert not error.reason.startswith(f"{field}: expected") or not field


@pytest.mark.parametrize(("text", "reason"), [
    (b'{"a": 1, "a": 2}', "expected each key once"),
    (b'{"a": NaN}', "expected a finite number, got NaN"),
    (b'{"a": 1e999}', "expected a finite number"),
    (b'{"a": 1} {"b": 2}', "expected JSON, got: Extra data"),
    (b'"text"', "expected a JSON object, got a text"),
    (b'{"a": "\xff"}', "expected text in UTF-8, got byte 0xff at 8"),
    (b"name,prompt", "expected JSON"),
    (b'{"a":' * 2000, "levels of nesting"),
])  # fmt: skip
def test_text_that_is_no_json_object_is_that_lines_error_only(text: bytes, reason: str) -> None:
    found = read(text + b"\n" + json.dumps(OURS).encode() + b"\n")
    assert [line.number for line in found] == [1, 2]
    assert reason in errors(found)[0].reason
    assert len(fields(found)) == 1


def test_a_missing_field_of_the_template_is_named() -> None:
    (error,) = errors(read('{"q": "a", "id": 1}', Form(prompt="{question}")))
    assert (error.field, error.reason) == ("question", "expected this field for the template, got only q, id")


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30) | st.sampled_from(
    ['"', "\\", '\\"', "[", "]", "{", "},", '{"a":[', "\n", "\r\n", "é", "\u2028"]
)
payloads = st.dictionaries(texts, texts, max_size=3)
rows = st.lists(st.fixed_dictionaries({"executor": st.just("e"), "action": st.just("a"), "payload": payloads}))


@given(rows, st.integers(1, 40), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n  \n"]), st.booleans())
def test_lines_come_back_whatever_the_pieces_and_line_ends(made: list[Any], piece: int, mark: bool, end: str, closed: bool) -> None:
    text = end.join(json.dumps(row, ensure_ascii=False) for row in made) + (end if closed else "")
    found = read((b"\xef\xbb\xbf" if mark else b"") + text.encode(), piece=piece)
    assert fields(found) == [{**row, "stream": False} for row in made]
    step = 1 + end.count("\n") - 1
    assert [line.number for line in found] == [1 + step * index for index in range(len(made))]


@given(rows, st.integers(1, 40), st.booleans(), st.sampled_from([None, 2]))
def test_an_array_comes_back_element_by_element_whatever_the_pieces(made: list[Any], piece: int, mark: bool, indent: int | None) -> None:
    text = "\n " + json.dumps(made, ensure_ascii=False, indent=indent) + "\n"
    found = read((b"\xef\xbb\xbf" if mark else b"") + text.encode(), piece=piece)
    assert fields(found) == [{**row, "stream": False} for row in made]
    assert [line.number for line in found] == list(range(1, len(made) + 1))


@given(st.binary(max_size=200) | st.text(st.sampled_from('[]{}",:\\ \n1a')).map(str.encode), st.integers(1, 17))
def test_no_bytes_at_all_raise_or_depend_on_the_pieces(data: bytes, piece: int) -> None:
    whole = read(data)
    assert read(data, piece=piece) == whole
    assert all(isinstance(line, LineError) for line in whole)


@pytest.mark.parametrize(("text", "number", "reason"), [
    ('[{"executor": "e", "action": "a"},', 2, "expected `]` at the end of the list"),
    ('[{"executor": "e", "action": "a"}, {"exec', 2, "it may have been cut off"),
    ('[{"executor": "e", "action": "a"}] x', 2, "expected nothing after the list's end"),
    ('[{"executor": "e", "action": "a"},]', 2, "got nothing before `]`"),
    ('[{"executor": "e", "action": "a"},,{}]', 2, "got nothing before `,`"),
    ('[{"executor": "e", "action": "a"},}]', 2, "got `}`"),
    ('[{"executor": "e", "action": "a"}, 7]', 2, "expected a JSON object, got a number"),
    ('{"executor": "e", "action": "a"}\n{"exec', 2, "it may have been cut off"),
])  # fmt: skip
def test_where_a_file_is_cut_or_broken_is_said(text: str, number: int, reason: str) -> None:
    found = read(text)
    assert isinstance(found[0], Line)
    (error,) = errors(found)
    assert error.number == number
    assert reason in error.reason


def test_utf16_is_named() -> None:
    (error,) = errors(read(json.dumps(OURS).encode("utf-16")))
    assert "got UTF-16" in error.reason


def test_a_line_that_is_too_long_is_an_error_and_the_next_ones_are_read() -> None:
    long = json.dumps({**OURS, "payload": {"text": "x" * 5000}})
    for piece in (7, 1000, 1 << 16):
        found = read(f"{json.dumps(OURS)}\n{long}\n{json.dumps(OURS)}\n", piece=piece, max_line=1000)
        assert [(type(line), line.number) for line in found] == [(Line, 1), (LineError, 2), (Line, 3)]
        assert "at most 1,000 bytes" in errors(found)[0].reason
    (error,) = errors(read(f"[{long}]", piece=100, max_line=1000))
    assert "at most 1,000 bytes an element" in error.reason


def test_nothing_at_all_holds_no_line() -> None:
    for text in ("", "\n\n \n", "[]", " [ ] \n", "\ufeff"):
        assert read(text) == []


def _file(lines: int, *, array: bool) -> Iterator[bytes]:
    one = json.dumps(OURS).encode()
    if array:
        yield b"["
        for number in range(lines):
            yield (b"," if number else b"") + one
        yield b"]"
    else:
        for _ in range(lines):
            yield one + b"\n"


def _peak(lines: int, *, array: bool) -> int:
    reader = Reader()
    tracemalloc.start()
    try:
        count = sum(len(reader.feed(piece)) for piece in _file(lines, array=array)) + len(reader.end())
        assert count == lines
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("array", [False, True])
def test_a_long_file_needs_no_more_memory_than_a_short_one(array: bool) -> None:
    _peak(10, array=array)
    assert _peak(20_000, array=array) < _peak(100, array=array) + 20_000
