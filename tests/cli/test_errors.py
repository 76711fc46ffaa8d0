"""A mistake is one line on stderr that says what to do, with the documented exit code and no traceback."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("lst",), "did you mean `inferq list`?"),
        (("submit", "chatt"), "did you mean `inferq submit chat`?"),
        (("db", "bakup"), "did you mean `inferq db backup`?"),
        (("zzzz",), "`inferq --help` lists the commands"),
        (("list", "--stauts", "failed"), "--status"),
        (("list", "--status", "done"), "completed"),
        (("list", "--limit", "-1"), "-1"),
        (("list", "--since", "soon"), "2h"),
        (("tail", "x", "--from", "5"), "ATTEMPT-INDEX"),
        (("completion", "tcsh"), "bash"),
        (("cancel",), "ID"),
    ],
)
def test_a_typing_error_is_one_line_with_code_2_and_help(cli: Any, args: tuple[str, ...], said: str) -> None:
    ran = cli(*args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "inferq" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_store_that_is_a_directory_is_refused(cli: Any, home: Path) -> None:
    (home / "folder").mkdir()
    ran = cli("--url", str(home / "folder"), "list")
    assert ran.code in (4, 7)
    assert str(home / "folder") in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_store_that_is_another_file_is_refused_and_left_alone(cli: Any, home: Path) -> None:
    other = home / "letter.txt"
    other.write_text("Dear reader, " * 1000)
    before = other.read_bytes()
    ran = cli("--url", str(other), "list")
    assert (ran.code, ran.out) == (7, "")
    assert "letter.txt" in ran.err
    assert other.read_bytes() == before


def test_a_store_of_a_newer_version_is_refused(cli: Any, home: Path) -> None:
    assert cli("status").code == 0
    with sqlite3.connect(home / "queue.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    ran = cli("list")
    assert (ran.code, ran.out) == (7, "")
    assert "newer" in ran.err


def test_a_place_where_nothing_can_be_written_is_refused(cli: Any) -> None:
    ran = cli("--url", "/proc/queue.db", "list")
    assert ran.code in (4, 7)
    assert "/proc" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_unknown_kind_of_store_is_refused(cli: Any) -> None:
    ran = cli("--url", "postgres://host/db", "list")
    assert ran.code == 2
    assert "postgres://host/db" in ran.err


def test_a_wrong_setting_names_its_file_and_is_no_traceback(cli: Any, home: Path) -> None:
    (home / "bad.toml").write_text("[worker]\nslotz = 3\n")
    ran = cli("--config", "bad.toml", "list")
    assert ran.code == 2
    assert "bad.toml" in ran.err
    assert "slotz" in ran.err
    assert "Traceback" not in ran.err


def test_debug_raises_the_error_with_its_traceback(cli: Any) -> None:
    from inferq.errors import TaskNotFound

    with pytest.raises(TaskNotFound):
        cli("show", "nope", "--debug")


def test_a_full_queue_is_rejected_with_9(cli: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("[store]\nmax_queue_size = 1\n")
    submit = ("submit", "chat", "--executor", "echo", "--model", "m", "x", "-q")
    assert cli(*submit).code == 0
    ran = cli(*submit)
    assert (ran.code, ran.out) == (9, "")


def test_an_existing_file_is_never_overwritten_by_a_backup(cli: Any, home: Path) -> None:
    (home / "precious.db").write_text("precious")
    ran = cli("db", "backup", "precious.db")
    assert ran.code == 2
    assert (home / "precious.db").read_text() == "precious"
