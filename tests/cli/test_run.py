"""`run`, results and streams: tasks really run, in this process, through a real store."""

from __future__ import annotations

import json
from typing import Any

ECHO = ("--executor", "echo")


def ids(cli: Any, *filters: str) -> list[str]:
    found: list[str] = cli("list", "-q", *filters).lines
    return found


def test_run_prints_the_answer_and_nothing_else_on_stdout(cli: Any) -> None:
    ran = cli("run", "m", *ECHO, "Hello,", "how", "are you?")
    assert (ran.code, ran.out) == (0, "Hello, how are you?\n")
    [task] = cli("list", "-o", "json").json
    assert (task["state"], task["model"], task["action"]) == ("completed", "m", "chat")


def test_run_reads_its_prompt_from_a_pipe(cli: Any) -> None:
    assert cli("run", "m", *ECHO, stdin="what is, this\n").out == "what is, this\n"
    assert cli("run", "m", *ECHO, "-", stdin="a\n").out == "a\n"


def test_run_without_any_prompt_says_so(cli: Any) -> None:
    ran = cli("run", "m", *ECHO)
    assert ran.code == 2
    assert "there is no prompt" in ran.err


def test_run_of_a_failing_task_ends_with_1_and_says_why(cli: Any) -> None:
    ran = cli("run", "m", *ECHO, "hi", "--field", 'fail=["model_not_found"]')
    assert ran.code == 1
    assert ran.out == ""
    assert "model_not_found" in ran.err


def test_a_void_attempt_is_announced_on_stderr(cli: Any) -> None:
    ran = cli("run", "m", *ECHO, "one two three", "--field", 'fail=[{"code": "connect", "fail_after": 1}]', "--no-progress")
    assert ran.code == 0, ran.err
    assert ran.out == "one \none two three\n"
    assert "attempt 2 begins" in ran.err
    assert "void" in ran.err


def test_run_also_works_on_what_else_waits(cli: Any) -> None:
    first = cli("submit", "chat", *ECHO, "--model", "m", "--priority", "high", "before", "-q").out.strip()
    assert cli("run", "m", *ECHO, "now").code == 0
    assert cli("result", first, "--wait").out == "before\n"


def test_run_in_json_is_one_object_with_all_chunks(cli: Any) -> None:
    made = cli("run", "m", *ECHO, "a b", "-o", "json").json
    assert made["streaming"] is True
    assert "".join(chunk.get("data", "") for chunk in made["chunks"]) == "a b"
    assert made["chunks"][-1] == {"done": True}
    failed = cli("run", "m", *ECHO, "a b", "--field", 'fail=["auth"]', "-o", "json")
    assert failed.code == 1
    assert "auth" in failed.json["chunks"][-1]["error"]


def test_run_without_stream_prints_the_result_at_the_end(cli: Any) -> None:
    assert cli("run", "m", *ECHO, "a b", "--no-stream").out == "a b\n"


def test_thinking_goes_to_stderr_when_asked_for(cli: Any) -> None:
    ran = cli("run", "m", *ECHO, "answer", "--field", "thinking=hmm", "--thinking")
    assert (ran.out, ran.err) == ("answer\n", "hmm")
    assert cli("run", "m", *ECHO, "answer", "--field", "thinking=hmm").err == ""


def test_a_result_has_every_field_and_comes_in_the_order_asked_for(cli: Any) -> None:
    cli("run", "m", *ECHO, "first")
    cli("run", "m", *ECHO, "second")
    second, first = ids(cli)
    assert cli("result", first, second).lines == ["first", "second"]
    record = cli("result", first, "-o", "json").json
    assert (record["id"], record["text"], record["attempts"], record["data"]) == (first, "first", 1, None)
    assert record["usage"]["output_tokens"] == 1
    assert cli("result", first, "--json=text").json == {"text": "first"}
    lines = cli("result", first, second, "-o", "jsonl").lines
    assert [json.loads(line)["id"] for line in lines] == [first, second]


def test_a_tail_replays_from_the_start_or_from_a_place(cli: Any) -> None:
    cli("run", "m", *ECHO, "one two three")
    [task_id] = ids(cli)
    assert cli("tail", task_id).out == "one two three\n"
    chunks = [json.loads(line) for line in cli("tail", task_id, "-o", "jsonl").lines]
    assert [chunk["kind"] for chunk in chunks] == ["text", "text", "text", "end"]
    assert cli("tail", task_id, "--from", chunks[0]["position"]).out == "two three\n"


def test_wait_tells_by_its_code_how_tasks_ended(cli: Any) -> None:
    good = cli("run", "m", *ECHO, "x").code
    bad = cli("run", "m", *ECHO, "x", "--field", 'fail=["auth"]').code
    assert (good, bad) == (0, 1)
    failed, completed = ids(cli)
    assert cli("wait", completed).code == 0
    assert cli("wait", failed).code == 1
    assert cli("wait", failed, completed, "-q").code == 3
    assert cli("wait", "--any", completed).code == 0
    assert cli("result", failed, completed).code == 3


def test_a_retried_task_runs_again(cli: Any) -> None:
    cli("run", "m", *ECHO, "x", "--field", 'fail=["auth", null]')
    [task_id] = ids(cli)
    assert cli("retry", task_id).code == 0
    cli("run", "m", *ECHO, "other")
    assert cli("wait", task_id, "--timeout", "20s").code == 0
    attempts = cli("show", task_id, "--attempts", "-o", "json").json
    assert [attempt["outcome"] for attempt in attempts] == ["failed", "completed"]


def test_a_scripts_output_goes_where_it_went(cli: Any) -> None:
    task_id = cli("submit", "script", "-q", "--", "sh", "-c", "echo out; echo err >&2").out.strip()
    cli("run", "m", *ECHO, "x")
    assert cli("wait", task_id, "--timeout", "20s").code == 0
    ran = cli("tail", task_id)
    assert (ran.out, ran.err) == ("out\n", "err\n")
