"""Every command works on a server as it works on a store: only the address differs, and it comes from where it should."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq import AsyncQueue, Settings
from inferq.config import RetrySettings
from inferq.server import create_app
from inferq.server.serving import Server
from inferq.sync.background import Background
from inferq.testing import EchoExecutor

Cli = Any  # the fixtures of the conftest, which test files cannot import
Processes = Any


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that runs tasks of the executor echo; no store and no server is configured."""
    monkeypatch.delenv("INFERQ_URL")
    monkeypatch.setenv("INFERQ_SERVER__PORT", "0")
    background = Background("server")
    background.start()
    queue: AsyncQueue
    running: Server
    serving: asyncio.Task[None]

    async def start() -> str:
        nonlocal queue, running, serving
        settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
        queue = AsyncQueue(f"sqlite:///{home / 'server.db'}", backends=[EchoExecutor("echo")], settings=settings)
        await queue.start()
        running = Server(create_app(queue), port=0)
        serving = asyncio.create_task(running.serve())
        await running.listening.wait()
        return f"http://127.0.0.1:{running.port}"

    async def stop() -> None:
        running.stop()
        await serving
        await queue.close()

    yield background.call(start())
    background.call(stop())
    background.end()


def submit(cli: Cli, url: str, text: str = "hello", *more: str) -> str:
    ran = cli("--url", url, "submit", "chat", "--executor", "echo", "--model", "m", text, "-q", *more)
    assert ran.code == 0, ran.err
    return ran.out.strip()


def test_a_task_is_submitted_streamed_shown_and_collected(cli: Cli, server: str, home: Path) -> None:
    ran = cli("run", "m", "--executor", "echo", "one two three", "--url", server)
    assert (ran.code, ran.out) == (0, "one two three\n")
    ran = cli("submit", "chat", "--executor", "echo", "--model", "m", "again", "--stream", "--url", server)
    assert (ran.code, ran.out) == (0, "again\n")
    id = submit(cli, server)
    assert cli("wait", id, "--url", server).code == 0
    assert cli("result", id[:20], "--url", server).out == "hello\n"
    assert cli("tail", id, "--url", server).out == "hello\n"
    assert cli("show", id, "--url", server, "-o", "json").json["state"] == "completed"
    assert cli("status", id, "--url", server, "-o", "json").json["id"] == id
    assert cli("list", "--url", server, "-o", "json").json[0]["id"] == id
    assert [entry["type"] for entry in cli("show", id, "--events", "--url", server, "-o", "json").json][-1] == "task.completed"
    assert cli("events", "task.completed", "--after", "0", "--url", server, "-o", "id").lines[-1] == id
    assert not (home / "data").exists()


def test_changes_reach_the_server_and_their_errors_come_back(cli: Cli, server: str) -> None:
    assert cli("pause", "--url", server).code == 0
    id = submit(cli, server)
    assert cli("priority", id, "critical", "--url", server).code == 0
    assert cli("cancel", id, "--reason", "no more", "--url", server).code == 0
    assert cli("result", id, "--url", server).code == 1
    assert cli("retry", id, "--url", server).code == 0
    assert cli("resume", "--url", server).code == 0
    assert cli("result", id, "--wait", "--url", server).out == "hello\n"
    again = cli("cancel", id, "--url", server)
    assert (again.code, "completed" in again.err) == (6, True)
    assert cli("cancel", "0123", "--url", server).code == 5
    wrong = cli("submit", "chat", "--executor", "nobody", "--model", "m", "x", "--url", server)
    assert (wrong.code, "executor" in wrong.err) == (2, True)
    assert wrong.err.count("\n") == 1


def test_a_server_is_looked_after(cli: Cli, server: str, home: Path) -> None:
    assert cli("db", "check", "--url", server).code == 0
    assert cli("db", "stats", "--url", server, "-o", "json").json["url"].endswith("server.db")
    assert cli("db", "backup", str(home / "copy.db"), "--url", server).code == 0
    assert (home / "copy.db").stat().st_size > 0
    assert cli("health", "--url", server).code == 0
    made = cli("keys", "create", "team-a", "--url", server, "-o", "json")
    assert made.code == 0, made.err
    assert cli("keys", "list", "--url", server).code == 4  # from the first key on, everybody needs one


