"""Tables on a terminal, which is narrow: nothing is cut while there is another way to show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_GAP: Final = 2
_LEAST: Final = 20
"""Cells that the longest column needs at least to go on in lines of its own width; with fewer it stands below each row."""
_INDENT: Final = 4

Rows = Sequence[Sequence[str]]


def draw(console: Console, titles: Sequence[str], rows: Rows) -> None:
    """As wide as the terminal. Columns that are empty in every row are left out; the first names the thing and is never cut: people copy
    it. What does not fit of the longest column goes on in lines below, or below the row; only where that is not enough others are cut."""
    from rich.cells import cell_len

    kept = [at for at in range(len(titles)) if not rows or any(row[at] for row in rows)]
    titles, rows = [titles[at] for at in kept], [[row[at] for at in kept] for row in rows]
    widths = [max(cell_len(text) for text in (title, *(row[at] for row in rows))) for at, title in enumerate(titles)]
    longest = max(range(len(widths)), key=lambda at: (at > 0, widths[at]))
    others = sum(widths) - widths[longest] + _GAP * (len(widths) - 1)
    left = console.width - others
    if longest == 0 or left >= widths[longest]:
        _columns(console, titles, rows, widths)
    elif left >= _LEAST:
        _columns(console, titles, rows, widths, wrapped=longest, room=left)
    else:
        _below(console, titles, rows, _cut(widths, longest, others - _GAP - console.width), longest)


def _columns(
    console: Console, titles: Sequence[str], rows: Rows, widths: Sequence[int], *, wrapped: int | None = None, room: int | None = None
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        if at == wrapped:
            table.add_column(title, overflow="fold", max_width=room)
        else:
            table.add_column(title, no_wrap=True, min_width=widths[at])
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _cut(widths: Sequence[int], longest: int, excess: int) -> list[int]:
    """So many cells less, from the widest of the columns beside the longest and the first."""
    cut = list(widths)
    others = [at for at in range(1, len(cut)) if at != longest]
    for _ in range(excess if others else 0):
        cut[max(others, key=lambda at: cut[at])] -= 1
    return [max(1, width) for width in cut]


def _below(console: Console, titles: Sequence[str], rows: Rows, widths: Sequence[int], longest: int) -> None:
    """The longest column's text under its row."""
    from rich.cells import cell_len, set_cell_size
    from rich.padding import Padding
    from rich.text import Text

    def fit(text: str, width: int) -> str:
        return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"

    def line(row: Sequence[str]) -> str:
        return (" " * _GAP).join(fit(text, widths[at]) for at, text in enumerate(row) if at != longest).rstrip()

    console.print(Text(line(titles), style="bold"))
    for row in rows:
        console.print(Text(line(row)))
        if row[longest]:
            console.print(Padding(Text(row[longest], style="dim"), (0, 0, 0, _INDENT)))
