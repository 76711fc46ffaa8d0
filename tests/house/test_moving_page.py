"""docs/moving.md is true: its commands run, in the order they stand there."""

from __future__ import annotations

from pages import Desk, Page

PAGE = Page("moving.md")


def test_the_commands_run_and_carry_a_task_over(desk: Desk) -> None:
    (commands,) = PAGE.blocks("sh")
    new = desk.folder / "new.db"
    first = "inferq submit chat --executor echo --model m hello -q\n"
    last = f"inferq --store {new} list -q\n"
    told = desk.command(f"set -e\n{first}{commands.replace('/srv/new.db', str(new))}{last}").splitlines()
    assert told[0] == told[-1]
