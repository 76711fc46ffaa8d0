"""The truth could not be read or written."""

from __future__ import annotations

from inferq.errors.base import InferqError


class StoreError(InferqError):
    """The store could not be opened, read or written."""

    code = "store"
    status = 503


class StoreLocked(StoreError):
    """Another process held the write lock for longer than the store is willing to wait."""

    code = "store_locked"
    retryable = True


class StoreFull(StoreError):
    """The disk is full; nothing of the refused command was stored."""

    code = "store_full"
    status = 507
    retryable = True


class StoreRefused(StoreError):
    """What was to be kept breaks a rule of the store: asking again cannot help. Nothing of the refused command was stored."""

    code = "store_refused"
    status = 500


class StoreReadOnly(StoreError):
    """The store's file or directory cannot be written."""

    code = "store_read_only"


class StoreDamaged(StoreError):
    """The file is not a usable database."""

    code = "store_damaged"


class SchemaTooNew(StoreError):
    """The file was written by a newer inferq."""

    code = "schema_too_new"


class StoreClosed(StoreError):
    """The store was closed; the command was not carried out."""

    code = "store_closed"
