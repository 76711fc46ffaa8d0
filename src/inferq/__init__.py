"""The durable queue in front of your LLMs. Names load on first use, so that `import inferq` costs next to nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferq.batch import Batch, BatchItem, BatchState
    from inferq.client import AsyncClient
    from inferq.clock import Clock, Now
    from inferq.config import BackendSettings, Settings
    from inferq.engine import Backend
    from inferq.errors import (
        ApiError,
        BatchExists,
        BatchInvalid,
        BatchNotFound,
        ClaimLost,
        ConfigError,
        Conflict,
        ConnectFailed,
        ConnectionLost,
        DuplicateKey,
        Forbidden,
        InferqError,
        InvalidQuery,
        InvalidSignature,
        InvalidTask,
        ProtocolError,
        QueueFull,
        RateLimited,
        RecordNotFound,
        Reject,
        RequestTimeout,
        RetryLater,
        StoreError,
        TaskCancelled,
        TaskError,
        TaskFailed,
        TaskNotFound,
        TransportError,
        Unauthenticated,
        Unavailable,
        WaitTimeout,
        WrongState,
    )
    from inferq.events import Event
    from inferq.executor import Answer, Call, Chunk, Executor, Health, Usage
    from inferq.handle import AsyncHandle
    from inferq.opening import aconnect, connect
    from inferq.queue import AsyncQueue, QueueStats
    from inferq.schedule import Schedule
    from inferq.store import Filter, LoggedChunk, Page, Position
    from inferq.sync.client import Client
    from inferq.sync.handle import Handle
    from inferq.sync.queue import Queue
    from inferq.task import State, Submission, Task, TaskResult
    from inferq.webhook import verify_webhook

_HOME = {
    "inferq.client": ("AsyncClient",),
    "inferq.clock": ("Clock", "Now"),
    "inferq.batch": ("Batch", "BatchItem", "BatchState"),
    "inferq.config": ("BackendSettings", "Settings"),
    "inferq.engine": ("Backend",),
    "inferq.errors": (
        "ApiError",
        "BatchExists",
        "BatchInvalid",
        "BatchNotFound",
        "ClaimLost",
        "ConfigError",
        "Conflict",
        "ConnectFailed",
        "ConnectionLost",
        "DuplicateKey",
        "Forbidden",
        "InferqError",
        "InvalidQuery",
        "InvalidSignature",
        "InvalidTask",
        "ProtocolError",
        "QueueFull",
        "RateLimited",
        "RecordNotFound",
        "Reject",
        "RequestTimeout",
        "RetryLater",
        "StoreError",
        "TaskCancelled",
        "TaskError",
        "TaskFailed",
        "TaskNotFound",
        "TransportError",
        "Unauthenticated",
        "Unavailable",
        "WaitTimeout",
        "WrongState",
    ),
    "inferq.events": ("Event",),
    "inferq.executor": ("Answer", "Call", "Chunk", "Executor", "Health", "Usage"),
    "inferq.handle": ("AsyncHandle",),
    "inferq.opening": ("aconnect", "connect"),
    "inferq.queue": ("AsyncQueue", "QueueStats"),
    "inferq.schedule": ("Schedule",),
    "inferq.store": ("Filter", "LoggedChunk", "Page", "Position"),
    "inferq.sync.client": ("Client",),
    "inferq.sync.handle": ("Handle",),
    "inferq.sync.queue": ("Queue",),
    "inferq.task": ("State", "Submission", "Task", "TaskResult"),
    "inferq.webhook": ("verify_webhook",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "AsyncHandle",
    "AsyncQueue",
    "Backend",
    "BackendSettings",
    "Batch",
    "BatchExists",
    "BatchInvalid",
    "BatchItem",
    "BatchNotFound",
    "BatchState",
    "Call",
    "Chunk",
    "ClaimLost",
    "Client",
    "Clock",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "DuplicateKey",
    "Event",
    "Executor",
    "Filter",
    "Forbidden",
    "Handle",
    "Health",
    "InferqError",
    "InvalidQuery",
    "InvalidSignature",
    "InvalidTask",
    "LoggedChunk",
    "Now",
    "Page",
    "Position",
    "ProtocolError",
    "Queue",
    "QueueFull",
    "QueueStats",
    "RateLimited",
    "RecordNotFound",
    "Reject",
    "RequestTimeout",
    "RetryLater",
    "Schedule",
    "Settings",
    "State",
    "StoreError",
    "Submission",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskNotFound",
    "TaskResult",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "WaitTimeout",
    "WrongState",
    "aconnect",
    "connect",
    "verify_webhook",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'inferq' has no attribute {name!r}")
    value = getattr(import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
