"""Configuration: one frozen tree, read from files, environment and arguments, which can say where each value came from."""

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
