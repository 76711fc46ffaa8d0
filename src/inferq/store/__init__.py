"""What a store must do: the contract that queue and engine are written against, and that any store can prove with `inferq.testing`.

Every method is a transition or a question of the domain. Time is an argument (`Now`). A method that writes has committed, at the
store's durability, when it returns. Whoever holds a `Claim` and lost it is refused with `ClaimLost` and changes nothing.
"""

from __future__ import annotations

from inferq.store.batches import BatchFilter
from inferq.store.change import Change, Grown, Listener, LoggedChunk, Position
from inferq.store.contract import Store
from inferq.store.figures import Ahead, Compacted, Counts, Executed, Retention, StoreStats
from inferq.store.listing import Cursor, Filter, Page, Where, checked_cursor, page_size, query_of
from inferq.store.record import Record, RecordPut

__all__ = [
    "Ahead",
    "BatchFilter",
    "Change",
    "Compacted",
    "Counts",
    "Cursor",
    "Executed",
    "Filter",
    "Grown",
    "Listener",
    "LoggedChunk",
    "Page",
    "Position",
    "Record",
    "RecordPut",
    "Retention",
    "Store",
    "StoreStats",
    "Where",
    "checked_cursor",
    "page_size",
    "query_of",
]
