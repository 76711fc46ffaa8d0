"""The forerunners' command lines, as their users typed them: every command and every flag is still taken, and means what it meant."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from calls import parse

# What is kept of each submit: the fields of the task that the flags set.
SUBMITS: list[tuple[str, dict[str, Any]]] = [
    (
        'submit chat --model qwen3 --messages "user:Hello, how are you?" --priority high',
        {"action": "chat", "model": "qwen3", "priority": 10, "payload": {"messages": [{"role": "user", "content": "Hello, how are you?"}]}},
    ),
    (
        'submit chat --model qwen3 --messages "user:one" --messages "assistant:two" --messages "user:three" --system "Be brief"',
        {"payload": {"messages": [
            {"role": "system", "content": "Be brief"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ]}},
    ),
    ('submit chat --model qwen3 --messages "user:x" --output text', {"priority": 5, "executor": "ollama"}),
    (
        'submit generate --model codellama --prompt "Write a function" --system "You code" --priority normal --output json',
        {"action": "generate", "model": "codellama", "priority": 5, "payload": {"prompt": "Write a function", "system": "You code"}},
    ),
    (
        'submit embed --model nomic-embed-text --input "Text, to embed" --priority low --output json',
        {"action": "embed", "model": "nomic-embed-text", "priority": 1, "payload": {"input": "Text, to embed"}},
    ),
    *[
        (f"submit chat --model m --messages user:x --priority {word}", {"priority": number})
        for word, number in {"1": 1, "5": 5, "10": 10, "15": 15, "7": 7, "low": 1, "normal": 5, "high": 10, "critical": 15}.items()
    ],
]  # fmt: skip

# Lines whose answer needs a worker, a file or a server: that they are taken is what counts here; what they do has tests of its own.
TAKEN = [
    'submit chat --model qwen3 --messages "user:Tell me a story" --stream',
    'submit chat --model qwen3 --messages "user:x" --stream --output json',
    "submit generate --model codellama --prompt x --stream --output text",
    "submit batch --file tasks.json",
    "submit batch --file tasks.json --sync",
    "submit batch --file tasks.json --sync --output text",
    "submit batch --file tasks.json --output json",
    "serve --port 8080 --host localhost --data-dir ./data --ollama-host http://localhost:11434 -v",
    "serve --config config.yaml",
    "serve --config-dir /etc/queue",
    "cron add --name daily --cron '0 9 * * 1-5' --model qwen3 --prompt 'Good morning'",
    "cron add --name weekly --cron '0 9 * * 0' --type generate --model qwen3 --priority high --prompt p --system s --stream --enabled",
    """cron add --name m --cron '0 0 1 * *' --type embed --model e --input text --metadata '{"team": "a"}'""",
    "cron add --name off --cron '0 0 1 * *' --model qwen3 --prompt p --enabled=false",
    "cron list --enabled",
    "cron list --disabled --limit 10 --offset 5",
    "cron show daily",
    "cron enable daily",
    "cron disable daily",
    "cron update daily --cron '0 10 * * 1-5' --priority low",
    "cron remove daily",
    "cron test '0 9 * * 1-5' --count 5",
    "cron test --schedule '0 9 * * 7'",
]


def shown(cli: Any, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cli("show", task_id, "-o", "json").json
    return found


@pytest.mark.parametrize(("line", "kept"), SUBMITS)
def test_a_submit_keeps_what_its_flags_say(cli: Any, line: str, kept: dict[str, Any]) -> None:
    ran = cli(*shlex.split(line))
    assert ran.code == 0, ran.err
    task_id = ran.out.strip() if "--output text" in line else ran.json["task_id"]
    if "--output text" not in line:
        assert set(ran.json) == {"task_id", "status", "type", "model"}
        assert ran.json["status"] == "submitted"
    task = shown(cli, task_id)
    assert {name: task[name] for name in kept} == kept


@pytest.fixture
def tasks(cli: Any) -> dict[str, str]:
    """Tasks by name: three kinds, three priorities, one of them cancelled."""
    made = {
        "chat": cli(*shlex.split("submit chat --model m --messages user:x --priority high -q")).out.strip(),
        "generate": cli(*shlex.split("submit generate --model m --prompt x --priority low -q")).out.strip(),
        "embed": cli(*shlex.split("submit embed --model m --input x -q")).out.strip(),
    }
    assert cli("cancel", made["embed"]).code == 0
    return made


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("list", ["embed", "generate", "chat"]),
        ("list --status pending", ["generate", "chat"]),
        ("list --status pending,cancelled", ["embed", "generate", "chat"]),
        ("list --type chat", ["chat"]),
        ("list --type chat,embed", ["embed", "chat"]),
        ("list --priority high", ["chat"]),
        ("list --priority 1,high", ["generate", "chat"]),
        ("list --limit 1", ["embed"]),
        ("list --limit 0", ["embed", "generate", "chat"]),
        ("list --limit 1 --offset 1", ["generate"]),
        ("list --status pending --type chat --priority 10", ["chat"]),
    ],
)
def test_a_list_is_filtered_as_its_flags_say(cli: Any, tasks: dict[str, str], line: str, names: list[str]) -> None:
    ran = cli(*shlex.split(line), "--output", "json")
    assert ran.code == 0, ran.err
    assert [task["id"] for task in ran.json] == [tasks[name] for name in names]
    table = cli(*shlex.split(line), "--output", "table").lines
    assert table[0].split("\t")[:7] == ["ID", "TYPE", "PRIORITY", "STATUS", "MODEL", "CREATED", "COMPLETED"]
    assert [row.split("\t")[0] for row in table[1:]] == [tasks[name] for name in names]


def test_status_is_of_the_queue_or_of_a_task_in_both_forms(cli: Any, tasks: dict[str, str]) -> None:
    assert cli("status", "--output", "json").json["states"]["pending"] == 2
    assert "pending" in cli("status", "--output", "table").out
    assert cli("status", tasks["chat"], "--output", "json").json["state"] == "pending"
    assert "pending" in cli("status", tasks["chat"], "--output", "table").out


def test_several_are_cancelled_and_a_priority_is_a_name_or_any_integer(cli: Any, tasks: dict[str, str]) -> None:
    for value, number in (("low", 1), ("normal", 5), ("high", 10), ("critical", 15), ("15", 15), ("7", 7), ("1", 1)):
        assert cli("priority", tasks["chat"], value).code == 0
        assert shown(cli, tasks["chat"])["priority"] == number
    assert cli("cancel", tasks["chat"], tasks["generate"]).code == 0
    assert {shown(cli, tasks[name])["state"] for name in ("chat", "generate")} == {"cancelled"}


def test_global_flags_are_heeded_before_and_after_the_command(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERQ_URL")
    (home / "etc").mkdir()
    (home / "etc" / "config.yaml").write_text("ollama_host: http://gpu:1\nmax_workers: 9\n")

    def value(key: str, *flags: str) -> Any:
        return cli(*flags, "config", "show", key, "-o", "json").json[0]["value"]

    assert value("worker.slots", "--config", "etc/config.yaml") == 9
    assert value("worker.slots", "--config-dir", "etc") == 9
    assert value("store.url", "--data-dir", "./data") == f"sqlite:///{home}/data/inferq.db"
    assert value("backends.ollama.settings.base_url", "--config-dir", "etc", "--ollama-host", "http://other:2") == "http://other:2"
    assert cli("list", "-v").code == cli("--verbose", "list").code == 0


@pytest.mark.parametrize("line", TAKEN)
def test_a_line_is_taken_with_all_its_flags(line: str) -> None:
    parse(shlex.split(line))


def test_the_answer_of_a_submit_is_one_json_value_although_progress_is_told(cli: Any) -> None:
    ran = cli(*shlex.split("submit chat --model m --messages user:x --output json"))
    assert json.loads(ran.out)
