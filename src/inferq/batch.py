"""Batch files, read as they come: bytes in, one line or one line's error out, in bounded memory whatever the file's size. Pure.

Four shapes of line are told apart object by object: a task of ours (fields of `Submission`), the forerunners' entry (`type`, `model`,
`messages`...), OpenAI's batch line (`custom_id`, `method`, `url`, `body`), and any object at all where a `Form` has a prompt template.
The file is a JSON array of them or has one a line (JSON Lines).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from string import Formatter
from typing import Any, Final

import msgspec

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


class Form(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes tasks of lines that do not say it all.

    `prompt` (with `system`) is a template: `{field}` stands for a field of the line, `{a.b}` for one inside another, `{{` for a brace;
    it makes a task of any object. `action` is what the template asks for: chat, generate or embed. `key` names the field (or is a
    template) that tells lines apart over several runs. `model`, `executor` and `fields` (of a Submission) hold where a line says nothing,
    `always` holds whatever it says.
    """

    prompt: str | None = None
    system: str | None = None
    action: str = "chat"
    key: str | None = None
    model: str = ""
    executor: str = ""
    fields: dict[str, Any] = {}
    always: dict[str, Any] = {}


class BadForm(InvalidTask):
    """The template or another part of a Form is wrong, whatever the lines are."""


# ── bytes to lines ──────────────────────────────────────────────────────────────────────────────────────────────────

_BLANK: Final = b" \t\r\n"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_OPENING: Final = (b"[", b"{")
_CLOSING: Final = (b"]", b"}")
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)


class Reader:
    """Feed it the bytes of a file in pieces of any size; it gives back lines and errors as soon as they are whole.

    Raises BadForm at once for a form that can never work. After `broken` nothing more is read: the error says from where on.
    """

    def __init__(self, form: Form | None = None, *, max_line: int = MAX_LINE, first: int = 1) -> None:
        self._make = _maker(form or Form())
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
                return LineError(number, f"expected a JSON object, got {_kind(value)}")
            key, fields = self._make(value)
        except UnicodeDecodeError as error:
            return LineError(number, f"expected text in UTF-8, got byte 0x{text[error.start]:02x} at {error.start + 1}")
        except InvalidTask as error:
            reason = error.args[0]
            return LineError(number, reason.removeprefix(f"{error.field}: ") if error.field else reason, error.field)
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


# ── objects to tasks ────────────────────────────────────────────────────────────────────────────────────────────────

Made = tuple[str | None, dict[str, Any]]
Row = Mapping[str, Any]

