"""README.md is true: each Python block and each command of it runs, in the order it stands there, as a newcomer would type it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
INFERQ = Path(sys.executable).with_name("inferq")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


class Ollama(BaseHTTPRequestHandler):
    """Just enough of Ollama's /api/chat for the five-line program."""

    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/chat"
        assert asked["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        for word, done in (("Because ", False), ("of air.", False), ("", True)):
            line = {
                "model": asked["model"],
                "created_at": "2026-01-02T03:04:05Z",
                "message": {"role": "assistant", "content": word},
                "done": done,
            }
            self.wfile.write(
                json.dumps(line | ({"done_reason": "stop", "eval_count": 2, "prompt_eval_count": 9} if done else {})).encode() + b"\n"
            )

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def ollama() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI"))}
    store = {"INFERQ_STORE__URL": f"sqlite:///{folder}/readme.db"}
    return kept | store | {"PATH": f"{INFERQ.parent}:{os.environ['PATH']}"} | more


def test_the_five_line_program_runs(tmp_path: Path, ollama: str) -> None:
    program = blocks("python")[0]
    assert len(program.strip().splitlines()) <= 5
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=environment(tmp_path, OLLAMA_HOST=ollama),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "Because of air.\n"), ran.stderr
    assert (tmp_path / "inferq.db").exists()


def test_the_asyncio_program_runs(tmp_path: Path) -> None:
    (program,) = (block for block in blocks("python") if "asyncio" in block)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Write a haiku about queues")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the README's server, on a port that is free here."""
    (command,) = (block.partition("#")[0].split() for block in blocks("sh") if block.startswith("inferq serve"))
    env = environment(tmp_path, INFERQ_SERVER__PORT="0", INFERQ_LOG__FORMAT="json")
    server = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if (told := json.loads(line)).get("event") == "server.started":
            yield told["url"]
            break
    server.send_signal(signal.SIGTERM)
    rest = server.stderr.read()
    server.stderr.close()
    assert server.wait(60) == 0, rest


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_line_for_the_server_runs(tmp_path: Path, served: str) -> None:
    (script,) = (block for block in blocks("sh") if "curl" in block)
    said: list[str] = []
    for line in re.split(r"\n(?=\S)", script.strip().replace("http://127.0.0.1:7125", served)):
        ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, ""), (line, ran.stderr)
        said.append(ran.stdout)
    made, found, status, listed, answered = said
    task_id = json.loads(made)["id"]
    assert [task["id"] for task in json.loads(found)["items"]] == [task_id]
    assert json.loads(status)["total"] == 1
    assert task_id in listed
    assert "Hello again" in answered


def test_the_program_for_the_server_runs(tmp_path: Path, served: str) -> None:
    (program,) = (block for block in blocks("python") if "7125" in block)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("http://127.0.0.1:7125", served)],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "Write a haiku about queues"), ran.stderr


@pytest.mark.e2e
def test_each_command_runs_in_the_order_it_stands(tmp_path: Path) -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        if os.environ.get("INFERQ_E2E") == "required":
            pytest.fail("the extra `local` is not installed")
        pytest.skip("the extra `local` is not installed")
    (script,) = (block for block in blocks("sh") if "inferq run" in block)
    said: dict[str, str] = {}
    for line in script.splitlines():
        arguments = shlex.split(line, comments=True)
        if arguments[:2] == ["inferq", "work"]:
            work_until_done(arguments, tmp_path)
            continue
        ran = subprocess.run(arguments, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, (line, ran.stderr)
        said[arguments[1]] = ran.stdout
    assert said["run"].strip()
    assert re.fullmatch(r"[0-9a-f-]{36}\n", said["submit"])
    listed = [json.loads(line) for line in said["list"].splitlines()]
    assert {(task["executor"], task["state"]) for task in listed} == {("llamacpp", "completed"), ("echo", "completed")}


def work_until_done(arguments: list[str], folder: Path) -> None:
    worker = subprocess.Popen(arguments, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if "completed" in line:
            break
    worker.send_signal(signal.SIGINT)
    worker.stderr.read()
    assert worker.wait(30) == 0
    worker.stderr.close()


def test_every_page_that_is_linked_exists() -> None:
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([\w./-]+)\)", (ROOT / page).read_text("utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_every_path_named_in_the_architecture_exists() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert named
    source = ROOT / "src/inferq"
    for path in named:
        assert any((base / path).exists() for base in (ROOT, source, ROOT / "tests", source / "stores/sqlite", source / "server")), path
