"""Configuration: one frozen tree, read from files, environment and arguments, which can say where each value came from.

A setting's way: `settings.py` is the tree, `key.py` the table of keys that is read off it. `files.py` and `entries.py` turn files,
variables and arguments into entries with their source, `legacy.py` and `remote_scheduling.py` those of the forerunners; `loading.py`
merges them and collects every mistake. `reload.py` says which keys a running process takes over. `reference.py`, `schema.py` and
`template.py` write the table for people, editors and the first file.

Names load on first use: whoever asks a server needs a few of them only, and its start is what a command line feels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferq.config.files import Places
    from inferq.config.key import Key, keys
    from inferq.config.loading import Loaded, load
    from inferq.config.reload import Changes, changes
    from inferq.config.saving import save
    from inferq.config.secret import Secret, looks_secret
    from inferq.config.settings import (
        DEFAULT_BACKENDS,
        BackendSettings,
        BreakerSettings,
        HealthSettings,
        LogSettings,
        RemoteSettings,
        RetentionSettings,
        RetrySettings,
        ServerSettings,
        Settings,
        StateRetention,
        StoreSettings,
        WebhookSettings,
        WorkerSettings,
        display,
    )
    from inferq.config.source import Source

_HOME = {
    "inferq.config.files": ("Places",),
    "inferq.config.key": ("Key", "keys"),
    "inferq.config.loading": ("Loaded", "load"),
    "inferq.config.reload": ("Changes", "changes"),
    "inferq.config.saving": ("save",),
    "inferq.config.secret": ("Secret", "looks_secret"),
    "inferq.config.settings": (
        "DEFAULT_BACKENDS",
        "BackendSettings",
        "BreakerSettings",
        "HealthSettings",
        "LogSettings",
        "RemoteSettings",
        "RetentionSettings",
        "RetrySettings",
        "ServerSettings",
        "Settings",
        "StateRetention",
        "StoreSettings",
        "WebhookSettings",
        "WorkerSettings",
        "display",
    ),
    "inferq.config.source": ("Source",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "DEFAULT_BACKENDS",
    "BackendSettings",
    "BreakerSettings",
    "Changes",
    "HealthSettings",
    "Key",
    "Loaded",
    "LogSettings",
    "Places",
    "RemoteSettings",
    "RetentionSettings",
    "RetrySettings",
    "Secret",
    "ServerSettings",
    "Settings",
    "Source",
    "StateRetention",
    "StoreSettings",
    "WebhookSettings",
    "WorkerSettings",
    "changes",
    "display",
    "keys",
    "load",
    "looks_secret",
    "save",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'inferq.config' has no attribute {name!r}")
    value = getattr(import_module(where), name)
    globals()[name] = value
    return value
