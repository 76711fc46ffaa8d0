"""Checks of the payload fields that both dialects share; each names the field that is wrong. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from inferq.errors import InvalidTask

_KINDS: Final[Mapping[type, str]] = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def check_field(payload: Mapping[str, Any], field: str, *kinds: type) -> None:
    """Raises InvalidTask when the field is there (and not null) but of none of these kinds."""
    value = payload.get(field)
    if value is None or (isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)):
        return
    wanted = " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds)
    raise InvalidTask(f"expected {wanted}, got {shown(value)}", field=f"payload.{field}")


def check_messages(payload: Mapping[str, Any], *, roles: Collection[str], images: bool = False) -> None:
    """Raises InvalidTask unless `messages` is a non-empty list of messages with known roles and something to say.

    With `images`, a message may carry a list of base64 texts, as Ollama takes them.
    """
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidTask(
            f'expected a non-empty list such as [{{"role": "user", "content": "Hello"}}], got {shown(messages)}',
            field="payload.messages",
        )
    for place, message in enumerate(messages):
        _check_message(message, f"payload.messages[{place}]", roles=roles)
        if images and isinstance(message, dict):
            check_images(message, f"payload.messages[{place}].images")


def check_images(holder: Mapping[str, Any], field: str) -> None:
    """Raises InvalidTask unless `images` is absent or a list of base64 texts."""
    images = holder.get("images")
    if images is None:
        return
    if not isinstance(images, list):
        raise InvalidTask(f"expected a list of images, each as base64 text, got {shown(images)}", field=field)
    for place, image in enumerate(images):
        if not _is_base64(image):
            raise InvalidTask(f"expected an image as base64 text, got {shown(image)}", field=f"{field}[{place}]")


def check_input(payload: Mapping[str, Any], field: str, *, tokens: bool) -> None:
    """Raises InvalidTask unless the field is a text or a list of some; with `tokens`, token ids are texts too."""
    value = payload.get(field)
    if isinstance(value, str):
        return
    wanted = "text or a non-empty list of texts" + (" (or of token ids)" if tokens else "")
    if not isinstance(value, list) or not value:
        raise InvalidTask(f"expected {wanted}, got {shown(value)}", field=f"payload.{field}")
    kind = next((kind for kind, fits in _ELEMENTS.items() if fits(value[0])), None)
    if kind is None or (kind != "text" and not tokens):
        raise InvalidTask(f"expected {wanted}, got {shown(value[0])}", field=f"payload.{field}[0]")
    for place, element in enumerate(value):
        if not _ELEMENTS[kind](element):
            where = f"payload.{field}[{place}]"
            raise InvalidTask(f"expected {kind} like the first element, got {shown(element)}", field=where)


def shown(value: object) -> str:
    """A value for an error message: its kind, and the value itself where that is short."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list) and value:
        return f"{'an object' if isinstance(value, dict) else 'a list'} with {len(value)} element(s)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_message(message: object, field: str, *, roles: Collection[str]) -> None:
    if not isinstance(message, dict):
        wanted = '{"role": "user", "content": "Hello"}'
        raise InvalidTask(f"expected an object such as {wanted}, got {shown(message)}", field=field)
    role = message.get("role")
    if not isinstance(role, str) or role not in roles:
        raise InvalidTask(f"expected one of {', '.join(sorted(roles))}, got {shown(role)}", field=f"{field}.role")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise InvalidTask(f"expected text or a list of parts, got {shown(content)}", field=f"{field}.content")
    # An assistant may have said nothing but called tools, a user may show nothing but images.
    if content is None and not any(message.get(other) for other in _INSTEAD):
        raise InvalidTask("expected text, got nothing", field=f"{field}.content")


def _is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(b64decode(value, validate=True))
    except ValueError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_token, value))


_ELEMENTS: Final[Mapping[str, Callable[[object], bool]]] = {
    "text": _is_text,
    "a token id": _is_token,
    "a list of token ids": _are_tokens,
}
_INSTEAD: Final = ("tool_calls", "function_call", "images", "refusal", "audio", "thinking")
