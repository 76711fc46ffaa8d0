"""What lines of a batch file mean: objects of four shapes to fields of a Submission, templates, keys. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Final

import msgspec

from inferq.errors import InvalidTask
from inferq.given import checked_instant


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


def maker(form: Form) -> Callable[[dict[str, Any]], Made]:
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
                fields[name] = checked_instant(fields[name], name)
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
        raise InvalidTask("expected a text that tells this line apart, got " + kind(custom_id), field="custom_id")
    if row.get("method", "POST") != "POST":
        raise InvalidTask(f"expected POST, got {row['method']!r}", field="method")
    url = row.get("url")
    action = _ENDPOINTS.get(url) if isinstance(url, str) else None
    if action is None:
        raise InvalidTask(f"expected one of {', '.join(_ENDPOINTS)}, got {url!r}", field="url")
    body = row.get("body")
    if not isinstance(body, dict):
        raise InvalidTask(f"expected a JSON object, got {kind(body)}", field="body")
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
        raise InvalidTask(f"expected a text or a number that tells this line apart, got {kind(value)}", field="key")
    text = str(value)
    if not text or len(text) > 512:
        raise InvalidTask(f"expected a key of 1 to 512 characters, got {len(text)}", field="key")
    return text


def kind(value: Any) -> str:
    if value is None:
        return "none"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
