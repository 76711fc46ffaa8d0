"""The JSON Schema of a configuration file, made from the settings: `python -m inferq.config.schema FILE` writes it, editors read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from inferq.config import legacy, remote_scheduling
from inferq.config.key import Key, keys

Tree = dict[str, Any]

_NAME: Final = "^(?!.*__)[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
_REFERENCE: Final = r"^(?:file|credential):.|\$\{"
"""A text that stands for another value, of any type."""
_PATTERNS: Final = {
    "duration": r"^\s*(?:\d+(?:\.\d+)?|(?:\d+(?:\.\d+)?(?:ms|[dhms]))+)\s*$",
    "size": r"^\s*\d+(?:\.\d+)?\s*[kKmMgGtT]?[iI]?[bB]?\s*$",
}
_NONE: Final = {"enum": [None, "none", "null"]}
_OLD: Final[Tree] = {"deprecated": True}
_EDGES: Final = {"of at least": "minimum", "greater than": "exclusiveMinimum", "of at most": "maximum"}


def json_schema() -> Tree:
    """What may stand in `inferq.toml`, `inferq.yaml` or `inferq.json`, the forerunners' names included (as deprecated)."""
    root = _group("Settings of inferq. All of them have defaults; inferq needs no file.")
    for key in keys():
        if key.path[0] != "backends":
            _plant(root, key.path, _value(key))
    backend = _group("One place where tasks run.")
    for key in keys():
        if key.path[0] == "backends":
            backend["properties"][key.path[-1]] = _value(key)
    root["properties"]["backends"] = _backends(backend)
    for row in legacy.TABLE:
        for path in filter(None, [(row.flat,) if row.flat else None, *row.nested]):
            _plant(root, path, _forerunners(row))
    root["properties"][remote_scheduling.NAME] = _remote_scheduling()
    root["properties"][legacy.LISTEN] = {"description": "A forerunner's name of server.host and server.port.", **_OLD, "type": "string"}
    root["properties"]["$schema"] = {"type": "string", "description": "Where this schema lies, for editors."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:inferq:settings", "title": "inferq", **root}


def document() -> str:
    """The schema as the text of `docs/inferq.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _group(description: str) -> Tree:
    return {"description": description, "type": "object", "properties": {}, "additionalProperties": False}


def _plant(root: Tree, path: tuple[str, ...], value: Tree) -> None:
    tree = root["properties"]
    for part in path[:-1]:
        tree = tree.setdefault(part, {"type": "object", "properties": {}, "additionalProperties": False})["properties"]
    tree.setdefault(path[-1], value)


def _backends(backend: Tree) -> Tree:
    named = {**backend, "properties": {"name": {"type": "string", "pattern": _NAME}, **backend["properties"]}, "required": ["name"]}
    by_name = {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": {**backend, "minProperties": 1}}
    return {
        "description": "Where tasks run, by name, or as a list of groups with a name each. Without one every built-in executor is one.",
        "anyOf": [by_name, {"type": "array", "items": named}],
    }


def _value(key: Key) -> Tree:
    unit = f" Unit: {key.unit}." if key.kind in ("integer", "duration", "size") and key.unit else ""
    made: Tree = {"description": f"{key.meaning}{unit}"}
    if key.default is not None and key.kind not in ("mapping", "list"):
        made["default"] = key.default
    forms = _forms(key)
    if key.optional:
        forms.append(dict(_NONE))
    return made | (forms[0] if len(forms) == 1 else {"anyOf": forms})


def _forms(key: Key) -> list[Tree]:
    edges = {_EDGES[word]: limit for word, limit in key.bounds}
    reference: Tree = {"type": "string", "pattern": _REFERENCE}
    match key.kind:
        case "integer":
            return [{"type": "integer", **edges}, reference]
        case "number":
            return [{"type": "number", **edges}, reference]
        case "duration":
            return [{"type": "number", **edges}, {"type": "string", "pattern": _PATTERNS["duration"]}, reference]
        case "size":
            return [{"type": "integer", **edges}, {"type": "string", "pattern": _PATTERNS["size"]}, reference]
        case "choice":
            return [{"enum": list(key.choices)}, reference]
        case "flag":
            return [{"type": "boolean"}, reference]
        case "list":
            return [{"type": "array", "items": {"type": "string"}}, reference]
        case "mapping":
            return [{"type": "object"}]
        case _:
            return [{"type": "string", "minLength": 1}]


def _remote_scheduling() -> Tree:
    made = {**_group("A forerunner's block: its endpoints are backends, its rules `remote.*`, its checks `health.interval`."), **_OLD}
    endpoint = _group("One endpoint: an `openai` backend.")
    endpoint["properties"] = {name: {} for name in remote_scheduling.ENDPOINT}
    made["properties"] = {name: {} for name in ("enabled", *remote_scheduling.RULES)}
    made["properties"]["endpoints"] = {"type": ["array", "null"], "items": endpoint | {"required": ["name", "base_url"]}}
    return made | {"type": ["object", "null"]}


def _forerunners(row: legacy.Row) -> Tree:
    # What a forerunner allowed is wider than our type (`warn`, nanoseconds, 0 for none): the loader checks it.
    remark = f" ({row.note})" if row.note else ""
    return {"description": f"A forerunner's name of {row.key}{remark}.", **_OLD, "type": ["string", "number", "null"]}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(document(), encoding="utf-8")
