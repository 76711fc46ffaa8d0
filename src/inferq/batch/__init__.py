"""Batches: files read line by line, what their lines mean, and a batch's counts and states. Pure."""

from inferq.batch.forms import BadForm, Form, template
from inferq.batch.reading import MAX_LINE, Line, LineError, Reader
from inferq.batch.record import Batch, BatchFailures, BatchItem, BatchLine, BatchState, NewBatch

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
