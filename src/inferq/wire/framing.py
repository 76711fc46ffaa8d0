"""Server-sent events and newline-delimited JSON, read from bytes cut at any place and written back. Pure.

Sources: the event stream format of the HTML standard (section 9.2.6), application/x-ndjson as Ollama writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes of one line: generous, as an image or a batch of embeddings is one line, and bounded, as memory is."""
DONE: Final = b"data: [DONE]\n\n"
"""OpenAI's end mark of a stream."""
_BOM: Final = b"\xef\xbb\xbf"


class MalformedError(ValueError):
    """What the other side sent is not what its protocol says."""


class LineTooLongError(MalformedError):
    """A line is longer than the reader accepts."""


class LineReader:
    """Cuts bytes into lines without their ends: LF, CR LF and, with `lone_cr`, CR. Feed it pieces of any size."""

    def __init__(self, *, max_line: int = MAX_LINE, lone_cr: bool = False) -> None:
        self._max = max_line
        self._lone_cr = lone_cr
        self._parts: list[bytes] = []
        self._size = 0
        self._skip_lf = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes. Raises LineTooLongError."""
        if self._skip_lf or (self._lone_cr and b"\r" in piece):
            piece = self._without_cr(piece)
        head, newline, rest = piece.partition(b"\n")
        self._size += len(head)
        if self._size > self._max:
            raise LineTooLongError(f"a line of more than {self._max} bytes")
        if head:
            self._parts.append(head)
        if not newline:
            return []
        lines = [b"".join(self._parts)]
        if rest:
            lines += rest.split(b"\n")
            tail = lines.pop()
        else:
            tail = b""
        self._parts, self._size = ([tail], len(tail)) if tail else ([], 0)
        if max(map(len, lines)) > self._max or self._size > self._max:
            raise LineTooLongError(f"a line of more than {self._max} bytes")
        return lines if self._lone_cr else [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """The last line, when it was not terminated."""
        rest = b"".join(self._parts).removesuffix(b"\r")
        self._parts, self._size = [], 0
        return [rest] if rest else []

    def _without_cr(self, piece: bytes) -> bytes:
        if self._skip_lf and piece:
            piece = piece.removeprefix(b"\n")
            self._skip_lf = False
        if piece.endswith(b"\r"):
            self._skip_lf = True
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: `data` is its data lines joined by LF, `event` its name (empty: a plain message)."""

    data: str
    event: str = ""
    id: str | None = None
    retry: int | None = None


class EventReader:
    """Reads an event stream in pieces of any size. Drops comments, and an event that no blank line ended.

    `last_id` is the place to go on after: the id of the last event, also of one that had nothing else.
    """

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._lines = LineReader(max_line=max_line, lone_cr=True)
        self._max = max_line
        self._first = True
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None
        self.last_id: str | None = None

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that this piece completes. Raises LineTooLongError (an event's data is bounded like a line)."""
        events: list[ServerEvent] = []
        for line in self._lines.feed(piece):
            if self._first:
                line = line.removeprefix(_BOM)  # a byte order mark is no part of it
                self._first = False
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self._max + 1:
                raise LineTooLongError(f"an event of more than {self._max} bytes")
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value)

    def _dispatch(self) -> ServerEvent | None:
        data, event, id_, retry = self._data, self._event, self._id, self._retry
        self._data, self._size, self._event, self._id, self._retry = [], 0, "", None, None
        if id_ is not None:
            self.last_id = id_
        if not data:
            return None
        return ServerEvent(b"\n".join(data).decode(errors="replace"), event, id_, retry)


def write_event(data: str, *, event: str = "", id: str | None = None, retry: int | None = None) -> bytes:
    """One event of an event stream. Raises ValueError when `event` or `id` cannot be written on one line."""
    lines = []
    for name, value in (("event", event or None), ("id", id)):
        if value is not None:
            if "\n" in value or "\r" in value or "\0" in value:
                raise ValueError(f"expected an event's {name} on one line, got {value!r}")
            lines.append(f"{name}: {value}")
    if retry is not None:
        lines.append(f"retry: {retry}")
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def write_comment(text: str = "") -> bytes:
    """A line that every reader of an event stream skips: it keeps idle connections open."""
    return f": {text}\n\n".encode().replace(b"\r", b" ") if "\n" not in text else write_comment(text.replace("\n", " "))


def write_data(value: object) -> bytes:
    """One event whose data is a JSON value, as OpenAI streams it."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class JsonLines:
    """Reads newline-delimited JSON; feed it pieces of any size. Blank lines are skipped."""

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._lines = LineReader(max_line=max_line)

    def feed(self, piece: bytes) -> list[Any]:
        """The values that this piece completes. Raises MalformedError for a line that is not JSON or too long."""
        return [decode_json(line) for line in self._lines.feed(piece) if line.strip()]

    def end(self) -> list[Any]:
        """The last value, when its line was not terminated. Raises MalformedError when it is cut."""
        return [decode_json(line) for line in self._lines.end() if line.strip()]


def write_json_line(value: object) -> bytes:
    """One line of newline-delimited JSON."""
    return msgspec.json.encode(value) + b"\n"


def decode_json(text: bytes | str) -> Any:
    """A JSON value. Raises MalformedError (also for what is not UTF-8 or nested deeper than the decoder follows)."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
