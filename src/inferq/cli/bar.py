"""One line of progress on stderr: drawn over on a terminal, a line now and then where stderr is a file. For batches it is a bar."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from inferq.cli.app import App
from inferq.cli.output import safe, say

if TYPE_CHECKING:
    from inferq.door.batches import Progress

_WIDTH = 24
_TERMINAL_STEP, _FILE_STEP = 0.2, 5.0


class Meter:
    """Shows how far something is; nothing where the user wants none."""

    def __init__(self, app: App) -> None:
        self._terminal = app.redraws
        self._shown = app.progress
        self._drawn = False
        self._last = 0.0
        self.every = _TERMINAL_STEP if self._terminal else 0.5

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def line(self, text: str, *, last: bool = False) -> None:
        """How far it is now. Where nothing can be drawn over it is told every few seconds, and the last time."""
        if not self._shown:
            return
        now = time.monotonic()
        if self._terminal:
            if not last and self._drawn and now - self._last < _TERMINAL_STEP / 2:
                return
            sys.stderr.write(f"\r\x1b[2K{safe(text)}")
            sys.stderr.flush()
            self._drawn = True
        elif last or now - self._last >= _FILE_STEP:
            say(text)
        else:
            return
        self._last = now

    def say(self, text: str) -> None:
        """A line of its own, above the progress."""
        self._clear()
        say(text)

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False


class Bar(Meter):
    """The progress of a batch."""

    def show(self, step: Progress) -> None:
        self.line(line_of(step), last=step.batch.ended)


def line_of(step: Progress) -> str:
    """Done, failed, rate, tokens and the time that is left, in one line."""
    share = step.done / step.total if step.total else 1.0
    filled = int(share * _WIDTH)
    left = "" if step.eta is None or step.batch.ended else f"  ETA {step.eta}"
    state = f"  {step.batch.state}" if step.batch.state in ("paused", "cancelled", "open") else ""
    return (
        f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {step.done:,}/{step.total:,}  failed {step.failed:,}  {step.rate:.1f}/s  "
        f"{step.tokens_per_second:.0f} tok/s{left}{state}"
    )
