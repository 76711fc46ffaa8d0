"""docs/schedules.md is true: its program and its commands run, in the order they stand there."""

from __future__ import annotations

from pathlib import Path

from pages import Desk, Page

PAGE = Page("schedules.md")


def test_the_program_runs(desk: Desk) -> None:
    (program,) = PAGE.blocks("python")
    *fires, states = desk.program(program)
    assert len(fires) == 5
    assert all("T09:00:00+0" in fire for fire in fires)
    assert states == "[]"


def test_the_commands_run(tmp_path: Path, desk: Desk) -> None:
    (tmp_path / "crons.toml").write_text(PAGE.blocks("toml")[0])
    lines = PAGE.commands()
    assert len(lines) == 12
    for line in lines:
        desk.command(line)
