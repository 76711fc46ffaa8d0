"""The text of a file that somebody named: a regular file of a bounded size, in UTF-8."""

from __future__ import annotations

import stat
from pathlib import Path


class Unreadable(Exception):
    """Why there is no text: a clause that goes on after the file's name, such as `is no regular file`."""


def text_of(path: Path, *, most: int) -> str:
    """The file's text, without a byte order mark. Raises Unreadable, also for more than `most` bytes; it never quotes the contents."""
    try:
        # A pipe or a device would keep the program waiting for ever.
        if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise Unreadable("is no regular file")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if len(raw) > most:
        raise Unreadable(f"is larger than {most:,} bytes; is it the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 text (byte {error.start})") from None
