"""Batches: files read line by line, what their lines mean, and a batch's counts and states. Pure.

Names load on first use: every queue knows the words of a batch, few read files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferq.batch.forms import BadForm, Form, template
    from inferq.batch.reading import MAX_LINE, Line, LineError, Reader
    from inferq.batch.record import Batch, BatchFailures, BatchItem, BatchLine, BatchState, NewBatch

_HOME = {
    "inferq.batch.forms": ("BadForm", "Form", "template"),
    "inferq.batch.reading": ("MAX_LINE", "Line", "LineError", "Reader"),
    "inferq.batch.record": ("Batch", "BatchFailures", "BatchItem", "BatchLine", "BatchState", "NewBatch"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "MAX_LINE",
    "BadForm",
    "Batch",
    "BatchFailures",
    "BatchItem",
    "BatchLine",
    "BatchState",
    "Form",
    "Line",
    "LineError",
    "NewBatch",
    "Reader",
    "template",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'inferq.batch' has no attribute {name!r}")
    value = getattr(import_module(where), name)
    globals()[name] = value
    return value
