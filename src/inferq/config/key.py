"""The table of keys, read off the settings tree, and the one function that turns a written value into a key's type. Pure."""

from __future__ import annotations

import json
import math
import re
import types
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from inferq import clock
from inferq.config.secret import MASK, looks_secret, shown
from inferq.config.settings import BackendSettings, Section, Settings

Path_ = tuple[str, ...]
"""Where a value stands in the tree: ("worker", "slots"), ("backends", "gpu", "settings", "base_url")."""

NONE_WORDS: Final = frozenset({"none", "null"})
_FLAG_WORDS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_SIZE = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.IGNORECASE)
_SIZE_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "t": 1_000_000_000_000}
_BINARY_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Key(msgspec.Struct, frozen=True):
    """One setting. `path` has `*` for the name of a backend; `kind` is what people write, `unit` what the number means."""

    path: Path_
    type: Any
    kind: Literal["integer", "number", "duration", "size", "flag", "text", "path", "store url", "choice", "list", "mapping"]
    unit: str
    default: Any
    optional: bool
    choices: tuple[str, ...]
    bounds: tuple[tuple[str, float], ...]
    meaning: str

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def env(self) -> str:
        """The environment variable; `NAME` stands for the backend's name, `SETTING` for the executor's setting."""
        parts = ["NAME" if part == "*" else part.upper() for part in self.path]
        return "INFERQ_" + "__".join([*parts, "SETTING"] if self.kind == "mapping" else parts)

    @property
    def expected(self) -> str:
        """For people: what may be written."""
        words: dict[str, str] = {
            "integer": "an integer",
            "number": "a number",
            "duration": "a duration (seconds, or text such as '10m' or '1h30m')",
            "size": "a size (bytes, or text such as '16MB')",
            "flag": "true or false",
            "text": "a text",
            "path": "a path",
            "store url": "a url such as sqlite:///inferq.db",
            "choice": "one of " + ", ".join(self.choices),
            "list": "a list of texts",
            "mapping": "a group of settings",
        }
        limits = " and ".join(
            f"{word} {limit:g}" if limit < 1e6 else f"{word} {limit:,.0f}" for word, limit in self.bounds if limit < 2**53
        )
        return words[self.kind] + (f" {limits}" if limits else "") + (" or none" if self.optional else "")


@cache
def keys() -> tuple[Key, ...]:
    """Every key there is, in the order of the tree."""
    return tuple(_read(Settings, ()))


@cache
def _by_path() -> dict[Path_, Key]:
    return {key.path: key for key in keys()}


def lookup(path: Path_) -> Key | None:
    """The key that a path belongs to: for everything below a backend's `settings`, that mapping."""
    if path[:1] == ("backends",):
        path = ("backends", "*", *path[2:3]) if path[2:3] == ("settings",) else ("backends", "*", *path[2:])
    return _by_path().get(path)


def is_group(path: Path_) -> bool:
    """Whether keys lie below this path."""
    if path[:1] == ("backends",):
        path = ("backends", "*", *path[2:])[: len(path)]
    return any(known[: len(path)] == path and len(known) > len(path) for known in _by_path())


def _read(section: type[Section], prefix: Path_) -> list[Key]:
    found: list[Key] = []
    for field in msgspec.structs.fields(section):
        if field.name == "backends":
            found += [key for key in _read(BackendSettings, ("backends", "*")) if key.path[-1] != "name"]
        elif isinstance(field.type, type) and issubclass(field.type, Section):
            found += _read(field.type, (*prefix, field.name))
        else:
            found.append(_key(field, (*prefix, field.name)))
    return found


def _key(field: msgspec.structs.FieldInfo, path: Path_) -> Key:
    base, metas, optional = _unwrap(field.type)
    unit = next((meta.extra["unit"] for meta in metas if meta.extra), "")
    bounds = [(word, getattr(meta, name)) for meta in metas for name, word in _BOUNDS.items() if getattr(meta, name) is not None]
    default = field.default if field.default is not msgspec.NODEFAULT else None
    return Key(
        path=path,
        type=field.type,
        kind=_kind(base, unit),
        unit=unit,
        default=default,
        optional=optional,
        choices=get_args(base) if get_origin(base) is Literal else (),
        bounds=tuple(bounds),
        meaning=next((meta.description for meta in metas if meta.description), ""),
    )


