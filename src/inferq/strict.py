"""JSON as people write it into files: what a decoder would silently choose from is an error with its place. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from inferq.errors import InvalidTask


def strict_json(text: str | bytes) -> Any:
    """Decode JSON from a person's file; repeated keys, NaN and trailing text are InvalidTask instead of silent choices."""
    try:
        text = (text if isinstance(text, str) else str(text, "utf-8")).strip(" \t\r\n")
        value, end = _read(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except UnicodeDecodeError as error:
        raise InvalidTask(f"expected JSON in UTF-8, got: {error}") from None
    except json.JSONDecodeError as error:
        raise InvalidTask(f"expected JSON, got: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise InvalidTask("expected at most 64 levels of nesting, got more") from None
    except ValueError as error:
        # Python refuses to read integers of more than some thousand digits.
        raise InvalidTask(f"expected JSON, got: {error}") from None
    return value


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) != len(items):
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise InvalidTask("expected each key once, got it twice", field=key)
            seen.add(key)
    return made


def _constant(name: str) -> Any:
    raise InvalidTask(f"expected a finite number, got {name}")


def _fraction(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidTask(f"expected a finite number, got {digits}")
    return value


_read = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_fraction).raw_decode
