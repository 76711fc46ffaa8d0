"""`inferq cron`: every verb on a real store, with the forerunner's flags and ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

DAILY = ("cron", "add", "--name", "daily", "--executor", "echo", "--model", "m", "--prompt", "of {scheduled_at:%Y}")


def shown(cli: Cli, name: str = "daily") -> dict[str, Any]:
    ran = cli("cron", "show", name, "-o", "json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = ran.json
    return found


def test_add_takes_all_that_a_schedule_has(cli: Cli) -> None:
    ran = cli(
        *DAILY, "--schedule", "0 9 * * 1-5", "--tz", "Europe/Berlin", "--system", "Be brief", "--priority", "high", "--overlap", "queue",
        "--catch-up", "all", "--window", "2h", "--jitter", "30s", "--start-within", "10m", "--metadata", '{"owner": "me"}',
        "--meta", "team=a",
        "--tag", "report", "--option", "seed=1", "--timeout", "1m", "--retries", "0", "-o", "json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    made = ran.json
    assert made == shown(cli) == shown(cli, made["id"])
    assert (made["misfire"], made["window"], made["overlap"], made["jitter"], made["start_within"]) == ("all", 7200.0, "queue", 30.0, 600.0)
    assert made["metadata"] == {"owner": "me", "team": "a"}
    task = made["task"]
    assert task["payload"]["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "of {scheduled_at:%Y}"},
    ]
    assert (task["priority"], task["tags"], task["options"], task["timeout"], task["max_retries"]) == (10, ["report"], {"seed": 1}, 60.0, 0)


@pytest.mark.parametrize("flag", ["--schedule", "--cron"])
def test_the_forerunners_flags_make_a_schedule(cli: Cli, flag: str) -> None:
    given = ("--type", "chat", "--priority", "15", "--stream", "--enabled=false", "--metadata", "{}")
    ran = cli(*DAILY, flag, "*/5 * * * *", *given, "-o", "json")
    assert ran.code == 0, ran.err
    made = ran.json
    assert (made["enabled"], made["task"]["priority"], made["task"]["stream"], made["due"]) == (False, 15, True, None)


def test_templates_of_every_kind(cli: Cli, home: Path) -> None:
    cli("cron", "add", "--name", "g", "--cron", "@daily", "--type", "generate", "--executor", "echo", "--model", "m", "--prompt", "p")
    assert shown(cli, "g")["task"]["payload"] == {"prompt": "p"}
    ran = cli(
        "cron",
        "add",
        "--name",
        "e",
        "--cron",
        "@daily",
        "--type",
        "embed",
        "--executor",
        "echo",
        "--model",
        "m",
        "--input",
        "a",
        "--input",
        "b",
    )
    assert ran.code == 0, ran.err
    assert shown(cli, "e")["task"]["payload"] == {"input": ["a", "b"]}
    task = {"executor": "echo", "action": "echo", "payload": {"a": 1}}
    (home / "task.json").write_text(json.dumps(task))
    assert cli("cron", "add", "--name", "f", "--cron", "@daily", "--file", "task.json", "--priority", "low").code == 0
    found = shown(cli, "f")["task"]
    assert (found["action"], found["payload"], found["priority"]) == ("echo", {"a": 1}, 1)
    assert cli("cron", "add", "--name", "x", "--cron", "@daily", "--type", "embed", "--messages", "user:x").code == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "there is no schedule"),
        (("--schedule", "0 0 31 2 *"), "expression: day of month: expected a day that February has"),
        (("--schedule", "@daily", "--tz", "Europe/Berln"), "did you mean Europe/Berlin"),
        (("--schedule", "@daily", "--metadata", "[1]"), "--metadata: expected a JSON object"),
        (("--schedule", "@daily", "--window", "8d"), "window: expected at most"),
        (("--schedule", "@daily", "--executor", "nowhere"), "task.executor"),
        (("--schedule", "@daily", "--misfire", "all", "--catch-up", "none"), "say the same thing"),
    ],
)
def test_a_mistake_is_one_line_and_adds_nothing(cli: Cli, more: tuple[str, ...], said: str) -> None:
    ran = cli(*DAILY, *more)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert cli("cron", "list", "-o", "json").json == []


def test_a_taken_name_is_a_conflict_and_an_unknown_one_not_found(cli: Cli) -> None:
    assert cli(*DAILY, "--schedule", "@daily").code == 0
    assert cli(*DAILY, "--schedule", "@hourly").code == 6
    for verb in ("show", "enable", "disable", "remove", "run", "history"):
        ran = cli("cron", verb, "nobody")
        assert (ran.code, "nobody" in ran.err) == (5, True), verb


def test_update_sets_what_is_said_and_keeps_the_rest(cli: Cli) -> None:
    cli(*DAILY, "--schedule", "@daily", "--system", "Be brief", "--tag", "report", "--no-stream")
    before = shown(cli)
    ran = cli("cron", "update", "daily", "--prompt", "another", "--priority", "low", "--overlap", "allow", "--schedule", "30 8 * * *")
    assert ran.code == 0, ran.err
    after = shown(cli)
    assert (after["id"], after["overlap"], after["expression"]) == (before["id"], "allow", "30 8 * * *")
    assert [one["content"] for one in after["task"]["payload"]["messages"]] == ["Be brief", "another"]
    assert (after["task"]["priority"], after["task"]["tags"], after["task"].get("stream", False)) == (1, ["report"], False)
    assert cli("cron", "update", "daily").code == 2
    assert cli("cron", "update", "daily", "--schedule", "nonsense").code == 2
    assert shown(cli) == after


def test_the_list_has_the_forerunners_columns_and_filters(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        cli("cron", "add", "--name", name, "--executor", "echo", "--model", "m", "--prompt", "p", "--cron", "0 9 * * *")
    cli("cron", "disable", "b")
    head, first, *_ = cli("cron", "list").lines
    assert head.split("\t")[:7] == ["ID", "NAME", "EXPRESSION", "ENABLED", "RUN COUNT", "NEXT RUN", "LAST RUN"]
    assert first.split("\t")[1:5] == ["a", "0 9 * * *", "yes", "0"]
    assert cli("cron", "list", "--enabled", "-q").lines == ["a", "c"]
    assert cli("cron", "ls", "--disabled", "-q").lines == ["b"]
    page = cli("cron", "list", "--limit", "1", "--offset", "1", "-q")
    assert (page.lines, page.err.strip()) == (["b"], "more: --after b")
    assert cli("cron", "list", "--after", "b", "-q").lines == ["c"]


def test_switches_take_several_names_and_go_on_after_a_mistake(cli: Cli) -> None:
    for name in ("a", "b"):
        cli("cron", "add", "--name", name, "--executor", "echo", "--model", "m", "--prompt", "p", "--cron", "@daily")
    ran = cli("cron", "disable", "a", "nobody", "b", "-q")
    assert (ran.code, ran.lines) == (3, ["a", "b"])
    assert cli("cron", "enable", "-", stdin="a\nb\n").code == 0
    assert cli("cron", "remove", "a", "b", "-q").lines == ["a", "b"]
    assert cli("cron", "list", "-q").lines == []


def test_run_makes_its_task_now_and_history_shows_it(cli: Cli) -> None:
    cli(*DAILY, "--schedule", "@yearly")
    (task_id,) = cli("cron", "run", "daily", "--key", "k", "-q").lines
    assert cli("cron", "run", "daily", "--key", "k", "-q").lines == [task_id]
    assert cli("cron", "history", "daily", "-q").lines == [task_id]
    task = cli("show", task_id, "-o", "json").json
    assert (task["schedule"], task["metadata"]["cron_by_hand"]) == ("daily", True)


@pytest.mark.parametrize("how", [("30 2 * * *",), ("--schedule", "30 2 * * *"), ("--cron", "30 2 * * *")])
def test_test_shows_fires_and_words_without_a_queue(cli: Cli, how: tuple[str, ...]) -> None:
    ran = cli("cron", "test", *how, "--tz", "Europe/Berlin", "--after", "2026-10-24T12:00:00Z", "--count", "2")
    assert ran.lines == ["FIRE", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    assert ran.err.strip() == "at 02:30 every day"


def test_test_shows_five_fires_and_refuses_what_cannot_be(cli: Cli) -> None:
    assert len(cli("cron", "test", "0 0 * * 7", "-q").lines) == 5
    assert cli("cron", "test", "0 0 * * 7", "--json=local").json[0].keys() == {"local"}
    for wrong in (("0 0 31 2 *",), (), ("@daily", "--cron", "@daily"), ("@daily", "--tz", "x")):
        ran = cli("cron", "test", *wrong)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1), wrong


CRONS = """
[schedules.daily]
expression = "0 9 * * 1-5"
tz = "Europe/Berlin"
overlap = "queue"
task = { type = "chat", executor = "echo", model = "m", prompt = "of {scheduled_at:%Y}", priority = "high" }

