"""Configuration: one frozen tree, read from files, environment and arguments, which can say where each value came from."""

from inferq.config.files import Places
from inferq.config.key import Key, keys
from inferq.config.loading import Loaded, load
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
    WorkerSettings,
    display,
)
from inferq.config.source import Source

__all__ = [
    "DEFAULT_BACKENDS",
    "BackendSettings",
    "BreakerSettings",
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
    "WorkerSettings",
    "display",
    "keys",
    "load",
    "looks_secret",
    "save",
]
