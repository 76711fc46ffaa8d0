"""What a run found: one row a comparison, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """One line of the table. `ratio` is inferq over the other where more is better, the other way round where less is better,
    so that a larger ratio is always better for inferq. `met` None: there is no goal, or it was not judged."""

    scenario: str
    what: str
    figure: float | None
    unit: str
    against: str = ""
    other: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def skipped(scenario: str, what: str, why: str) -> Row:
    """A comparison that could not be made; it is shown, never left out silently."""
    return Row(scenario, what, None, "", note=f"SKIPPED: {why}")


HEADINGS = ("scenario", "inferq", "against", "ratio", "goal", "met?")


def cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    against = row.against if row.other is None else f"{row.against} {number(row.other)}"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
    figure = row.note if row.figure is None else f"{number(row.figure)} {row.unit}"
    return row.what, figure, against or "-", ratio, row.goal or "-", met


def number(value: float) -> str:
    """Three significant digits or so, with separators: 148,000 / 12.4 / 0.085."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def table(rows: list[Row]) -> str:
    lines = [HEADINGS, *(cells(row) for row in rows)]
    # A note of a skipped row may be long: it does not widen its column.
    widths = [max(len(line[at]) for line in lines if at != 1 or len(line[at]) < 30) for at in range(len(HEADINGS))]
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    shown.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"  {row.what}: {row.note}" for row in rows if row.note and row.figure is not None]
    return "\n".join([*shown, *(["", "notes", *notes] if notes else [])])


def save(path: Path, rows: list[Row], *, mode: str, seconds: float) -> None:
    document = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": mode,
        "seconds": round(seconds, 1),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{platform.system()} {platform.machine()}",
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