def test_schedules_are_kept_at_the_server(cli: Cli, server: str, home: Path) -> None:
    def cron(*args: str, code: int = 0) -> Any:
        ran = cli("cron", *args, "--url", server)
        assert ran.code == code, ran.err
        return ran

    echo = ("--executor", "echo", "--model", "m", "--prompt", "of {schedule}")
    cron("add", "--name", "daily", "--schedule", "0 9 * * 1-5", "--tz", "Europe/Berlin", *echo)
    assert "there is a schedule 'daily'" in cron("add", "--name", "daily", "--cron", "@daily", *echo, code=6).err
    wrong = cron("add", "--name", "x", "--cron", "0 0 31 2 *", *echo, code=2)
    assert wrong.err.startswith("inferq: expression: day of month: expected a day that February has")
    refused = cron("add", "--name", "x", "--cron", "@daily", "--executor", "nobody", code=2)
    assert (refused.err.count("\n"), "task.executor" in refused.err) == (1, True)
    cron("update", "daily", "--overlap", "queue", "--priority", "high")
    shown = cron("show", "daily", "-o", "json").json
    assert (shown["overlap"], shown["task"]["priority"], shown["description"]) == ("queue", 10, "at 09:00 on Monday to Friday")
    assert cron("run", "daily", "--wait", "-o", "json").json["text"] == "of daily"
    assert cron("history", "daily", "--json=state").json == [{"state": "completed"}]
    cron("disable", "daily")
    assert cron("list", "--disabled", "-q").lines == ["daily"]
    (home / "crons.yaml").write_text("schedules: {nightly: {cron: '@daily', task: {executor: echo, action: echo, payload: {a: 1}}}}")
    assert cron("apply", "-f", "crons.yaml", "--prune", "--json=change").json == [{"change": "created"}, {"change": "removed"}]
    cron("remove", "nobody", code=5)
    cron("remove", "nightly")
    assert cron("list", "-o", "json").json == []


