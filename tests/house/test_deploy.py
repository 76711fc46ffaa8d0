"""The files that run inferq elsewhere name commands, options, variables and settings that exist. No container engine is at hand here."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from calls import parse

from inferq.config import Settings, keys

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
UNIT = (ROOT / "deploy" / "inferq.service").read_text("utf-8")
RULES = (ROOT / "deploy" / "prometheus" / "inferq.rules.yml").read_text("utf-8")
VARIABLES = {key.env for key in keys()}


def test_the_image_runs_commands_that_exist() -> None:
    for words in re.findall(r"^\s*(?:CMD|HEALTHCHECK .*CMD) \[(.+)\]", DOCKERFILE, re.MULTILINE):
        call = [word.strip(' "') for word in words.split(",")]
        parse(call[1:] if call[0] == "inferq" else call)
    assert 'ENTRYPOINT ["inferq"]' in DOCKERFILE
    assert "USER inferq" in DOCKERFILE
    assert "EXPOSE 7125" in DOCKERFILE


def test_every_variable_that_is_set_is_a_setting() -> None:
    named = re.findall(r"\b(INFERQ_[A-Z0-9_]+)=", DOCKERFILE + UNIT) + list(COMPOSE["services"]["server"]["environment"])
    assert len(named) >= 4
    assert [name for name in named if name.startswith("INFERQ_") and name not in VARIABLES] == []


def test_every_call_in_a_comment_exists() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8") + DOCKERFILE + UNIT + RULES
    calls = re.findall(r"exec server inferq (.+)", text) + re.findall(r"`inferq (.+?)`", text)
    assert len(calls) >= 3
    for call in calls:
        parse(shlex.split(call.partition("`")[0]))


def test_containers_and_units_wait_longer_than_running_tasks_get() -> None:
    grace = Settings().worker.shutdown_grace
    assert float(COMPOSE["services"]["server"]["stop_grace_period"].removesuffix("s")) > grace
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names are case-sensitive in a unit
    unit.read_string(UNIT)
    assert float(unit["Service"]["TimeoutStopSec"]) > grace


def test_the_unit_runs_commands_that_exist() -> None:
    for line in re.findall(r"^Exec\w+=/opt/inferq/bin/inferq (.+)$", UNIT, re.MULTILINE):
        parse(shlex.split(line))
    assert "kill -HUP $MAINPID" in UNIT


def test_the_ports_and_volumes_of_the_composition_are_those_of_the_image() -> None:
    server = COMPOSE["services"]["server"]
    assert server["ports"] == [f"127.0.0.1:{Settings().server.port}:{Settings().server.port}"]
    assert [volume.partition(":")[2] for volume in server["volumes"]] == re.findall(r"^VOLUME (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(COMPOSE["volumes"]) == {volume.partition(":")[0] for each in COMPOSE["services"].values() for volume in each["volumes"]}


def test_make_starts_the_demo_and_a_server_by_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipes = dict(re.findall(r"^(\w+):[^\n]*\n\t(.+)$", makefile, re.MULTILINE))
    assert recipes["demo"] == "$(PY) -m inferq.demo"
    parse(shlex.split(recipes["serve"].partition("-m inferq ")[2]))
    assert recipes["serve"].startswith("exec "), "Ctrl-C must reach the server itself"
    assert re.search(r"^serve:.*\bmodels\b", makefile, re.MULTILINE), "the small model is fetched before"
