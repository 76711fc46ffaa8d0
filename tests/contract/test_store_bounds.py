"""Listings of the SQLite store when every bound is hit (indexes merged, walked piece by piece, short pages) find the same."""

from __future__ import annotations

import pytest

from inferq.query import Search, matches
from inferq.stores import open_store
from inferq.stores.sqlite import listing, sources
from inferq.testing import FakeClock
from inferq.testing.contract_find import _Chance, asked, pages
from inferq.testing.peer import Peer


@pytest.mark.parametrize("dense", [0.0, 0.1, 2.0])
async def test_small_bounds_change_no_answer(monkeypatch: pytest.MonkeyPatch, dense: float) -> None:
    monkeypatch.setattr(sources, "FEW", -1)
    monkeypatch.setattr(sources, "_DENSE", dense)
    monkeypatch.setattr(sources, "_BLOCK", 3)
    monkeypatch.setattr(sources, "_MANY", 2)
    monkeypatch.setattr(listing, "_FIRST", 2)
    for name, bound in (("BOUND", 7), ("HINTED_BOUND", 5), ("DECODED_BOUND", 4)):
        monkeypatch.setattr(listing, name, bound)
    clock = FakeClock()
    store = await open_store("sqlite://:memory:", clock=clock)
    try:
        here, chance = Peer(store, clock), _Chance(17)
        await chance.lives(here)
        everything = await pages(here, Search())
        for _ in range(80):
            text = chance.filter(everything)
            question = asked(here, text)
            found = await pages(here, question, limit=chance.pick.choice([1, 3, 1000]))
            assert [task.id for task in found] == [task.id for task in everything if matches(task, question)], text
    finally:
        await store.close()
