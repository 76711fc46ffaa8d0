"""Framing of event streams and JSON lines: properties over any cut."""

from __future__ import annotations

from typing import Any

import pytest
from doubles.drawn import cut, json_values, places
from hypothesis import given
from hypothesis import strategies as st

from inferq.wire.framing import (
    DONE,
    EventReader,
    JsonLines,
    LineReader,
    LineTooLongError,
    MalformedError,
    ServerEvent,
    write_comment,
    write_data,
    write_event,
    write_json_line,
)

# Every line end that the standard knows; an event's name and id must stay on their line.
event_texts = st.lists(st.tuples(st.text(), st.text().filter(lambda t: not set("\r\n\0") & set(t))), min_size=1, max_size=5)


@given(event_texts, places, st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_survive_writing_any_line_end_and_any_cut(texts: list[tuple[str, str]], at: list[int], end: str) -> None:
    written = b"".join(write_event(data, event=name) for data, name in texts)
    written = written.replace(b"\n", end.encode())
    reader = EventReader()
    read = [event for piece in cut(written, at) for event in reader.feed(piece)]
    lines = [(data.replace("\r\n", "\n").replace("\r", "\n"), name) for data, name in texts]
    assert read == [ServerEvent(data, name) for data, name in lines]


@given(st.binary(), places)
def test_where_bytes_are_cut_never_changes_the_events(data: bytes, at: list[int]) -> None:
    whole, pieces = EventReader(), EventReader()
    assert whole.feed(data) == [event for piece in cut(data, at) for event in pieces.feed(piece)]


@given(st.lists(json_values, max_size=8), places, st.booleans())
def test_json_lines_survive_writing_and_any_cut(values: list[Any], at: list[int], terminated: bool) -> None:
    written = b"".join(map(write_json_line, values))
    if not terminated:
        written = written.removesuffix(b"\n")
    reader = JsonLines()
    read = [value for piece in cut(written, at) for value in reader.feed(piece)]
    assert read + reader.end() == values


@given(st.binary(), places)
def test_where_bytes_are_cut_never_changes_the_lines(data: bytes, at: list[int]) -> None:
    reader = LineReader()
    read = [line for piece in cut(data, at) for line in reader.feed(piece)]
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    assert read + reader.end() == (expected if expected[-1] else expected[:-1])


def test_an_event_stream_is_read_as_the_standard_says() -> None:
    text = "\ufeff: a comment\ndata: one\ndata:two\nid: 7\nretry: 250\nevent: note\n\ndata\n\nnodata: x\n\ndata: cut off"
    events = EventReader().feed(text.encode())
    assert events == [ServerEvent("one\ntwo", "note", "7", 250), ServerEvent("")]


def test_comments_and_values_are_written_so_that_readers_skip_or_read_them() -> None:
    reader = EventReader()
    events = reader.feed(write_comment("queued 3\nsecond line") + write_data({"a": "é\n"}) + DONE)
    assert [event.data for event in events] == ['{"a":"é\\n"}', "[DONE]"]


def test_an_event_name_with_a_line_break_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="on one line"):
        write_event("x", event="a\nb")


def test_a_line_of_several_megabytes_is_read_and_one_past_the_bound_refused() -> None:
    long = {"text": "x" * 5_000_000}
    reader = JsonLines()
    pieces = cut(write_json_line(long), list(range(0, 5_000_000, 65_536)))
    assert [value for piece in pieces for value in reader.feed(piece)] == [long]
    bounded = EventReader(max_line=1_000)
    bounded.feed(b"data: " + b"x" * 600)
    with pytest.raises(LineTooLongError, match="more than 1000 bytes"):
        bounded.feed(b"x" * 600)
    with pytest.raises(LineTooLongError):
        EventReader(max_line=1_000).feed(b"data: " + b"x" * 900 + b"\ndata: " + b"y" * 900 + b"\n\n")


@pytest.mark.parametrize("line", [b"{\n", b'{"a": \xff\xfe}\n', b"[" * 20_000 + b"\n", b"<html>\n"])
def test_a_line_that_is_not_json_is_named_as_such(line: bytes) -> None:
    with pytest.raises(MalformedError):
        JsonLines().feed(line)