def test_without_a_server_one_line_says_how_to_start_one(cli: Cli, server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ran = cli("list", "--url", url)
    assert ran.code == 7
    assert ran.err.startswith(f"inferq: No server at {url}")
    assert "inferq serve" in ran.err
    assert ran.err.count("\n") == 1


def test_what_works_on_the_store_itself_refuses_a_server(cli: Cli, server: str) -> None:
    ran = cli("work", "--url", server)
    assert (ran.code, f"expected a store such as sqlite:///inferq.db, got the server {server} (" in ran.err) == (2, True)


def chosen(cli: Cli, *args: str) -> tuple[str, str]:
    ran = cli("status", "-o", "json", *args)
    assert ran.code == 0, ran.err
    return ran.json["queue"], ran.json["chosen_by"]


def test_the_address_comes_from_option_environment_profile_configuration_in_this_order(
    cli: Cli, server: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{home / 'data' / 'inferq' / 'inferq.db'}"
    assert chosen(cli) == (store, "the store of this user")
    (home / "inferq.toml").write_text(f'[store]\nurl = "sqlite:///{home}/configured.db"\n')
    assert chosen(cli) == (f"sqlite:///{home}/configured.db", f"{home}/inferq.toml:2")
    assert cli("profile", "add", "one", "--server", f"{home}/one.db").code == 0
    assert cli("profile", "add", "two", "--server", server).code == 0
    assert chosen(cli) == (f"sqlite:///{home}/one.db", "profile one")
    assert cli("profile", "use", "two").code == 0
    assert chosen(cli) == (server, "profile two")
    monkeypatch.setenv("INFERQ_PROFILE", "one")
    assert chosen(cli) == (f"sqlite:///{home}/one.db", "profile one (INFERQ_PROFILE)")
    monkeypatch.setenv("INFERQ_URL", f"sqlite:///{home}/variable.db")
    assert chosen(cli) == (f"sqlite:///{home}/variable.db", "INFERQ_URL")
    assert chosen(cli, "-P", "two") == (server, "profile two")
    assert chosen(cli, "--url", server) == (server, "the address given")
    assert chosen(cli, "--url", str(home / "given.db"))[0] == f"sqlite:///{home}/given.db"
    assert chosen(cli, "--data-dir", str(home))[0] == f"sqlite:///{home}/inferq.db"


def test_a_server_on_this_machine_is_found_when_nothing_is_configured(
    cli: Cli, server: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERQ_SERVER__PORT", server.rpartition(":")[2])
    assert chosen(cli) == (server, "a server found on this machine")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        monkeypatch.setenv("INFERQ_SERVER__PORT", str(stranger.getsockname()[1]))
        assert chosen(cli)[1] == "the store of this user"


def test_profiles_are_listed_used_and_forgotten_and_their_keys_never_shown(cli: Cli, home: Path, server: str) -> None:
    added = cli("profile", "add", "lab", "--server", "http://queue.lan:7125/", "--key-stdin", stdin="iq_id_s3cret\n")
    assert added.code == 0
    assert cli("profile", "add", "other", "--server", server, "--key", "${LAB_KEY}").code == 0
    listed = cli("profile", "list", "-o", "json").json
    file = home / "config" / "inferq" / "keys" / "lab.key"
    assert listed == [
        {"name": "lab", "url": "http://queue.lan:7125", "api_key": f"file:{file}", "used": True},
        {"name": "other", "url": server, "api_key": "${LAB_KEY}", "used": False},
    ]
    assert file.read_text() == "iq_id_s3cret"
    assert stat.S_IMODE(os.stat(file).st_mode) == stat.S_IMODE(os.stat(file.parent.parent / "profiles.toml").st_mode) == 0o600
    missing = cli("-P", "other", "list")
    assert (missing.code, "LAB_KEY" in missing.err) == (2, True)
    assert cli("profile", "remove", "lab").code == 0
    assert not file.exists()
    unknown = cli("-P", "lab", "list")
    assert (unknown.code, "other" in unknown.err) == (2, True)
    for text in (added.err, listed, missing.err, unknown.err):
        assert "s3cret" not in str(text)


def test_a_key_goes_by_option_environment_or_profile(cli: Cli, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cli("keys", "create", "boss", "--role", "admin", "--url", server, "-o", "json").json["secret"]
    refused = cli("list", "--url", server)
    assert (refused.code, refused.out) == (4, "")
    assert "No key was sent: give one with --api-key or api_key=, INFERQ_API_KEY, or a profile" in refused.err
    assert cli("list", "--url", server, "--api-key", key).code == 0
    monkeypatch.setenv("INFERQ_API_KEY", key)
    assert cli("list", "--url", server).code == 0
    monkeypatch.delenv("INFERQ_API_KEY")
    assert cli("profile", "add", "lab", "--server", server, "--key", key).code == 0
    assert cli("list").code == 0
    assert cli("list", "--url", server).code == 0
    wrong = cli("list", "--url", server, "--api-key", "iq_aaaa_bbbb", "-vv")
    assert wrong.code == 4
    assert key not in wrong.err
    assert "bbbb" not in wrong.err


def test_a_tenants_key_sees_the_numbers_that_are_its_own(cli: Cli, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cli("keys", "create", "team-a", "--url", server, "-o", "json").json["secret"]
    monkeypatch.setenv("INFERQ_API_KEY", key)
    monkeypatch.setenv("INFERQ_URL", server)
    stats = cli("status", "-o", "json")
    assert (stats.code, stats.json["total"], stats.json["processes"]) == (0, 0, None)
    assert "processes" not in cli("status").out
    examined = cli("doctor", "-o", "json")
    assert examined.code == 0
    assert {one["check"]: one["verdict"] for one in examined.json}["store"] == "note"


def test_doctor_asks_a_server_for_its_own_backends(cli: Cli, server: str, home: Path) -> None:
    (home / "inferq.toml").write_text('[backends.mine]\nexecutor = "ollama"\nsettings.base_url = "http://127.0.0.1:1"\n')
    examined = cli("doctor", "--url", server, "-o", "json")
    checks = {one["check"]: one["verdict"] for one in examined.json}
    assert (examined.code, checks["backend echo"], "backend mine" in checks) == (0, "ok", False)


def test_ctrl_c_while_waiting_for_a_server_says_how_to_go_on(server: str, processes: Processes, cli: Cli) -> None:
    assert cli("pause", "--url", server).code == 0
    id = submit(cli, server)
    waiting = processes.start("result", id, "--wait", "--url", server)
    assert waiting.stderr is not None
    while "waiting" not in (line := waiting.stderr.readline()):
        assert line, "it ended"
    waiting.send_signal(2)
    _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"inferq result {id}" in said


def test_filters_and_bulk_changes_go_to_the_server(cli: Cli, server: str) -> None:
    ids = [submit(cli, server, "hi", "--tag", tag) for tag in ("a", "a", "b")]
    assert cli("--url", server, "wait", *ids, "-q").code == 0
    assert cli("--url", server, "list", "tag:a", "-q").lines == ids[1::-1]
    assert cli("--url", server, "list", "tag:*", "sort:created", "limit:2", "-q").lines == ids[:2]
    wrong = cli("--url", server, "list", "tgs:a")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean tags?" in wrong.err
    assert cli("--url", server, "delete", "--query", "tag:a", "--dry-run", "-q").lines == ids[1::-1]
    assert cli("--url", server, "delete", "--query", "tag:a", "--yes", "--json=state,done").json == {"state": "done", "done": 2}
    assert cli("--url", server, "list", "-q").lines == [ids[2]]
    assert cli("--url", server, "operations", "list", "--json=verb,done").json == [{"verb": "delete", "done": 2}]


def test_a_batch_is_sent_watched_and_collected_at_the_server(cli: Cli, server: str, home: Path) -> None:
    rows = [{"executor": "echo", "action": "echo", "payload": {"n": n}} for n in range(3)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = cli("--url", server, "submit", "batch", "--file", "rows.jsonl", "--name", "far", "--sync", "-o", "json")
    assert ran.code == 0, ran.err
    assert [task["status"] for task in ran.json["tasks"]] == ["completed"] * 3
    assert [json.loads(line)["line"] for line in cli("--url", server, "batch", "results", "far", "--follow").lines] == [1, 2, 3]
    assert cli("--url", server, "batch", "list", "-q").lines == [ran.json["batch_id"]]
    wrong = cli("--url", server, "submit", "batch", "--file", "-", stdin='{"executor": "echo", "action": "sing"}')
    assert wrong.code == 2
    assert "line 1: action: expected an action of executor echo" in wrong.err
    assert cli("--url", server, "batch", "show", "nothing").code == 5


def test_the_page_is_found_and_the_api_printed(cli: Cli, server: str, home: Path) -> None:
    assert cli("--url", server, "open", "--print", "-q").out == f"{server}/\n"
    assert cli("--url", f"{home}/q.db", "open", "--print").code == 7
    ran = cli("openapi")
    assert ran.code == 0
    assert ran.json["openapi"].startswith("3.1")
    assert "/api/tasks" in ran.json["paths"]


def test_a_store_is_carried_from_a_server_and_to_a_server(cli: Cli, server: str, home: Path) -> None:
    id = submit(cli, server, "to be carried")
    assert cli("wait", id, "--url", server).code == 0
    assert cli("drain", "--url", server).code == 0
    assert cli("db", "export", "a.jsonl", "--url", server).code == 0
    assert cli("--store", "here.db", "db", "import", "a.jsonl", "-o", "json").json["tasks"] == 1
    assert cli("--store", "here.db", "result", id).out == "to be carried\n"
    there = cli("db", "import", "a.jsonl", "--url", server, "-o", "json")
    assert (there.code, there.json["present"]) == (0, 1)
    assert cli("health", "--url", server).code == 7


def test_models_are_those_of_the_servers_backends(cli: Cli, server: str, home: Path) -> None:
    (home / "inferq.toml").write_text('[backends.mine]\nexecutor = "echo"\nmodels = ["only-here"]\n')

    listed = cli("--url", server, "models", "list", "-o", "json").json
    loaded = cli("--url", server, "models", "ps", "--backend", "echo")
    unknown = cli("--url", server, "models", "list", "--backend", "mine")

    assert {"model": "echo", "backend": "echo", "executor": "echo"} in [
        {k: one[k] for k in ("model", "backend", "executor")} for one in listed
    ]
    assert "only-here" not in [one["model"] for one in listed]
    assert (loaded.code, "echo: it does not say which models it has in memory" in loaded.err) == (0, True)
    assert (unknown.code, "no backend is called 'mine'" in unknown.err) == (5, True)


def test_a_model_is_loaded_by_a_server_or_refused_with_the_reason(cli: Cli, server: str) -> None:
    refused = cli("models", "load", "m", "--backend", "echo", "--url", server)
    assert (refused.code, "its executor cannot load models" in refused.err) == (6, True)
    assert cli("models", "unload", "m", "--backend", "none", "--url", server).code == 5


def test_a_server_is_measured_and_its_tasks_are_removed_afterwards(cli: Cli, server: str, home: Path) -> None:
    kept = submit(cli, server, "not of the measurement")
    assert cli("wait", kept, "--url", server).code == 0
    ran = cli("bench", "--url", server, "--tasks", "30", "--concurrency", "3", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["where"], ran.json["work"]["tasks"], ran.json["sync_ms"]) == (server, 30, None)
    assert ran.json["alone"]["result_ms"]["p50"] > 0
    assert cli("list", "-q", "--url", server, "--limit", "0").lines == [kept]


def test_local_opens_the_store_here_whatever_servers_there_are(cli: Cli, server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_SERVER__PORT", server.rpartition(":")[2])
    found = cli("status", "-o", "json").json
    assert (found["queue"], found["chosen_by"]) == (server, "a server found on this machine")
    here = cli("--local", "status", "-o", "json").json
    assert here["chosen_by"] == "--local"
    assert here["queue"].startswith("sqlite:")
    id = cli("--local=other.db", "submit", "chat", "--executor", "echo", "--model", "m", "x", "-q").out.strip()
    assert cli("list", "-q", "--local=other.db").lines == [id]
    assert cli("list", "--local", "-q").lines == []
    both = cli("--url", server, "list", "--local")
    assert (both.code, "--local contradicts --url" in both.err) == (2, True)
    monkeypatch.setenv("INFERQ_URL", server)
    assert "say which store with --local=STORE" in cli("--local", "list").err


def test_a_worker_may_be_told_which_backends_are_its_own(cli: Cli, processes: Processes, home: Path) -> None:
    (home / "inferq.toml").write_text('[backends.one]\nexecutor = "echo"\n[backends.two]\nexecutor = "echo"\n')
    ids = [cli("submit", "chat", "--executor", "echo", "--backend", name, "--model", "m", "x", "-q").out.strip() for name in ("one", "two")]
    processes.start("worker", "--backend", "two")
    assert cli("wait", ids[1], "--timeout", "20s").code == 0
    assert cli("status", ids[0], "--json=state,note").json["state"] == "pending"
    assert cli("result", ids[1]).out == "x\n"
    wrong = cli("work", "--backend", "three")
    assert (wrong.code, "expected the name of a configured backend (one, two)" in wrong.err) == (2, True)


def test_a_server_makes_tasks_again_at_another_priority_or_with_another_model(cli: Cli, server: str) -> None:
    assert cli("pause", "--url", server).code == 0
    id = submit(cli, server, "hello", "--delay", "1h")
    assert cli("retry", id, "--now", "--priority", "high", "--url", server, "--json=state,priority").json == [
        {"state": "pending", "priority": 10}
    ]
    assert cli("cancel", id, "--url", server).code == 0
    (new,) = cli("retry", id, "--model", "other", "--url", server, "-o", "json").json
    assert (new["model"], new["metadata"], new["priority"]) == ("other", {"retry_of": id}, 10)
    assert cli("resume", "--url", server).code == 0
    assert cli("result", new["id"], "--wait", "--url", server).out == "hello\n"
