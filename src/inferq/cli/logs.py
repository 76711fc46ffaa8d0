"""Where log lines go and how they look: on stderr or in a file, as text for people or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inferq.config import LogSettings

_NAME: Final = "inferq.cli"
_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def start(settings: LogSettings, *, verbose: int = 0, service: bool = False) -> None:
    """Log as the settings say; -v shows info and -vv everything. A command that is no service keeps quiet below a warning."""
    handler: logging.Handler
    if settings.file is not None:
        handler = logging.FileHandler(settings.file, encoding="utf-8", delay=True)
    else:
        handler = logging.StreamHandler(sys.stderr)
    people = settings.format == "text" or (settings.format == "auto" and settings.file is None and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if people or verbose else JsonFormatter())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    if not service and settings.file is None:
        level = max(level, logging.WARNING)
    if verbose:
        level = min(level, logging.INFO if verbose == 1 else logging.DEBUG)
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _NAME]:
        root.removeHandler(old)
        old.close()
    handler.set_name(_NAME)  # so that a second start replaces it
    root.addHandler(handler)
    logging.getLogger("inferq").setLevel(level)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, whatever else was given, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the rest as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        said = " ".join(f"{name}={value}" for name, value in _extras(record).items())
        return f"{super().formatMessage(record)} {said}".rstrip()
