"""Reads payloads and settings into typed structs; what does not fit becomes an error that names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from inferq.errors import ConfigError, InvalidTask

T = TypeVar("T", bound=msgspec.Struct)

_AT = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")
_FIELD = re.compile(r"field `(?P<name>[^`]+)`$")


def read(payload: Mapping[str, Any], shape: type[T]) -> T:
    """The payload as a struct; fields that the struct does not have are left alone. Raises `InvalidTask`."""
    try:
        return msgspec.convert(payload, shape)
    except msgspec.ValidationError as error:
        message, path = _located(str(error))
        raise InvalidTask(message, field=".".join(part for part in ("payload", path) if part)) from None


def settings(given: Mapping[str, Any], shape: type[T], *, of: str) -> T:
    """The settings of executor `of` as a struct. Raises `ConfigError`, also for a setting that does not exist."""
    unknown = sorted(set(given) - set(shape.__struct_fields__))
    if unknown:
        known = ", ".join(shape.__struct_fields__)
        raise ConfigError(f"{of}: unknown setting {unknown[0]!r}; known: {known}")
    try:
        return msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        message, path = _located(str(error))
        raise ConfigError(f"{of}: setting {path or '?'!r}: {message}") from None


def _located(text: str) -> tuple[str, str]:
    """`(what is wrong, where)` of a msgspec message; a missing or unknown field counts as the place itself."""
    path = ""
    if match := _AT.search(text):
        path, text = match["path"], text[: match.start()]
    if match := _FIELD.search(text):
        path = f"{path}.{match['name']}" if path else match["name"]
    return text[:1].lower() + text[1:].replace("`", ""), path