_BOUNDS: Final = {"ge": "of at least", "gt": "greater than", "le": "of at most"}
_KINDS: Final[dict[Any, Any]] = {bool: "flag", int: "integer", float: "number", str: "text", tuple: "list", dict: "mapping"}
_UNIT_KINDS: Final[dict[str, Any]] = {"seconds": "duration", "bytes": "size", "path": "path", "store url": "store url"}


def _kind(base: Any, unit: str) -> Any:
    if get_origin(base) is Literal:
        return "choice"
    return _UNIT_KINDS.get(unit) or _KINDS[get_origin(base) or base]


def _unwrap(type_: Any) -> tuple[Any, list[Meta], bool]:
    """The bare type, every Meta around it, and whether None is allowed."""
    metas: list[Meta] = []
    optional = False
    while get_origin(type_) in (Annotated, Union, types.UnionType):
        if get_origin(type_) is Annotated:
            metas += [meta for meta in type_.__metadata__ if isinstance(meta, Meta)]
            type_ = type_.__origin__
        else:
            optional = True
            type_ = next(part for part in get_args(type_) if part is not type(None))
    return type_, metas, optional


# ── from what was written to the key's type ─────────────────────────────────────────────────────────────────────────


def coerce(key: Key, value: Any, *, from_text: bool) -> Any:
    """A value of the key's type, within its bounds. `from_text` admits numbers and lists written as text (environment, references).

    Raises ValueError with what was expected and what came.
    """
    if key.optional and isinstance(value, str) and value.strip().lower() in NONE_WORDS:
        value = None
    if value is None:
        if key.optional:
            return None
        raise ValueError(f"expected {key.expected}, got nothing (null)")
    try:
        converted = msgspec.convert(_parse(key, value, from_text=from_text), key.type)
    except (ValueError, OverflowError):
        raise ValueError(f"expected {key.expected}, got {quoted(key.path, value)}") from None
    return converted


def _parse(key: Key, value: Any, *, from_text: bool) -> Any:
    text = value.strip() if isinstance(value, str) else None
    match key.kind:
        case "duration":
            return clock.seconds(value) if text is not None or isinstance(value, int | float) else _wrong()
        case "size":
            return size(text) if text is not None else value
        case "choice":
            return text.lower() if text is not None else value
        case "flag" if text is not None and from_text:
            return _FLAG_WORDS[text.lower()] if text.lower() in _FLAG_WORDS else _wrong()
        case "integer" if text is not None and from_text:
            return int(text)
        case "number":
            number = float(text) if text is not None and from_text else value
            return number if isinstance(number, int | float) and math.isfinite(number) else _wrong()
        case "list" if text is not None and from_text:
            return json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
        case "text" | "path" | "store url":
            return value if text and "\0" not in text else _wrong()
        case _:
            return value


def _wrong() -> Any:
    raise ValueError


def size(text: str) -> int:
    """Bytes from `16MB` (10^6), `16MiB` (2^20), `64k` or a number. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a size such as 1048576, '16MB' or '16MiB', got {text!r}")
    unit = match["unit"].lower().removesuffix("b")
    factor = _BINARY_UNITS[unit[0]] if unit.endswith("i") and unit != "i" else _SIZE_UNITS.get(unit, 0)
    amount = float(match["amount"]) * factor if "." in match["amount"] else int(match["amount"]) * factor
    if not factor or amount != int(amount):
        raise ValueError(f"expected a whole number of bytes, got {text!r}")
    return int(amount)


def free_value(path: Path_, text: str) -> Any:
    """A value for an executor's setting from the environment: JSON numbers, true, false, lists and objects count as such."""
    if any(looks_secret(part) for part in path[3:]) or not re.match(r'[-\d\["{tfn]', text):
        return text
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return text


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def quoted(path: Path_, value: Any) -> str:
    """What came, for an error message: short, and masked where it may be secret."""
    if any(looks_secret(part) for part in path):
        return MASK
    text = repr(shown(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
