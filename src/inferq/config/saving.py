"""`save`: a configuration written back as TOML, YAML or JSON; only what differs from the defaults, and never a secret's value."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from inferq.config import files, references
from inferq.config.secret import Secret, has_password
from inferq.config.settings import DEFAULT_BACKENDS, BackendSettings, Section, Settings, default_url
from inferq.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LEFT_OUT: Final = object()
_YAML_BREAKS: Final = "\x85\u2028\u2029\ufeff"


def save(settings: Settings, path: str | Path) -> list[str]:
    """Write what differs from the defaults, so that loading the file gives the same settings; the file is replaced in one step.

    A secret is written only where it came as a reference (`${NAME}`, `file:...`); returns the keys of those that were left out and
    have to be given another way. Raises ConfigError when the file cannot be written or cannot hold a value.
    """
    target = Path(os.path.realpath(path))
    left_out: list[str] = []
    tree = _difference(settings, left_out)
    try:
        text = _encode(tree, target).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"cannot write {target}: a setting holds characters that are not valid Unicode text") from None
    write(target, text)
    return left_out


def write(target: Path, text: bytes) -> None:
    """Put a file in its place in one step, with the directories above it. Raises ConfigError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from None


def _replace(target: Path, text: bytes) -> None:
    """A reader sees the old file or the new one, never half of it."""
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(text)
        os.replace(beside, target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _difference(settings: Settings, left_out: list[str]) -> dict[str, Any]:
    default = Settings()
    tree = {name: _changed(getattr(settings, name), getattr(default, name)) for name in settings.__struct_fields__ if name != "backends"}
    if settings.store.url == default_url(settings.store.data_dir):
        tree["store"].pop("url", None)
    if settings.backends != DEFAULT_BACKENDS:
        tree["backends"] = {backend.name: _whole(backend, left_out) for backend in settings.backends}
    return {name: inside for name, inside in tree.items() if inside}


def _changed(section: Section, default: Section) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name in section.__struct_fields__:
        value, usual = getattr(section, name), getattr(default, name)
        if isinstance(value, Section):
            inside = _changed(value, usual)
            if inside:
                changed[name] = inside
        elif value != usual:
            changed[name] = references.escape(value) if isinstance(value, str) else value
    return changed


def _whole(backend: BackendSettings, left_out: list[str]) -> dict[str, Any]:
    made = {
        "executor": references.escape(backend.executor),
        "slots": backend.slots,
        "models": [references.escape(model) for model in backend.models],
        "serves": [references.escape(executor) for executor in backend.serves],
        "remote": backend.remote,
        "priority": backend.priority or None,
        "weight": None if backend.weight == 1.0 else backend.weight,
        "over_http": backend.over_http,
        "enabled": None if backend.enabled else False,
        "settings": _without_secrets(backend.settings, f"backends.{backend.name}.settings", left_out),
    }
    return {name: value for name, value in made.items() if value not in (None, [], {})}


def _without_secrets(value: Any, path: str, left_out: list[str]) -> Any:
    match value:
        case Secret() if value.reference:
            return value.reference
        case Secret():
            left_out.append(path)
            return _LEFT_OUT
        case str() if has_password(value):
            left_out.append(path)
            return _LEFT_OUT
        case str():
            return references.escape(value)
        case list() | tuple():
            items = [_without_secrets(item, path, left_out) for item in value]
            return [item for item in items if item is not _LEFT_OUT]
        case dict():
            pairs = {name: _without_secrets(item, f"{path}.{name}", left_out) for name, item in value.items()}
            return {name: item for name, item in pairs.items() if item is not _LEFT_OUT}
        case _:
            return value


# ── formats ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _encode(tree: dict[str, Any], path: Path) -> str:
    match path.suffix.lower():
        case ".toml" if path.name == "pyproject.toml":
            raise ConfigError(f"cannot write into {path}: it belongs to other tools too; write an inferq.toml beside it")
        case ".toml":
            return "\n".join(_toml(tree, ())).strip() + "\n"
        case ".yaml" | ".yml":
            import yaml

            text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            # PyYAML writes some line separators (U+0085 among them) so that it reads them back as something else.
            odd = any(mark in text for mark in _YAML_BREAKS)
            return yaml.safe_dump(tree, sort_keys=False, allow_unicode=False) if odd else text
        case ".json":
            return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        case _:
            raise ConfigError(f"cannot tell the format of {path}: expected a name that ends in {', '.join(files.SUFFIXES)}")


def _toml(table: dict[str, Any], prefix: tuple[str, ...]) -> list[str]:
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    lines = [f"{_toml_key(name)} = {_toml_value(value, (*prefix, name))}" for name, value in plain.items()]
    if prefix and (lines or not table):
        lines = [f"[{'.'.join(map(_toml_key, prefix))}]", *lines, ""]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += _toml(value, (*prefix, name))
    return lines


def _toml_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _toml_text(name)


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any, path: tuple[str, ...]) -> str:
    match value:
        case None if path[0] == "backends":
            raise ConfigError(f"{'.'.join(path)} is null, which TOML cannot say; save as .yaml or .json")
        case None:
            return '"none"'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _toml_text(value)
        case dict():
            return "{" + ", ".join(f"{_toml_key(name)} = {_toml_value(item, path)}" for name, item in value.items()) + "}"
        case _:
            return "[" + ", ".join(_toml_value(item, path) for item in value) + "]"
