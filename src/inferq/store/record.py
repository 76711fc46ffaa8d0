"""Small objects that change rarely, kept by version."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True):
    """A small object that changes rarely (a schedule, a key, a webhook...): JSON in `body`. Each change makes `version` one more;
    a new one begins past every version that a dropped record of its kind had, so that a version never stands for two of them."""

    kind: str
    id: str
    version: int
    body: bytes
    created: int
    updated: int


class RecordPut(msgspec.Struct, frozen=True):
    """A record to be put. `version` None: create or replace; 0: it must be new; else it must be at that version now. `quiet` puts it
    without an event: for what is looked at when somebody asks, and would fill the log."""

    kind: str
    id: str
    body: bytes
    version: int | None = None
    quiet: bool = False
