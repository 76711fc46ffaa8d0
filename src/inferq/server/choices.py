"""What a field of a request may be, where it is one of a few words: a refusal of another word names them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

_STEP: Final = re.compile(r"\[[^\]]*\]|[^.\[\]]+")


def choices(kind: Any, place: str) -> list[str]:
    """The words that may stand at a place such as `items[0].role` of a type; empty where others may, too."""
    kinds = list(_parts(kind))
    for step in _STEP.findall(place):
        kinds = [part for found in kinds for inner in _inside(found, step) for part in _parts(inner)]
    words: list[str] = []
    for found in kinds:
        if get_origin(found) is Literal:
            words += [str(value) for value in get_args(found)]
        elif isinstance(found, type) and issubclass(found, Enum):
            words += [str(member.value) for member in found]
    return list(dict.fromkeys(words))


def _parts(kind: Any) -> Iterator[Any]:
    """A type without its annotations; of a union each part."""
    if get_origin(kind) is Annotated:
        yield from _parts(get_args(kind)[0])
    elif get_origin(kind) in (list, tuple, set, frozenset, dict, Literal) or not get_args(kind):
        yield kind
    else:
        for part in get_args(kind):
            yield from _parts(part)


def _inside(kind: Any, step: str) -> list[Any]:
    """The type of a field, or of what a list or a mapping holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [field.type for field in msgspec.structs.fields(kind) if field.encode_name == step]
    if step.startswith("["):
        return list(get_args(kind)[-1:]) if get_origin(kind) is dict else list(get_args(kind)[:1])
    return []
