"""Asking about tasks and changing them, on a real store."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def submit(cli: Any) -> Any:
    """Submits a chat and returns its id."""

    def make(*more: str, model: str = "m") -> str:
        ran = cli("submit", "chat", "--executor", "echo", "--model", model, "hi", "-q", *more)
        assert ran.code == 0, ran.err
        return str(ran.out.strip())

    return make


def test_filters_take_comma_lists_and_combine(cli: Any, submit: Any) -> None:
    low, high, odd = submit("--priority", "low"), submit("--priority", "high", model="n"), submit("--priority", "42", "--tag", "t")
    assert cli("list", "-q").lines == [odd, high, low]
    assert cli("list", "-q", "--priority", "low,42").lines == [odd, low]
    assert cli("list", "-q", "--model", "n,m", "--priority", "10").lines == [high]
    assert cli("list", "-q", "--tag", "t").lines == [odd]
    assert cli("list", "-q", "--status", "running,completed").lines == []
    assert cli("list", "-q", "--state", "pending", "--type", "chat", "--executor", "echo", "--since", "1h").lines == [odd, high, low]


def test_limit_offset_and_cursor_count_matches_only_newest_first(cli: Any, submit: Any) -> None:
    wanted = [submit("--tag", "t") for _ in range(5) if submit()][::-1]
    assert cli("list", "-q", "--tag", "t", "--limit", "2").lines == wanted[:2]
    assert cli("list", "-q", "--tag", "t", "--limit", "2", "--offset", "2").lines == wanted[2:4]
    assert cli("list", "-q", "--tag", "t", "--limit", "0").lines == wanted
    first = cli("list", "-q", "--tag", "t", "--limit", "3")
    assert first.lines == wanted[:3]
    cursor = first.err.split("--after ")[1].strip()
    rest = cli("list", "-q", "--tag", "t", "--limit", "3", "--after", cursor)
    assert (rest.lines, rest.err) == (wanted[3:], "")


def test_the_piped_table_has_the_forerunners_columns_whole_ids_and_says_why_a_task_waits(cli: Any, submit: Any) -> None:
    task_id = submit()
    titles, row = (line.split("\t") for line in cli("list").lines)
    assert titles == ["ID", "TYPE", "PRIORITY", "STATUS", "MODEL", "CREATED", "COMPLETED", "NOTE"]
    assert row[:5] == [task_id, "chat", "normal", "pending", "m"]
    assert "inferq work" in row[7]


def test_every_record_has_all_fields_and_only_those_asked_for(cli: Any, submit: Any) -> None:
    task_id = submit()
    [record] = cli("list", "-o", "json").json
    help_text = cli("list", "--help").out
    assert all(name in help_text for name in record)
    assert cli("list", "--json=state,id").json == [{"state": "pending", "id": task_id}]
    assert cli("list", "--json", "-o", "jsonl").json == record
    wrong = cli("list", "--json=stat")
    assert (wrong.code, wrong.out) == (2, "")


def test_a_unique_prefix_is_an_id_and_an_ambiguous_one_is_refused(cli: Any, submit: Any) -> None:
    first, second = submit(), submit()
    assert cli("status", first[:18], "-q").out.strip() == first
    assert cli("show", second.upper(), "-q").out.strip() == second
    ambiguous = cli("show", first[:4])
    assert ambiguous.code == 2
    assert "several tasks" in ambiguous.err


@pytest.mark.parametrize("verb", ["show", "status", "result", "tail", "wait", "cancel", "retry"])
def test_an_unknown_id_ends_with_5_and_one_line(cli: Any, verb: str) -> None:
    ran = cli(verb, "nope")
    assert (ran.code, ran.out) == (5, "") if verb not in ("cancel", "retry") else ran.code == 5
    assert len(ran.err.splitlines()) == 1


def test_several_are_changed_in_spite_of_an_error_and_the_code_says_partial(cli: Any, submit: Any) -> None:
    first, second = submit(), submit()
    ran = cli("cancel", first, "nope", second, "--reason", "not needed", "-o", "json")
    assert ran.code == 3
    assert [(task["id"], task["state"], task["error"]) for task in ran.json] == [
        (first, "cancelled", "not needed"),
        (second, "cancelled", "not needed"),
    ]
    assert "nope" in ran.err


def test_ids_may_come_from_standard_input(cli: Any, submit: Any) -> None:
    ids = [submit(), submit()]
    assert cli("cancel", "-", "-q", stdin="\n".join(ids) + "\n").lines == ids
    assert cli("retry", "-", "-q", stdin="\n".join(ids)).lines == ids
    assert cli("cancel", "-", stdin="").code == 2


def test_an_ended_task_is_not_cancelled_again_nor_moved(cli: Any, submit: Any) -> None:
    task_id = submit()
    assert cli("cancel", task_id).code == 0
    assert cli("cancel", task_id).code == 6
    moved = cli("priority", task_id, "high")
    assert moved.code == 6
    assert cli("show", task_id, "--json=state,priority").json == {"state": "cancelled", "priority": 5}


@pytest.mark.parametrize(("level", "number"), [("critical", 15), ("-3", -3), ("7", 7), ("LOW", 1)])
def test_priority_takes_names_and_any_integer(cli: Any, submit: Any, level: str, number: int) -> None:
    task_id = submit()
    ran = cli("priority", task_id, level, "--json=priority")
    assert ran.code == 0, ran.err
    assert ran.json == [{"priority": number}]


def test_pause_and_resume_show_what_is_paused(cli: Any) -> None:
    assert cli("pause", "echo/m", "-q").lines == ["echo/m"]
    assert cli("pause", "-q").lines == ["*", "echo/m"]
    assert cli("status", "-o", "json").json["paused"] == ["*", "echo/m"]
    assert cli("resume", "-q").lines == ["echo/m"]
    last = cli("resume", "echo/m", "-q")
    assert (last.lines, last.err) == ([], "nothing is paused\n")


def test_show_has_request_attempts_and_events_apart(cli: Any, submit: Any) -> None:
    task_id = submit("--option", "temperature=1")
    assert cli("show", task_id, "--request", "-o", "json").json["options"] == {"temperature": 1}
    assert cli("show", task_id, "--attempts", "-o", "json").json == []
    assert [event["type"] for event in cli("show", task_id, "--events", "-o", "json").json] == ["task.submitted"]
    assert cli("show", task_id, "--events", "--request").code == 2
    assert f"id\t{task_id}" in cli("show", task_id).lines


def test_events_of_a_type_after_a_place(cli: Any, submit: Any) -> None:
    task_id = submit()
    cli("cancel", task_id)
    cli("pause")
    found = cli("events", "-o", "jsonl").lines
    types = [json.loads(line)["type"] for line in found]
    assert types == ["task.submitted", "task.cancelled", "queue.paused"]
    assert [event["type"] for event in cli("events", "task.*", "--after", "1", "-o", "json").json] == ["task.cancelled"]
    assert [event["type"] for event in cli("events", "--limit", "1", "-o", "json").json] == ["queue.paused"]
    wrong = cli("events", "task.compleet")
    assert (wrong.code, wrong.out) == (2, "")


def test_statistics_without_an_id(cli: Any, submit: Any) -> None:
    submit("--priority", "high")
    stats = cli("status", "-o", "json").json
    assert stats["states"]["pending"] == stats["total"] == 1
    assert stats["pending_by_priority"] == {"10": 1}
    assert stats["pending_by_lane"] == {"echo/m": 1}
    rows = [line.split("\t") for line in cli("status").lines]
    assert ["pending, priority", "high", "1"] in rows


def test_a_result_that_is_not_there_yet_is_a_conflict_and_a_short_wait_a_timeout(cli: Any, submit: Any) -> None:
    task_id = submit()
    early = cli("result", task_id)
    assert (early.code, early.out) == (6, "")
    assert "--wait" in early.err
    late = cli("result", task_id, "--timeout", "50ms", "--no-progress")
    assert (late.code, late.out) == (8, "")
    assert cli("wait", task_id, "--timeout", "50ms").code == 8


def test_a_listing_takes_the_filter_language_and_narrows_it_by_options(cli: Any, submit: Any) -> None:
    low, high, odd = submit("--priority", "low", "--tag", "a"), submit("--priority", "high", "--tag", "b"), submit("--tag", "b", model="n")
    assert cli("list", "-q", "priority:>=normal").lines == [odd, high]
    assert cli("list", "-q", "tag:b", "-model:n").lines == [high]
    assert cli("list", "-q", "-tag:a", "--model", "m").lines == [high]
    assert cli("list", "-q", "tag:* sort:created limit:2").lines == [low, high]
    assert cli("list", "-q", "--sort", "created").lines == [low, high, odd]
    assert cli("list", "-q", f"id:{low[:20]},{odd}").lines == [odd, low]
    assert cli("list", "-q", "hi", "created:-1h").lines == [odd, high, low]
    assert cli("list", "-q", "nothing such").lines == []


def test_what_is_wrong_in_a_filter_is_named_with_its_place(cli: Any) -> None:
    for word, said in (("stat:failed", "did you mean state?"), ("state:faild", "did you mean failed?"), ("sort:finished", "state:ended")):
        wrong = cli("list", word)
        assert (wrong.code, wrong.out) == (2, "")
        assert said in wrong.err


def test_the_orders_of_the_option_are_those_of_the_language() -> None:
    from inferq.cli.params import SORTS
    from inferq.query.words import SORTS as KNOWN

    assert SORTS == KNOWN


def test_retry_takes_a_priority_hurries_what_waits_and_makes_new_tasks_for_another_model(cli: Any) -> None:
    def submit(*more: str) -> str:
        ran = cli("submit", "chat", "--executor", "echo", "--model", "m", "hello", "-q", *more)
        assert ran.code == 0, ran.err
        return str(ran.out.strip())

    late = submit("--delay", "1h")
    assert cli("retry", late).code == 6
    assert cli("retry", late, "--now").code == 0
    assert cli("show", late, "--json=state").json["state"] == "pending"

    ended = submit("--key", "k", "--tag", "a", "--deadline", "1h")
    cli("cancel", ended, "--reason", "wrong model")
    again = cli("retry", ended, "--model", "other", "--backend", "echo", "--priority", "high", "-o", "json")
    assert again.code == 0, again.err
    (new,) = again.json
    assert new["id"] != ended
    assert (new["model"], new["backend"], new["priority"], new["tags"], new["metadata"]) == (
        "other",
        "echo",
        10,
        ["a"],
        {"retry_of": ended},
    )
    assert (new["key"], new["deadline"]) == (None, None)
    assert cli("show", ended, "--json=state").json["state"] == "cancelled"
    assert cli("retry", new["id"], "--model", "m").code == 6

    assert cli("retry", "--query", "tag:a", "--priority", "low", "--dry-run", "-q").lines == [ended]
    assert cli("retry", "--query", "tag:a", "--priority", "low").code == 2
    assert cli("retry", "--query", "tag:a", "--priority", "low", "--yes", "-q").lines == [ended]
    assert cli("show", ended, "--json=state,priority").json == {"state": "pending", "priority": 1}
    assert cli("retry", ended, "--now", "--model", "m").code == 2


def test_wait_takes_a_filter_in_the_place_of_ids(cli: Any, processes: Any) -> None:
    ids = [
        cli("submit", "chat", "--executor", "echo", "--model", "m", "x", "--tag", "nightly", "-q").out.strip(),
        cli("submit", "chat", "--executor", "echo", "--model", "m", "x", "-q").out.strip(),
    ]
    processes.start("work")
    ran = cli("wait", "tag:nightly", "model:m", "--timeout", "20s", "-q")
    assert (ran.code, ran.lines) == (0, ids[:1]), ran.err
    assert cli("wait", ids[1], "--timeout", "20s", "-q").lines == ids[1:]
    assert cli("wait", "tag:nightly", ids[0][:8], "--query", "tag:x").code == 2
