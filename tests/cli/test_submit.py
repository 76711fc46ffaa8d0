"""Submitting: what is kept is what was said, and nothing is kept of what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest


def shown(cli: Any, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cli("show", task_id, "-o", "json").json
    return found


def test_the_forerunners_call_works_and_answers_in_their_shape(cli: Any) -> None:
    ran = cli(
        "submit", "chat", "--executor", "echo", "--model", "m", "--messages", "system:Be brief, please",
        "--messages", "user:Hello, how are you?", "--priority", "high", "--output", "json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.json == {"task_id": ran.json["task_id"], "status": "submitted", "type": "chat", "model": "m"}
    task = shown(cli, ran.json["task_id"])
    assert task["payload"]["messages"] == [
        {"role": "system", "content": "Be brief, please"},
        {"role": "user", "content": "Hello, how are you?"},
    ]
    assert task["priority"] == 10


def test_a_prompt_with_commas_and_colons_stays_whole(cli: Any) -> None:
    task_id = cli("submit", "chat", "--executor", "echo", "--model", "m", "Note: one, two, three", "-q").out.strip()
    assert shown(cli, task_id)["payload"]["messages"] == [{"role": "user", "content": "Note: one, two, three"}]


def test_every_task_option_is_kept(cli: Any) -> None:
    ran = cli(
        "submit", "generate", "--executor", "echo", "--model", "m", "--prompt", "p", "--system", "s", "--priority", "-7",
        "--backend", "echo", "--tag", "a", "--tag", "b", "--meta", "who=me", "--meta", "n=3", "--key", "k1", "--tenant", "t",
        "--deadline", "2h", "--start-deadline", "2099-01-01T00:00:00Z", "--timeout", "90", "--idle-timeout", "5s",
        "--retries", "0", "--option", "temperature=0.5", "--option", "stop=[\"x\"]", "--field", "format=json",
        "--max-tokens", "9", "--at-most-once", "-q",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    task = shown(cli, ran.out.strip())
    assert task["payload"] == {"prompt": "p", "system": "s", "format": "json"}
    assert task["options"] == {"temperature": 0.5, "stop": ["x"], "max_tokens": 9}
    assert (task["priority"], task["backend"], task["tags"], task["tenant"]) == (-7, "echo", ["a", "b"], "t")
    assert task["metadata"] == {"who": "me", "n": 3}
    assert (task["key"], task["timeout"], task["idle_timeout"], task["max_retries"]) == ("k1", 90.0, 5.0, 0)
    assert task["start_deadline"] == 4_070_908_800_000
    assert abs(task["deadline"] / 1000 - time.time() - 7200) < 60
    assert task["at_most_once"] is True


def test_a_wish_for_a_remote_backend_or_a_local_one_is_kept(cli: Any) -> None:
    wishes = {"--remote": True, "--no-remote": False}
    made = {flag: cli("submit", "chat", "--executor", "echo", "--model", "m", "hi", flag, "-q").out.strip() for flag in wishes}
    assert {flag: cli("show", made[flag], "-o", "json").json["remote"] for flag in wishes} == wishes
    assert cli("show", made["--no-remote"], "-o", "json").json["lane"] == "echo@:local/m"


def test_a_delayed_task_is_scheduled(cli: Any) -> None:
    task_id = cli("submit", "chat", "--executor", "echo", "--model", "m", "later", "--delay", "10m", "-q").out.strip()
    task = shown(cli, task_id)
    assert task["state"] == "scheduled"
    assert abs(task["due"] / 1000 - time.time() - 600) < 60
    at = cli("submit", "chat", "--executor", "echo", "--model", "m", "x", "--at", "2099-01-01T00:00:00Z", "-q").out.strip()
    assert shown(cli, at)["due"] == 4_070_908_800_000


def test_standard_input_is_the_prompt_when_none_is_given(cli: Any) -> None:
    task_id = cli("submit", "chat", "--executor", "echo", "--model", "m", "-q", stdin="from a pipe, whole\n").out.strip()
    assert shown(cli, task_id)["payload"]["messages"] == [{"role": "user", "content": "from a pipe, whole"}]


def test_a_dash_puts_standard_input_into_the_prompt(cli: Any) -> None:
    ran = cli("submit", "generate", "--executor", "echo", "--model", "m", "Explain this:", "-", "-q", stdin="a\nb\n")
    assert shown(cli, ran.out.strip())["payload"]["prompt"] == "Explain this:\n\na\nb"


def test_standard_input_is_left_alone_when_the_prompt_is_given(cli: Any) -> None:
    task_id = cli("submit", "chat", "--executor", "echo", "--model", "m", "given", "-q", stdin="not this").out.strip()
    assert shown(cli, task_id)["payload"]["messages"] == [{"role": "user", "content": "given"}]


def test_several_inputs_are_embedded_together_and_one_alone(cli: Any) -> None:
    many = cli("submit", "embed", "--executor", "echo", "--model", "m", "--input", "a, b", "--input", "c", "-q")
    assert shown(cli, many.out.strip())["payload"] == {"input": ["a, b", "c"]}
    one = cli("submit", "embed", "--executor", "echo", "--model", "m", "a, b", "--truncate", "-q")
    assert shown(cli, one.out.strip())["payload"] == {"input": "a, b", "truncate": True}


def test_script_and_http_keep_their_words(cli: Any) -> None:
    ran = cli("submit", "script", "--env", "A=1=2", "--cwd", "sub", "-q", "--", "sh", "-c", "echo a, b", "--priority")
    assert shown(cli, ran.out.strip())["payload"] == {
        "argv": ["sh", "-c", "echo a, b", "--priority"],
        "env": {"A": "1=2"},
        "cwd": "sub",
    }
    ran = cli("submit", "http", "post", "https://example.com/x", "-H", "Accept: a, b", "--data", "{}", "-q")
    assert shown(cli, ran.out.strip())["payload"] == {
        "method": "POST",
        "url": "https://example.com/x",
        "headers": {"Accept": "a, b"},
        "body": "{}",
    }


def test_raw_takes_one_task_a_list_or_lines_and_keeps_all_or_none(cli: Any, home: Path) -> None:
    one = {"executor": "echo", "action": "echo", "payload": {"a": 1}, "priority": "critical"}
    ran = cli("submit", "raw", "--file", "-", "-q", stdin=json.dumps(one))
    assert shown(cli, ran.out.strip())["priority"] == 15
    (home / "many.jsonl").write_text("".join(json.dumps(one) + "\n" for _ in range(3)))
    assert len(cli("submit", "raw", "--file", "many.jsonl", "-q").lines) == 3
    wrong = cli("submit", "raw", "--file", "-", stdin=json.dumps([one, {**one, "action": "nonsense"}]))
    assert wrong.code == 2
    assert "nonsense" in wrong.err
    assert cli("status", "-o", "json").json["total"] == 4


def test_the_same_key_and_request_is_the_same_task_and_another_request_a_conflict(cli: Any) -> None:
    call = ("submit", "chat", "--executor", "echo", "--model", "m", "--key", "k", "-q")
    first = cli(*call, "hello")
    assert cli(*call, "hello").out == first.out
    other = cli(*call, "other")
    assert (other.code, other.out) == (6, "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("chat", "--model", "m"), "there is no prompt"),
        (("chat", "--executor", "echo", "hi"), "--model"),
        (("chat", "--executor", "ecko", "--model", "m", "hi"), "ecko"),
        (("chat", "--executor", "echo", "--model", "m", "hi", "--priority", "urgent"), "low, normal, high, critical"),
        (("chat", "--executor", "echo", "--model", "m", "hi", "--at", "2027-01-01T10:00"), "with its zone"),
        (("chat", "--executor", "echo", "--model", "m", "hi", "--at", "2099-01-01T00:00:00Z", "--delay", "1m"), "give one"),
        (("generate", "--executor", "echo", "--model", "m", "a", "--prompt", "b"), "twice"),
        (("embed", "--executor", "echo", "--model", "m"), "nothing to embed"),
        (("raw", "--file", "-"), "neither JSON nor JSON lines"),
        (("chat", "--executor", "echo", "--model", "m", "hi\x00", "-q"), "NUL"),
        (("chat", "--executor", "echo", "--model", "m", "hi", "-q", "-o", "csv"), "contradicts"),
    ],
)
def test_what_is_wrong_is_one_line_with_code_2_and_nothing_is_kept(cli: Any, args: tuple[str, ...], said: str) -> None:
    empty = "" if args[0] != "raw" else "{"
    ran = cli("submit", *args, stdin=empty)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert cli("status", "-o", "json").json["total"] == 0


def test_a_missing_file_is_not_found(cli: Any) -> None:
    ran = cli("submit", "raw", "--file", "nowhere.json")
    assert ran.code == 5
    assert ran.err == "inferq: nowhere.json: No such file or directory\n"


def test_a_schema_of_the_answer_goes_out_in_the_words_of_the_executor(cli: Any, home: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    (home / "city.json").write_text(json.dumps(schema))

    def payload(*args: str) -> Any:
        ran = cli("submit", *args, "--schema", "city.json", "-q")
        assert ran.code == 0, ran.err
        return cli("show", ran.out.strip(), "-o", "json").json["payload"]

    assert payload("chat", "--model", "m", "where?")["format"] == schema
    other = payload("generate", "--model", "m", "--executor", "openai", "--prompt", "where?")
    assert other["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    wrong = cli("submit", "embed", "--model", "m", "--input", "x", "--schema", "city.json")
    assert (wrong.code, "not for embed" in wrong.err) == (2, True)
    (home / "list.json").write_text("[1]")
    assert cli("submit", "chat", "--model", "m", "x", "--schema", "list.json").code == 2
    assert cli("submit", "chat", "--model", "m", "x", "--schema", "none.json").code == 5
