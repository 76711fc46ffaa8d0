"""docs/troubleshooting.md quotes what the program really says, and names codes, commands and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, Desk, Page

from inferq.config.key import keys
from inferq.errors import FAILURE_CODES

PAGE = Page("troubleshooting.md")
SOURCE = "\n".join(path.read_text() for path in sorted((Path(__file__).parents[2] / "src").rglob("*.py")))
ROWS = [line.strip("|").split(" | ") for line in PAGE.text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("command", PAGE.commands())
def test_each_command_runs(desk: Desk, command: str) -> None:
    desk.command(command)


def test_what_is_quoted_is_said_by_the_program() -> None:
    quoted = [text for row in ROWS for text in re.findall(r"`([^`]+)`", row[0]) if " " in text and not text.startswith("inferq ")]
    assert len(quoted) >= 15
    assert [text for text in quoted if text not in SOURCE] == []


def test_the_codes_and_settings_exist() -> None:
    codes = {text for row in ROWS for text in re.findall(r"`([a-z_]+)`", row[0])}
    assert codes <= FAILURE_CODES
    known = {key.name for key in keys()}
    named = set(re.findall(r"`((?:worker|server|log|store|retry)\.[a-z_.]+)", PAGE.text))
    assert {name for name in named if name not in known} == set()


def test_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", PAGE.text):
        text = (DOCS / target).read_text()
        headings = {
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")
        }
        assert not anchor or anchor in headings, (target, anchor)
