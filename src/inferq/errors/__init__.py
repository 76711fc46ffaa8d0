"""Every error a caller can meet, as one tree; each class carries a stable code, an HTTP status and whether to try again.

InferqError
├── ConfigError                         a setting is wrong; names the setting and its source
├── PluginError                         an executor could not be loaded
├── InvalidTask                         the submission is wrong; `field` says where
│   ├── UnknownExecutor · UnknownAction
│   ├── BatchInvalid                    lines of a batch are wrong; `errors` lists them
│   └── PayloadTooLarge
├── InvalidQuery                        a filter is wrong; `position` says where
├── TaskNotFound · BatchNotFound · RecordNotFound · AmbiguousId
├── InvalidSignature                    a webhook's message is not what its sender signed
├── Conflict
│   ├── BatchExists                     another batch has that name
│   ├── DuplicateKey                    same idempotency key, other body
│   ├── StaleRecord                     somebody else changed the record meanwhile
│   └── WrongState                      the task's state forbids it
├── Rejected                            try later; `retry_after` in seconds
│   └── QueueFull · RateLimited
├── ApiError                            the server refused the request; `status` and `code` are its own
│   ├── Unauthenticated · Forbidden     no valid key; not with this key, Host or Origin
│   ├── InvalidRequest                  a body or parameter is wrong; `field` or `parameter` says where
│   └── NoSuchRoute · WrongMethod · NotAcceptable · BodyTooLarge · BodyTimeout · UnsupportedMedia
├── TransportError                      the server could not be asked, or its answer not be understood
│   └── ConnectFailed · ConnectionLost · RequestTimeout (also TimeoutError) · ProtocolError
├── StoreError                          the truth could not be read or written
│   ├── StoreLocked · StoreFull · StoreRefused · StoreReadOnly · StoreDamaged · SchemaTooNew · StoreClosed
├── ClaimLost                           the claim was superseded; `reason` says by what
├── TaskError                           a task ended without a result
│   └── TaskFailed · TaskCancelled
├── WaitTimeout (also TimeoutError)     only the waiting ended; the task goes on
└── ExecutorError                       raised by executors, turned into outcomes
    ├── RetryLater                      wait: rate limited or overloaded; burns no attempt
    ├── Unavailable                     again: connect, 5xx, cut stream; burns an attempt
    └── Reject                          now fail: asking again cannot help
        └── Untranslatable              not in this backend's words; one that speaks the task's own may run it
"""

from __future__ import annotations

from inferq.errors.base import FAILURE_CODES, ConfigError, FailureCode, InferqError, PluginError
from inferq.errors.executor import ExecutorError, Reject, RetryLater, Unavailable, Untranslatable
from inferq.errors.http import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    ConnectFailed,
    ConnectionLost,
    Forbidden,
    InvalidRequest,
    NoSuchRoute,
    NotAcceptable,
    ProtocolError,
    RequestTimeout,
    TransportError,
    Unauthenticated,
    UnsupportedMedia,
    WrongMethod,
)
from inferq.errors.queue import (
    AmbiguousId,
    BatchExists,
    BatchInvalid,
    BatchNotFound,
    Conflict,
    DuplicateKey,
    InvalidQuery,
    InvalidSignature,
    InvalidTask,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    RecordNotFound,
    Rejected,
    StaleRecord,
    TaskNotFound,
    UnknownAction,
    UnknownExecutor,
    WrongState,
)
from inferq.errors.store import SchemaTooNew, StoreClosed, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreReadOnly, StoreRefused
from inferq.errors.task import ClaimLost, TaskCancelled, TaskError, TaskFailed, WaitTimeout

__all__ = [
    "FAILURE_CODES",
    "AmbiguousId",
    "ApiError",
    "BatchExists",
    "BatchInvalid",
    "BatchNotFound",
    "BodyTimeout",
    "BodyTooLarge",
    "ClaimLost",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "DuplicateKey",
    "ExecutorError",
    "FailureCode",
    "Forbidden",
    "InferqError",
    "InvalidQuery",
    "InvalidRequest",
    "InvalidSignature",
    "InvalidTask",
    "NoSuchRoute",
    "NotAcceptable",
    "PayloadTooLarge",
    "PluginError",
    "ProtocolError",
    "QueueFull",
    "RateLimited",
    "RecordNotFound",
    "Reject",
    "Rejected",
    "RequestTimeout",
    "RetryLater",
    "SchemaTooNew",
    "StaleRecord",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreRefused",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskNotFound",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "UnknownAction",
    "UnknownExecutor",
    "UnsupportedMedia",
    "Untranslatable",
    "WaitTimeout",
    "WrongMethod",
    "WrongState",
]
