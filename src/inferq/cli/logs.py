"""Where log lines go and how they look: on stderr or in a file, as text for people or JSON for machines; never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Any, Final

from inferq.cli.output import safe, say

if TYPE_CHECKING:
    from inferq.config import LogSettings, Settings

_NAME: Final = "inferq.cli"
_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_EVENT = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
_LEAST_SECRET: Final = 6
"""Characters: shorter texts would mask half of every line."""


def start(settings: LogSettings, *, verbose: int = 0, service: bool = False, secrets: Iterable[str] = ()) -> None:
    """Log as the settings say; -v shows info and -vv everything. A command that is no service keeps quiet below a warning.

    `secrets` are texts that no line may hold. A second call replaces what the first set up.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.file is not None:
        handler = LogFile(settings.file, encoding="utf-8", delay=True)
    people = settings.format == "text" or (settings.format == "auto" and settings.file is None and sys.stderr.isatty())
    if settings.format == "auto" and verbose and not service:
        people = True
    handler.setFormatter((TextFormatter if people else JsonFormatter)(secrets))
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _NAME]:
        root.removeHandler(old)
        old.close()
    handler.set_name(_NAME)  # so that a second start replaces it
    root.addHandler(handler)
    logging.getLogger("inferq").setLevel(level_of(settings, verbose=verbose, service=service))


class LogFile(WatchedFileHandler):
    """A file that is opened anew when it was rotated away. Where it cannot be written (a full disk) lines are lost, never the work: it
    is said once on stderr, and in the file when there is room again."""

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        before = self._lost
        try:
            super().emit(record)
        except OSError:  # of opening, or of closing what was rotated away
            self.handleError(record)
        if before and self._lost == before:
            self._lost = 0
            logging.getLogger("inferq.log").warning("log.lines_lost", extra={"count": before})

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        stream, self.stream = self.stream, None
        with suppress(OSError):
            if stream is not None:
                stream.close()
        if not self._lost:
            say(f"inferq: the log {self.baseFilename} cannot be written: {error.strerror or error}; lines are lost until it can")
        self._lost += 1


def level_of(settings: LogSettings, *, verbose: int, service: bool) -> int:
    """The least level that is written."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    if not service and settings.file is None:
        level = max(level, logging.WARNING)
    return min(level, logging.INFO if verbose == 1 else logging.DEBUG) if verbose else level


def secrets_of(settings: Settings) -> set[str]:
    """Every secret of the backends in plain text, to keep them out of the log."""
    from inferq.config.secret import secret_texts

    return {text for backend in settings.backends for text in secret_texts(backend.settings)}


class _Masking(logging.Formatter):
    """A formatter whose lines hold no secret, wherever in an error or an address it came from."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        known = {form for text in secrets if len(text) >= _LEAST_SECRET for form in (text, json.dumps(text, ensure_ascii=False)[1:-1])}
        self._secret = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True)))) if known else None

    def format(self, record: logging.LogRecord) -> str:
        from inferq.config.secret import masked

        line = self.line(record)
        return str(masked(line if self._secret is None else self._secret.sub("***", line)))

    def line(self, record: logging.LogRecord) -> str:
        return super().format(record)


def extras(record: logging.LogRecord) -> dict[str, object]:
    """What a line was given beside its text."""
    return {name: value for name, value in vars(record).items() if name not in _USUAL and value not in (None, "")}


class JsonFormatter(_Masking):
    """One JSON object a line: ts (RFC 3339, UTC), level, logger, msg, event, whatever else was given, and the traceback.

    Names that a line may have: event task_id batch_id backend model attempt code duration_s request_id key_id. Durations are seconds.
    """

    def line(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": message,
        }
        if _EVENT.fullmatch(message):
            line["event"] = message
        line |= extras(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(_Masking):
    """Time, level and message, then the rest as name=value; of a line that is a sentence already, the sentence."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        said = extras(record)
        where = said.pop("traceback", "")
        if "event" in said:
            said = {}
        line = f"{super().formatMessage(record)} {' '.join(f'{name}={value}' for name, value in said.items())}".rstrip()
        return safe(f"{line}\n{where}".rstrip() if where else line)


def fields(**given: Any) -> dict[str, Any]:
    """The extras of a line: those that have a value."""
    return {name: value for name, value in given.items() if value not in (None, "")}