_MODEL_FIELDS: Final = {
    "chat": frozenset({"messages", "system", "tools", "format"}),
    "generate": frozenset({"prompt", "system", "template", "raw", "suffix", "images", "format"}),
    "embed": frozenset({"input", "truncate", "dimensions"}),
}
_NEEDED: Final = {"chat": "messages", "generate": "prompt", "embed": "input"}
_ENTRY_FIELDS: Final = frozenset({
    "model", "priority", "options", "stream", "scheduled_at", "metadata", "tags", "max_retries", "timeout", "deadline", "start_deadline",
    "executor", "backend", "key",
})  # fmt: skip
_ENDPOINTS: Final = {"/v1/chat/completions": "chat", "/v1/completions": "generate", "/v1/embeddings": "embed"}
_OLLAMA_OPTIONS: Final = {
    "temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop", "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}  # fmt: skip
_MOMENTS: Final = ("scheduled_at", "start_deadline", "deadline")
_OWNED: Final = ("batch", "schedule")


def _maker(form: Form) -> Callable[[dict[str, Any]], Made]:
    """The function that makes a task of an object. Raises BadForm."""
    if form.action not in _NEEDED:
        raise BadForm(f"expected chat, generate or embed, got {form.action!r}", field="action")
    key = None if form.key is None else template(form.key if "{" in form.key else "{" + form.key + "}", "key")
    shaped = None if form.prompt is None else _templated(form)
    defaults = {"stream": False, **form.fields}
    if form.model:
        defaults["model"] = form.model
    always = form.always

    def make(row: dict[str, Any]) -> Made:
        own: str | None = None
        if shaped is not None:
            fields = shaped(row)
        elif "executor" in row or "action" in row or "payload" in row:
            fields = _ours(row, form)
            own = fields.pop("key", None)
        elif "custom_id" in row or "url" in row or "body" in row:
            own, fields = _openai(row, form)
        elif "type" in row:
            fields = _entry(row, form)
            own = fields.pop("key", None)
        else:
            raise InvalidTask(
                "expected a task (executor, action, payload), an entry (type, model, ...) or an OpenAI batch line (custom_id, url, "
                f"body), got the fields {', '.join(list(row)[:8]) or 'of none'}; for other objects give a prompt template"
            )
        for name, value in defaults.items():
            if name not in fields or fields[name] is None:
                fields[name] = value
        if always:
            fields |= always
        for name in _MOMENTS:
            if type(fields.get(name)) is str:
                fields[name] = instant(fields[name], name)
        return (own if key is None else _key_of(key(row))), fields

    return make


def _ours(row: Row, form: Form) -> dict[str, Any]:
    fields = dict(row)
    for name in _OWNED:
        if name in fields:
            raise InvalidTask("expected nothing: the queue itself says which batch and schedule a task is of", field=name)
    if "executor" not in fields:
        fields["executor"] = form.executor or "ollama"
    return _keyed(fields)


def _keyed(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("key") is not None:
        fields["key"] = _key_of(fields["key"])
    return fields


def _entry(row: Row, form: Form) -> dict[str, Any]:
    """The forerunners' entry: {type, model, priority, system, stream, scheduled_at, messages, prompt, input}."""
    action = row["type"]
    if action not in _NEEDED:
        raise InvalidTask(f"expected chat, generate or embed, got {action!r}", field="type")
    if row.get(_NEEDED[action]) in (None, "", []):
        raise InvalidTask(f"expected this field for type {action}, got none", field=_NEEDED[action])
    payload: dict[str, Any] = {}
    fields: dict[str, Any] = {"executor": form.executor or "ollama", "action": action, "payload": payload}
    own = _MODEL_FIELDS[action]
    for name, value in row.items():
        if value is None or name == "type":
            continue
        if name in own:
            payload[name] = value
        elif name in _ENTRY_FIELDS:
            fields[name] = value
        elif name == "remote_execution":
            fields["remote"] = value
        elif value not in ("", [], {}, False):
            known = ", ".join(sorted(own | {"model", "priority", "options", "stream", "scheduled_at", "metadata"}))
            raise InvalidTask(f"expected a field of a {action} entry ({known}), got another", field=name)
    return _keyed(fields)


def _openai(row: Row, form: Form) -> Made:
    """OpenAI's batch line, as in its Batch API: {custom_id, method, url, body}."""
    custom_id = row.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise InvalidTask("expected a text that tells this line apart, got " + _kind(custom_id), field="custom_id")
    if row.get("method", "POST") != "POST":
        raise InvalidTask(f"expected POST, got {row['method']!r}", field="method")
    url = row.get("url")
    action = _ENDPOINTS.get(url) if isinstance(url, str) else None
    if action is None:
        raise InvalidTask(f"expected one of {', '.join(_ENDPOINTS)}, got {url!r}", field="url")
    body = row.get("body")
    if not isinstance(body, dict):
        raise InvalidTask(f"expected a JSON object, got {_kind(body)}", field="body")
    if _NEEDED[action] not in body:
        raise InvalidTask(f"expected this field for {url}, got none", field=f"body.{_NEEDED[action]}")
    payload = dict(body)
    executor = form.executor or "openai"
    fields: dict[str, Any] = {"executor": executor, "action": action, "payload": payload}
    for name in ("stream", "stream_options"):
        payload.pop(name, None)
    model = payload.pop("model", None)
    if model is not None:
        fields["model"] = model
    if executor == "ollama":
        options = {theirs: payload.pop(name) for name, theirs in _OLLAMA_OPTIONS.items() if name in payload}
        if options:
            fields["options"] = options
    return custom_id, fields


def _templated(form: Form) -> Callable[[Row], dict[str, Any]]:
    prompt = template(form.prompt or "", "prompt")
    system = None if form.system is None else template(form.system, "system")
    model = template(form.model, "model") if "{" in form.model else None
    executor, action = form.executor or "ollama", form.action

    def make(row: Row) -> dict[str, Any]:
        text = prompt(row)
        if action == "chat":
            messages = [{"role": "user", "content": text}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": system(row)})
            payload: dict[str, Any] = {"messages": messages}
        else:
            payload = {_NEEDED[action]: text}
            if system is not None and action == "generate":
                payload["system"] = system(row)
        fields: dict[str, Any] = {"executor": executor, "action": action, "payload": payload}
        if model is not None:
            fields["model"] = model(row)
        return fields

    return make


# ── templates, keys, moments ────────────────────────────────────────────────────────────────────────────────────────


def template(text: str, name: str) -> Callable[[Row], str]:
    """A function that puts a line's fields in the places of `text`. Raises BadForm; the function raises InvalidTask."""
    parts: list[tuple[str, str | None]] = []
    try:
        for literal, field, spec, conversion in Formatter().parse(text):
            if spec or conversion or field == "":
                raise ValueError(f"a place is {{field}} or {{field.inner}}, got {{{field}{'!' + conversion if conversion else ''}}}")
            parts.append((literal, field.strip() if field else None))
    except ValueError as error:
        raise BadForm(f"expected a template such as 'Translate: {{text}}' ({{{{ stands for a brace), got: {error}", field=name) from None
    if len(parts) == 1 and not parts[0][0] and parts[0][1]:
        only = parts[0][1]
        return lambda row: _text_at(row, only)

    def fill(row: Row) -> str:
        made = [literal if field is None else literal + _text_at(row, field) for literal, field in parts]
        return "".join(made)

    return fill


def _text_at(row: Row, path: str) -> str:
    value: Any = row.get(path, msgspec.UNSET)
    if value is msgspec.UNSET:
        value = row
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                raise InvalidTask(f"expected this field for the template, got only {', '.join(list(row)[:8]) or 'none'}", field=path)
            value = value[name]
    if type(value) is str:
        return value
    if value is None:
        raise InvalidTask("expected a value for the template, got null", field=path)
    return msgspec.json.encode(value).decode()


def _key_of(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidTask(f"expected a text or a number that tells this line apart, got {_kind(value)}", field="key")
    text = str(value)
    if not text or len(text) > 512:
        raise InvalidTask(f"expected a key of 1 to 512 characters, got {len(text)}", field="key")
    return text


def instant(text: str, name: str) -> int:
    """Unix milliseconds of an RFC 3339 time with its zone. Raises InvalidTask."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None or "T" not in text.upper().replace(" ", "T"):
        raise InvalidTask(f"expected a time with its zone such as 2027-01-31T10:00:00Z, got {text!r}", field=name)
    try:
        return round(made.timestamp() * 1000)
    except (OverflowError, ValueError):
        raise InvalidTask(f"expected a time that a computer can hold, got {text!r}", field=name) from None


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
