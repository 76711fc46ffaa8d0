"""Log settings and -v have an effect, and the log never mixes with data."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq.cli import logs
from inferq.config import LogSettings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    level, handlers = logging.getLogger("inferq").level, [*logging.getLogger().handlers]
    yield
    logging.getLogger("inferq").setLevel(level)
    for handler in logging.getLogger().handlers[:]:
        if handler not in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def write() -> None:
    log = logging.getLogger("inferq.test")
    log.debug("one.debug")
    log.info("one.info", extra={"task_id": "a b"})
    log.warning("one.warning")


def test_a_file_gets_json_lines_of_the_level_and_above(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs.start(LogSettings(level="info", file=str(tmp_path / "log")))
    write()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["message"], line["level"]) for line in lines] == [("one.info", "info"), ("one.warning", "warning")]
    assert (lines[0]["task_id"], lines[0]["logger"]) == ("a b", "inferq.test")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("service", "verbose", "expected"),
    [
        (False, 0, ["one.warning"]),
        (True, 0, ["one.info", "one.warning"]),
        (False, 1, ["one.info", "one.warning"]),
        (False, 2, ["one.debug", "one.info", "one.warning"]),
    ],
)
def test_stderr_gets_what_the_command_and_v_ask_for(
    service: bool, verbose: int, expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    logs.start(LogSettings(format="text"), verbose=verbose, service=service)
    write()
    out, err = capfd.readouterr()
    assert out == ""
    assert [word for line in err.splitlines() for word in line.split() if word.startswith("one.")] == expected


def test_starting_again_replaces_the_log(tmp_path: Path) -> None:
    logs.start(LogSettings(file=str(tmp_path / "first")))
    logs.start(LogSettings(file=str(tmp_path / "second")))
    write()
    assert not (tmp_path / "first").exists()
    assert len((tmp_path / "second").read_text().splitlines()) == 2


def test_a_traceback_is_part_of_its_line(tmp_path: Path) -> None:
    logs.start(LogSettings(file=str(tmp_path / "log")))
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("inferq.test").exception("it.failed")
    [line] = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    assert "ValueError: inside" in line["traceback"]
