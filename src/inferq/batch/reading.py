"""Batch files, read as they come: bytes in, one line or one line's error out, in bounded memory whatever the file's size. Pure.

The file is a JSON array or has one object a line (JSON Lines); what the objects may be, `forms` says.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from inferq.batch.forms import Form, kind, maker
from inferq.errors import InvalidTask
from inferq.strict import strict_json

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line or array element; what is longer is an error of that line, and is not kept in memory."""


class Line(msgspec.Struct, gc=False):
    """One task of a batch: its number (the line's in JSON Lines, the element's in an array, from 1), its key in the batch, and what
    it asks for as fields of a Submission."""

    number: int
    key: str | None
    fields: dict[str, Any]


class LineError(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is wrong with a line; `field` is the place in it where that is known."""

    number: int
    reason: str
    field: str = ""

    def __str__(self) -> str:
        return f"line {self.number}: {f'{self.field}: ' if self.field else ''}{self.reason}"


_BLANK: Final = b" \t\r\n"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_PACKED: Final = (
    (b"\x1f\x8b", "gzip", "gunzip -c FILE | inferq submit batch --file -"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc FILE | inferq submit batch --file -"),
    (b"PK\x03\x04", "zip", "unzip -p FILE | inferq submit batch --file -"),
)
_OPENING: Final = (b"[", b"{")
_CLOSING: Final = (b"]", b"}")
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)


class Reader:
    """Feed it the bytes of a file in pieces of any size; it gives back lines and errors as soon as they are whole.

    Raises BadForm at once for a form that can never work. After `broken` nothing more is read: the error says from where on.
    """

    def __init__(self, form: Form | None = None, *, max_line: int = MAX_LINE, first: int = 1) -> None:
        self._make = maker(form or Form())
        self._max = max_line
        self._tail = b""
        self._first = first
        self._number = first - 1
        self._is_array: bool | None = None
        self._skipping = False
        # Of an array only: where the search goes on, how deep it is, how much must have come before it pays to search again.
        self._at = self._depth = self._enough = 0
        self._elements = 0
        self._closed = False
        self.broken = False
        self.lines = 0
        """How many lines or elements there were, wrong ones included, blank ones not."""

    def feed(self, data: bytes) -> list[Line | LineError]:
        """The lines that these bytes complete."""
        return self._read(data, last=False)

    def end(self) -> list[Line | LineError]:
        """What is left when no more bytes come."""
        return self._read(b"", last=True)

    def _read(self, data: bytes, *, last: bool) -> list[Line | LineError]:
        if self.broken:
            return []
        if self._is_array is None:
            self._tail += data
            if self._tail.startswith(_UTF16):
                return [self._stop("expected text in UTF-8, got UTF-16; save the file as UTF-8")]
            for head, name, program in _PACKED:
                if self._tail.startswith(head):
                    return [self._stop(f"expected text, got a file packed by {name}; unpack it first, as with `{program}`")]
            if not self._look(last=last):
                return []
            data, self._tail = self._tail, b""
        return self._array(data, last) if self._is_array else self._lines(data, last)

    def _look(self, *, last: bool) -> bool:
        """Tell an array from lines by the first character; the byte order mark and blank lines before it do not count."""
        head = self._tail
        if len(head) < 3 and not last:
            return False
        if head.startswith(b"\xef\xbb\xbf"):
            head = self._tail = head[3:]
            if not head and not last:
                self._tail = b"\xef\xbb\xbf"
                return False
        text = head.lstrip(_BLANK)
        if not text and not last:
            # Blank lines have numbers too, but need not be kept.
            self._number += head.count(b"\n")
            self._tail = b"   "
            return False
        if text.startswith(b"["):
            self._number = self._first - 1
            self._tail = text[1:]
        self._is_array = text.startswith(b"[")
        return True

    def _stop(self, reason: str) -> LineError:
        self.broken = True
        self._tail = b""
        self.lines += 1
        return LineError(self._number + 1, f"{reason}; nothing from here on was read")

    # lines -----------------------------------------------------------------------------------------------------------

    def _lines(self, data: bytes, last: bool) -> list[Line | LineError]:
        found: list[Line | LineError] = []
        pieces = (self._tail + data if self._tail else data).split(b"\n")
        tail = pieces.pop()
        for piece in pieces:
            self._number += 1
            if self._skipping:
                self._skipping = False
                continue
            self._take(piece, found, cut=False)
        self._tail = tail
        if self._skipping:
            self._tail = b""
        elif len(tail) > self._max:
            self._too_long(found, self._number + 1)
            self._tail = b""
            self._skipping = True
        if last and self._tail:
            self._number += 1
            piece, self._tail = self._tail, b""
            self._take(piece, found, cut=True)
        return found

    def _take(self, piece: bytes, found: list[Line | LineError], *, cut: bool) -> None:
        if len(piece) > self._max:
            self._too_long(found, self._number)
            return
        text = piece.strip(_BLANK)
        if not text:
            return
        self.lines += 1
        made = self._one(text, self._number)
        if cut and type(made) is LineError and not made.field and made.reason.startswith("expected JSON"):
            made = LineError(made.number, f"{made.reason}; the input ends within this line: it may have been cut off")
        found.append(made)

    def _too_long(self, found: list[Line | LineError], number: int) -> None:
        self.lines += 1
        found.append(LineError(number, f"expected at most {self._max:,} bytes, got more"))

    def _one(self, text: bytes, number: int) -> Line | LineError:
        try:
            value = strict_json(str(text, "utf-8"))
            if type(value) is not dict:
                return LineError(number, f"expected a JSON object, got {kind(value)}")
            key, fields = self._make(value)
        except UnicodeDecodeError as error:
            return LineError(number, f"expected text in UTF-8, got byte 0x{text[error.start]:02x} at {error.start + 1}")
        except InvalidTask as error:
            return LineError(number, error.reason, error.field)
        return Line(number, key, fields)

    # an array --------------------------------------------------------------------------------------------------------

    def _array(self, data: bytes, last: bool) -> list[Line | LineError]:
        found: list[Line | LineError] = []
        text = self._tail = self._tail + data
        if self._closed:
            return self._after(found)
        if len(text) < self._enough and not last:
            return found
        start, at = 0, self._at
        while match := _TOKEN.search(text, at):
            token = match.group() if match.end() - match.start() == 1 else b""  # a whole string is no token
            if token == b'"':
                # A string that goes on in the next piece: searched again when twice as much is there, so that it costs little.
                self._enough = match.start() + 2 * (len(text) - match.start())
                at = match.start()
                break
            self._enough, at = 0, match.end()
            if token in _OPENING:
                self._depth += 1
            elif self._depth and token in _CLOSING:
                self._depth -= 1
            elif not self._depth and token:
                piece, start = text[start : match.start()].strip(_BLANK), at
                if not self._element(piece, token, found):
                    return found
                if token == b"]":
                    self._closed = True
                    break
        else:
            at = len(text)
        self._tail, self._at, self._enough = text[start:], at - start, max(0, self._enough - start)
        if self._closed:
            return self._after(found)
        if len(self._tail) > self._max:
            found.append(self._stop(f"expected at most {self._max:,} bytes an element, got more"))
        elif last:
            found.append(self._stop("expected `]` at the end of the list, but the input ends: it may have been cut off"))
        return found

    def _element(self, piece: bytes, token: bytes, found: list[Line | LineError]) -> bool:
        if not piece and token == b"]" and not self._elements:
            return True
        if not piece or token == b"}":
            came = "`}`" if token == b"}" else f"nothing before `{token.decode()}`"
            found.append(self._stop(f"expected a JSON object, got {came}"))
            return False
        self._elements += 1
        self._number += 1
        self.lines += 1
        found.append(self._one(piece, self._number))
        return True

    def _after(self, found: list[Line | LineError]) -> list[Line | LineError]:
        if self._tail.strip(_BLANK):
            found.append(self._stop("expected nothing after the list's end, got more text"))
        self._tail = b""
        return found
