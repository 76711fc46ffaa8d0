"""What properties of the wire are drawn from: JSON values, and places to cut bytes at."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
places = st.lists(st.integers(0, 10_000), max_size=20)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces, cut at these places (taken modulo the length)."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def split(text: str, at: list[int]) -> list[str]:
    marks = sorted({place % (len(text) + 1) for place in at} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(marks)]
