"""The table of routes in docs/server.md, made from the routes: `python -m inferq.server.reference docs/server.md`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from inferq.server.routes import ROUTES

BEGIN: Final = "<!-- routes -->\n"
END: Final = "<!-- end of routes -->\n"


def table() -> str:
    """All routes with their roles, in the order in which they are declared."""
    rows = [f"| `{entry.method} {entry.path}` | {'-' if entry.open else entry.role} | {entry.summary.rstrip('.')} |" for entry in ROUTES]
    return "\n".join(["| route | role | what |", "|---|---|---|", *rows]) + "\n"


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(renewed(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
