"""docs/server.md, docs/filters.md and docs/configuration.md are true: their commands, requests and programs run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferq import AsyncQueue, Queue, State
from inferq.testing import EchoExecutor

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "PATH": f"{BIN}:{kept['PATH']}"}


Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Shell:
    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


@contextmanager
def serving(command: str, folder: Path, env: dict[str, str]) -> Iterator[dict[str, Any]]:
    """How a server greets, on a port that is free here; it ends well."""
    words = [*shlex.split(re.sub(r"--port \d+", "", command), comments=True), "--port", "0"]
    server = subprocess.Popen(
        words, cwd=folder, env=env | {"INFERQ_LOG__FORMAT": "json"}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    with server.stderr as log:
        started = next((told for line in log if (told := json.loads(line)).get("event") == "server.started"), None)
        assert started is not None, "it ended before it started"
        try:
            yield started
        finally:
            server.terminate()
            rest = log.read()
            assert server.wait(60) == 0, rest


# ── docs/server.md ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_way_to_start_it_serves_as_is_said(tmp_path: Path, environment: dict[str, str], shell: Shell) -> None:
    _, *starts, health = blocks("server.md", "sh")[0].splitlines()
    slots = []
    for start in starts:
        with serving(start, tmp_path, environment) as started:
            slots.append(started["slots"])
            assert shell(f"{health.partition('#')[0]} --url {started['url']}").returncode == 0
        assert shell(f"{health.partition('#')[0]} --url {started['url']}").returncode == 7
    assert slots[1:] == [8, 0]
    assert (tmp_path / "data").is_dir()


def test_each_request_is_answered(tmp_path: Path, environment: dict[str, str], shell: Shell) -> None:
    post, result, stream = re.split(r"\n(?=curl)", blocks("server.md", "sh")[1].strip())
    with serving("inferq serve", tmp_path, environment) as started:

        def curl(line: str, id: str = "") -> str:
            ran = shell(line.replace("localhost:7125", started["url"].removeprefix("http://")).replace("/ID/", f"/{id}/"))
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        made = json.loads(curl(post))
        assert json.loads(curl(result, made["id"]))["text"] == "Why is the sky blue?"
        said = [json.loads(line.removeprefix("data: ")) for line in curl(stream, made["id"]).splitlines() if line.startswith("data: ")]
    assert "".join(chunk.get("text", "") for chunk in said[:-1]) == "Why is the sky blue?"
    assert said[-1] == {"kind": "end", "text": "completed"}


def test_the_application_of_a_user_serves_the_queue_under_its_prefix(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "ours.py").write_text(blocks("server.md", "python")[0])
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "uvicorn", "ours:app", "--port", "0"],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    with server.stderr as log:
        said = ""
        for line in log:
            said += line
            if found := re.search(r"running on (http://[\d.:]+)", line):
                break
        else:
            pytest.fail(said)
        task = {"executor": "echo", "action": "echo", "payload": {"n": 1}}
        asked = urllib.request.Request(
            f"{found[1]}/inferq/api/tasks", json.dumps(task).encode(), {"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            place = answer.headers["location"]
        with urllib.request.urlopen(f"{found[1]}{place}/result?wait=20", timeout=30) as answer:
            assert json.load(answer)["data"] == {"n": 1}
        server.terminate()
        rest = log.read()
        server.wait(60)
    assert "Traceback" not in rest


async def test_the_messages_of_the_socket_are_answered_as_the_table_says(tmp_path: Path, environment: dict[str, str]) -> None:
    rows = re.findall(r"^\| (`\{.*`|) ?\| (.+) \|$", (DOCS / "server.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 5
    with serving("inferq serve", tmp_path, environment) as started:
        async with aiohttp.ClientSession(started["url"]) as session:
            task = {
                "executor": "echo",
                "action": "chat",
                "model": "m",
                "payload": {"messages": [{"role": "user", "content": "a b c d e f"}]},
            }
            async with session.post("/api/tasks", json=task) as answer:
                id = (await answer.json())["id"]
            async with session.get(f"/api/tasks/{id}/result?wait=20") as answer:
                assert answer.status == 200
            async with session.ws_connect("/ws") as socket:
                for sent, promised in rows:
                    ops = re.findall(r"`(\w+)`", promised)[: 1 if "`stats`" in promised else None]
                    for message in re.findall(r"`(\{.*?\})`", sent):
                        await socket.send_str(message.replace("…", id).replace('"after": 120', '"after": 0'))
                    while ops:
                        answered = await socket.receive_json(timeout=20)
                        if answered["op"] == ops[0]:
                            ops.pop(0)
                            fields = re.search(rf"`{answered['op']}` \{{([\w, ]+)", promised)
                            assert not fields or set(fields[1].split(", ")) <= set(answered), answered


# ── docs/filters.md ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mistake_in_a_filter_is_told_as_shown(shell: Shell) -> None:
    typed, *told = blocks("filters.md", "console")[0].splitlines()
    ran = shell(f"INFERQ_URL=q.db {typed.removeprefix('$ ')}")
    assert (ran.returncode, ran.stderr.splitlines(), ran.stdout) == (2, told, "")


def test_each_change_of_all_that_pass_finds_its_tasks(tmp_path: Path, environment: dict[str, str], shell: Shell) -> None:
    environment["INFERQ_URL"] = str(tmp_path / "q.db")
    with Queue(environment["INFERQ_URL"], backends=[EchoExecutor("echo")]) as queue:
        failing = queue.chat("m", "hi", executor="echo", payload={"fail": ["timeout"]}, max_retries=0)
        ended = queue.chat("m", "hi", executor="echo", tags=["test"])
        assert [failing.wait(20).state, ended.wait(20).state] == [State.FAILED, State.COMPLETED]
        queue.pause()
        queue.chat("m", "hi", executor="echo", tags=["nightly"])
    lines = blocks("filters.md", "sh")[0].splitlines()
    assert len(lines) == 6
    for line in lines:
        ran = shell(line)
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
        if "created:-2h" not in line and "tag:nightly" not in line and "purge" not in line:
            assert "DONE\t1\n" in ran.stdout, f"{line}: {ran.stdout}"


async def test_the_program_lists_page_by_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "".join(f"    {line}\n" for line in blocks("filters.md", "python")[0].splitlines())
    made: dict[str, Any] = {}
    exec(f"async def program(queue):\n{body}    return page, rest\n", made)
    async with AsyncQueue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")]) as queue:
        failed = [await queue.chat("m", "hi", executor="echo", payload={"fail": ["auth"]}, metadata={"customer": n}) for n in (41, 42)]
        for handle in failed:
            await handle.wait(20)
        page, _ = await made["program"](queue)
    assert {task.id for task in page.tasks} == {handle.id for handle in failed}
    assert capsys.readouterr().out.split() == [failed[1].id]


# ── docs/configuration.md ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_program_for_settings_gives_what_its_comments_say(shell: Shell) -> None:
    program = blocks("configuration.md", "python")[0]
    asked = re.sub(r"^(\S.*?)  # (.+)$", r"assert \1 == \2, \1", program, flags=re.MULTILINE)
    assert asked.count("assert") == 2
    ran = shell(f"{shlex.quote(sys.executable)} -W error -c {shlex.quote(asked)}")
    assert ran.returncode == 0, ran.stderr
