"""`inferq config`: write a file, check one, publish its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_init_writes_a_file_that_is_valid_and_changes_nothing(cli: Any, home: Path) -> None:
    before = cli("config", "show", "-o", "json").json
    ran = cli("config", "init", "-q")
    assert (ran.code, ran.out) == (0, f"{home / 'inferq.toml'}\n")
    assert cli("config", "path", "-q").out == ran.out
    after = cli("config", "show", "-o", "json").json
    assert [row["value"] for row in after] == [row["value"] for row in before]
    assert cli("config", "validate").code == 0


def test_init_overwrites_nothing_without_force(cli: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("worker.slots = 3\n")
    ran = cli("config", "init")
    assert ran.code == 6
    assert "--force" in ran.err
    assert (home / "inferq.toml").read_text() == "worker.slots = 3\n"
    assert cli("config", "init", "--force").code == 0
    assert "slots = 4" in (home / "inferq.toml").read_text()


@pytest.mark.parametrize(
    ("flags", "made"),
    [
        (["--format", "yaml"], "inferq.yaml"),
        (["deploy/settings.yml"], "deploy/settings.yml"),
        (["--user"], "config/inferq/inferq.toml"),
    ],
)
def test_init_writes_where_and_how_it_is_told(cli: Any, home: Path, flags: list[str], made: str) -> None:
    assert cli("config", "init", *flags, "-q").out.strip() == str(Path(made) if "/" in flags[0] else home / made)
    assert cli("--config", str(home / made), "config", "validate").code == 0


@pytest.mark.parametrize("flags", [["x.conf"], ["pyproject.toml"], ["x.toml", "--format", "yaml"], ["x.toml", "--user"]])
def test_init_refuses_a_place_that_cannot_be(cli: Any, home: Path, flags: list[str]) -> None:
    assert cli("config", "init", *flags).code == 2
    assert list(home.iterdir()) == []


def test_validate_reports_every_mistake_with_its_line_and_what_was_meant(cli: Any, home: Path) -> None:
    (home / "bad.toml").write_text("[worker]\nslotz = 3\nlease = 'soon'\n[log]\nlevel = 'loud'\n")
    ran = cli("config", "validate", "bad.toml", "-o", "json")
    assert ran.code == 2
    problems = sorted(record["problem"] for record in ran.json)
    assert len(problems) == 3
    assert "bad.toml:2: the key 'worker.slotz' is not known; did you mean 'worker.slots'?" in problems[0]
    assert "bad.toml:3: worker.lease: expected a duration" in problems[1]
    assert "bad.toml:5: log.level: expected one of debug, info, warning, error, got 'loud'" in problems[2]


def test_a_server_says_which_backend_names_no_executor(cli: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("[backends.a]\nexecutor = 'ecco'\n")
    ran = cli("work")
    assert (ran.code, ran.err) == (2, "inferq: backends.a.executor: no executor is called 'ecco'; did you mean echo?\n")


def test_validate_asks_the_executors_about_their_settings(cli: Any, home: Path) -> None:
    (home / "bad.toml").write_text(
        "[backends.a]\nexecutor = 'ollama'\nsettings.base_ulr = 'http://x'\n[backends.b]\nexecutor = 'nothing'\n"
        "[backends.c]\nexecutor = 'echo'\n"
    )
    ran = cli("config", "validate", "bad.toml", "-q")
    assert ran.code == 2
    first, second = ran.lines
    assert "backends.a" in first
    assert "base_ulr" in first
    assert "no executor is called 'nothing'" in second


def test_a_command_with_a_broken_file_reports_every_mistake_on_a_line_of_its_own(cli: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("[worker]\nslotz = 3\nlease = 'soon'\n")
    ran = cli("list")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 2


def test_the_schema_is_printed_as_one_json_value(cli: Any) -> None:
    ran = cli("config", "schema")
    assert ran.code == 0
    assert json.loads(ran.out)["properties"]["worker"]["properties"]["slots"]
