"""docs/webhooks.md and docs/security.md are true: programs, commands and configuration on them run."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inferq import Queue, Settings
from inferq.config import WebhookSettings, load
from inferq.engine import Backend
from inferq.testing import EchoExecutor

DOCS = Path(__file__).parents[2] / "docs"
INFERQ = Path(sys.executable).with_name("inferq")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "INFERQ_URL": str(tmp_path / "q.db")}


def run(program: str, tmp_path: Path, environment: dict[str, str]) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize(("page", "count"), [("webhooks.md", 9), ("security.md", 8)])
def test_the_commands_run(page: str, count: int, tmp_path: Path, environment: dict[str, str]) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert len(lines) == count
    for line in lines:
        ran = subprocess.run(
            line.replace("inferq", str(INFERQ), 1), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}: {ran.stderr}"


def test_the_program_that_puts_a_webhook_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    secret, names = run(blocks("webhooks.md", "python")[0], tmp_path, environment)
    assert secret.startswith("whsec_")
    assert names == "['ops']"


def test_the_program_about_keys_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    (program,) = blocks("security.md", "python")
    assert run(program, tmp_path, environment) == ["True", "True"]


def test_the_receiver_takes_what_we_sign_once_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: dict[str, Any] = {}
    exec(compile(blocks("webhooks.md", "python")[1], "docs/webhooks.md", "exec"), made)
    receiver = type("Silent", (made["Receiver"],), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("OPS_SECRET", secret)
    settings = Settings(webhooks=WebhookSettings(allow_private=True, max_retries=0))
    try:
        with Queue(str(tmp_path / "q.db"), backends=[EchoExecutor("echo")], settings=settings) as queue:
            url = f"http://127.0.0.1:{server.server_port}/"
            queue.webhooks.put("ops", url=url, events=["task.completed"], secret=secret)
            queue.webhooks.put("stranger", url=url, events=["task.completed"])
            handle = queue.chat("m", "hi", executor="echo")
            handle.result(timeout=20)
            found = {}
            while len(found) < 2:
                for name in ("ops", "stranger"):
                    for one in queue.webhooks.deliveries(name).deliveries:
                        queue.wait(one.id, timeout=20)
                        found[name] = queue.webhooks.delivery(one.id).status
            assert found == {"ops": 204, "stranger": 401}
            (again,) = queue.webhooks.replay("ops", queue.webhooks.deliveries("ops").deliveries[0].id)
            queue.wait(again.id, timeout=20)
            told = capsys.readouterr().out.splitlines()
            assert told == [f"task.completed {handle.id}"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_configuration_shown_opens_two_backends_with_bounds(tmp_path: Path) -> None:
    (text,) = blocks("security.md", "toml")
    assert tomllib.loads(text)
    file = tmp_path / "inferq.toml"
    file.write_text(text)
    for settings in load(file=file).settings.backends:
        assert Backend.from_settings(settings).over_http