[schedules.nightly]
cron = "@daily"
[schedules.nightly.task]
executor = "echo"
action = "echo"
payload = { a = 1 }
"""


def test_apply_makes_the_schedules_those_of_the_file(cli: Cli, home: Path) -> None:
    (home / "crons.toml").write_text(CRONS)
    cli("cron", "add", "--name", "old", "--executor", "echo", "--model", "m", "--prompt", "p", "--cron", "@daily")
    planned = cli("cron", "apply", "-f", "crons.toml", "--dry-run", "--prune", "--json=name,change")
    assert planned.json == [
        {"name": "daily", "change": "created"},
        {"name": "nightly", "change": "created"},
        {"name": "old", "change": "removed"},
    ]
    assert cli("cron", "list", "-q").lines == ["old"]
    assert cli("cron", "apply", "-f", "crons.toml").code == 0
    assert cli("cron", "list", "-q").lines == ["daily", "nightly", "old"]
    before = shown(cli)
    assert before["task"]["payload"] == {"messages": [{"role": "user", "content": "of {scheduled_at:%Y}"}]}
    again = cli("cron", "apply", "-f", "crons.toml", "--prune", "--json=name,change").json
    assert [entry["change"] for entry in again] == ["unchanged", "unchanged", "removed"]
    assert shown(cli) == before
    (home / "crons.toml").write_text(CRONS.replace("0 9", "0 8"))
    changed = cli("cron", "apply", "-f", "crons.toml", "--json=name,change").json
    assert [entry["change"] for entry in changed] == ["changed", "unchanged"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one table `schedules`"),
        ("[schedules.a]\nexpression = '@daily'", "schedules.a.task: expected this field"),
        ("[schedules.a]\nexpression = 'x'\ntask = {type='chat'}", "schedules.a.expression"),
        ("[schedules.a]\nexpression = '@daily'\ncolour = 1\ntask = {type='chat'}", "schedules.a.colour"),
        ("[schedules.a]\nexpression = '@daily'\ntask = {type='chat', key='k'}", "schedules.a.task.key"),
        ("[schedules.a]\nexpression = '@daily'\ntask = {executor='nowhere', action='x'}", "schedules.a.task.executor"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(cli: Cli, home: Path, text: str, said: str) -> None:
    (home / "crons.toml").write_text(text)
    ran = cli("cron", "apply", "-f", "crons.toml")
    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert cli("cron", "list", "-q").lines == []


def test_show_is_a_page_with_the_next_fires(cli: Cli) -> None:
    cli(*DAILY, "--schedule", "0 9 * * 1-5", "--jitter", "1m")
    pairs = [line.split("\t") for line in cli("cron", "show", "daily").lines]
    page = dict(pairs)
    assert page["expression"] == "0 9 * * 1-5  (at 09:00 on Monday to Friday)"
    assert page["task"] == "echo chat m"
    assert len([name for name, _ in pairs if name in ("next", "")]) == 5
