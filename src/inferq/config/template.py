"""A configuration file to begin with: every setting with its meaning, unit and default, each as a comment to be uncommented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from inferq.config.key import Key, keys

Format = Literal["toml", "yaml"]

_HEAD: Final = """\
# Settings of inferq. A line such as `#slots = 4` shows a default: take the `#` away and change it.
# A setting that is not here, or wrong, is an error with its line: `inferq config validate` checks this file.
# `inferq config show --sources` says what is in force and why. Arguments win over INFERQ_* variables, those over files.
"""
_BACKENDS: Final = {
    "toml": """\
# Where tasks run. Without any entry here there is one backend for each built-in executor, under its name.
# Secrets: "${NAME}" is a variable, "file:/run/secrets/key" a file, "credential:NAME" one of systemd's credentials.
#[backends.gpu]
#executor = "ollama"
#settings = { base_url = "http://gpu:11434" }
#
#[backends.cloud]
#executor = "openai"
#settings = { base_url = "https://api.openai.com/v1", api_key = "${OPENAI_API_KEY}" }
#
# What an entry may say beside its executor:
""",
    "yaml": """\
# Where tasks run. Without any entry here there is one backend for each built-in executor, under its name.
# Secrets: ${NAME} is a variable, file:/run/secrets/key a file, credential:NAME one of systemd's credentials.
#backends:
#  gpu:
#    executor: ollama
#    settings: {base_url: "http://gpu:11434"}
#  cloud:
#    executor: openai
#    settings: {base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
#
# What an entry may say beside its executor:
""",
}
_WIDTH: Final = 118
_EXAMPLES: Final = {"store.data_dir": "~/.local/share/inferq", "store.url": "sqlite:////srv/inferq/inferq.db"}
"""Where the default depends on the machine or on another setting."""
_SPANS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s"), (0.001, "ms"))


def template(form: Format) -> str:
    """The whole file."""
    tree: dict[str, Any] = {}
    for key in keys():
        if key.path[0] != "backends":
            inside = tree
            for part in key.path[:-1]:
                inside = inside.setdefault(part, {})
            inside[key.path[-1]] = key
    lines = [_HEAD.rstrip("\n"), *_groups(tree, (), form), "", _BACKENDS[form].rstrip("\n"), *_backend_fields()]
    return "\n".join(lines) + "\n"


def _groups(tree: dict[str, Any], path: tuple[str, ...], form: Format) -> Iterator[str]:
    """A group's own settings, then the groups in it: YAML can open a group only once."""
    own = [key for key in tree.values() if isinstance(key, Key)]
    if path and (own or form == "yaml"):
        yield from ["", f"[{'.'.join(path)}]"] if form == "toml" else ["", f"{'  ' * (len(path) - 1)}{path[-1]}:"]
    for key in own:
        yield from _setting(key, form)
    for name, inside in tree.items():
        if isinstance(inside, dict):
            yield from _groups(inside, (*path, name), form)


def _setting(key: Key, form: Format) -> Iterator[str]:
    indent = "  " * (len(key.path) - 1) if form == "yaml" else ""
    yield from _wrapped(f"{key.meaning} ({_type(key)})", f"{indent}# ")
    yield f"{indent}#{key.path[-1]}{' =' if form == 'toml' else ':'} {_default(key)}"


def _type(key: Key) -> str:
    words = " | ".join(key.choices) if key.choices else key.kind
    unit = f" of {key.unit}" if key.kind == "integer" and key.unit else ""
    return f"{words}{unit}{', or none' if key.optional else ''}"


def _default(key: Key) -> str:
    value = _EXAMPLES.get(key.name, key.default)
    if value is None:
        return '"none"'
    if key.kind == "duration" and value:
        return json.dumps(next(f"{value / size:g}{unit}" for size, unit in _SPANS if value >= size and not (value * 1000) % (size * 1000)))
    if key.kind == "size" and not value % 1_000_000:
        return f'"{value // 1_000_000}MB"'
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _backend_fields() -> Iterator[str]:
    for key in keys():
        if key.path[0] == "backends":
            yield from _wrapped(f"{key.path[-1]}: {key.meaning} ({_type(key)})", "#   ")


def _wrapped(text: str, prefix: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)
