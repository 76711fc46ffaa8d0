"""An option with its heading in the help. Knows no command, so that whatever makes options may import it."""

from __future__ import annotations

from typing import Any

import click


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str = "Options", **attrs: Any) -> None:
        self.section = section
        super().__init__(*args, **attrs)
