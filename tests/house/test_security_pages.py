"""docs/webhooks.md and docs/security.md are true: programs, commands and configuration on them run."""

from __future__ import annotations

import base64
import os
import threading
import tomllib
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pages import Desk, Page

from inferq import Queue, Settings
from inferq.config import WebhookSettings, load
from inferq.engine import Backend
from inferq.testing import EchoExecutor

WEBHOOKS, SECURITY = Page("webhooks.md"), Page("security.md")


@pytest.mark.parametrize(("page", "count"), [(WEBHOOKS, 9), (SECURITY, 9)], ids=["webhooks", "security"])
def test_the_commands_run(page: Page, count: int, desk: Desk) -> None:
    lines = page.commands()
    assert len(lines) == count
    for line in lines:
        desk.command(line)


def test_the_program_that_puts_a_webhook_runs(desk: Desk) -> None:
    secret, names = desk.program(WEBHOOKS.blocks("python")[0])
    assert secret.startswith("whsec_")
    assert names == "['ops']"


def test_the_program_about_keys_runs(desk: Desk) -> None:
    (program,) = SECURITY.blocks("python")
    assert desk.program(program) == ["True", "True"]


def test_the_receiver_takes_what_we_sign_once_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: dict[str, Any] = {}
    exec(compile(WEBHOOKS.blocks("python")[1], "docs/webhooks.md", "exec"), made)
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
    (text,) = SECURITY.blocks("toml")
    assert tomllib.loads(text)
    file = tmp_path / "inferq.toml"
    file.write_text(text)
    for settings in load(file=file).settings.backends:
        assert Backend.from_settings(settings).over_http
