"""The forerunners' block `remote_scheduling` in our words: its endpoints are backends, its rules `remote.*`, its checks `health.*`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from inferq.config.settings import DEFAULT_BACKENDS

NAME: Final = "remote_scheduling"
RULES: Final = {
    "fallback_to_local": ("remote", "fallback_to_local"),
    "max_local_queue_size": ("remote", "max_local_queue"),
    "local_first_policy": ("remote", "local_first"),
    "health_check_interval": ("health", "interval"),
}
ENDPOINT: Final = ("name", "base_url", "api_key", "priority", "enabled")


def translated(data: Mapping[Any, Any], problems: list[str]) -> Mapping[Any, Any]:
    """The file's tree with the block replaced by what it means; as it is when it has none. Keys that the block never had are problems.

    An endpoint is an `openai` backend that also runs tasks for `ollama`. The built-in backends stay beside the endpoints: a
    forerunner had its local Ollama without saying so.
    """
    block = data.get(NAME)
    if block is None:
        return {name: value for name, value in data.items() if name != NAME} if NAME in data else data
    rest = {name: value for name, value in data.items() if name != NAME}
    if not isinstance(block, Mapping):
        problems.append(f"{NAME}: expected a group with enabled, endpoints and rules, got {type(block).__name__}")
        return rest
    problems += _unknown(block, ("enabled", "endpoints", *RULES), NAME)
    made: dict[str, dict[str, Any]] = {"remote": {"policy": "queue"} if _on(block) else {}, "health": {}}
    for name, (section, key) in RULES.items():
        if name in block:
            made[section][key] = _seconds(block[name]) if key == "interval" else block[name]
    for section, values in made.items():
        if values:
            rest[section] = values | dict(rest[section]) if isinstance(rest.get(section), Mapping) else values
    _add_backends(rest, _endpoints(block, problems))
    return rest


def _endpoints(block: Mapping[Any, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    listed = block.get("endpoints") or ()
    if not isinstance(listed, list | tuple):
        problems.append(f"{NAME}.endpoints: expected a list of endpoints, got {type(listed).__name__}")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, endpoint in enumerate(listed, 1):
        where = f"{NAME}.endpoints[{number}]"
        name = endpoint.get("name") if isinstance(endpoint, Mapping) else None
        if not isinstance(endpoint, Mapping) or not isinstance(name, str) or not endpoint.get("base_url"):
            problems.append(f"{where}: expected a group with name and base_url")
            continue
        if name in found:
            problems.append(f"{where}: two endpoints are called {name!r}; rename one of them")
        problems += _unknown(endpoint, ENDPOINT, where)
        enabled = endpoint.get("enabled", True) if _on(block) else False
        settings = {"base_url": endpoint["base_url"]} | ({"api_key": endpoint["api_key"]} if endpoint.get("api_key") else {})
        found[name] = {"executor": "openai", "serves": ["ollama"], "remote": True, "enabled": enabled, "settings": settings}
        if "priority" in endpoint:
            found[name]["priority"] = endpoint["priority"]
    return found


def _unknown(group: Mapping[Any, Any], known: tuple[str, ...], where: str) -> list[str]:
    names = sorted(set(map(str, group)) - set(known))
    return [f"{where}: the key {name!r} is not known; known here: {', '.join(known)}" for name in names]


def _on(block: Mapping[Any, Any]) -> bool:
    return str(block.get("enabled", False)).strip().lower() == "true"


def _add_backends(rest: dict[Any, Any], endpoints: dict[str, dict[str, Any]]) -> None:
    if not endpoints:
        return
    own = rest.get("backends")
    if isinstance(own, list | tuple):
        rest["backends"] = [*own, *({"name": name, **settings} for name, settings in endpoints.items())]
        return
    built_in = {backend.name: {"executor": backend.executor} for backend in DEFAULT_BACKENDS} if not own else {}
    rest["backends"] = {**built_in, **endpoints, **(own if isinstance(own, Mapping) else {})}


def _seconds(value: Any) -> Any:
    """Go writes durations into JSON as integer nanoseconds."""
    return value / 1e9 if isinstance(value, int) and not isinstance(value, bool) and value >= 100_000_000 else value
