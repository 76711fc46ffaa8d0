"""`inferq webhooks`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inferq import verify_webhook


@pytest.fixture
def received() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A receiver's address and what it got; a path of digits answers with that status."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(int(self.path.strip("/") or 204))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def worker(home: Path, processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that works, and whose receivers may be on this machine."""
    monkeypatch.setenv("INFERQ_WEBHOOKS__ALLOW_PRIVATE", "true")
    monkeypatch.setenv("INFERQ_WEBHOOKS__MAX_RETRIES", "0")
    processes.start("work")


def test_a_webhook_is_added_tested_and_its_failures_replayed(cli: Any, worker: None, received: Any) -> None:
    url, got = received
    added = cli("webhooks", "add", "ops", url, "--event", "task.completed,task.failed", "--header", "X-Team: a", "-o", "json")
    assert added.code == 0, added.err
    assert "not shown again" in added.err
    assert cli("webhooks", "list", "-q").lines == ["ops"]
    tested = cli("webhooks", "test", "ops", "-o", "json")
    assert tested.code == 0, tested.err + tested.out
    assert (tested.json["status"], tested.json["state"]) == (204, "completed")
    assert verify_webhook(got[0][1], got[0][0], added.json["secret"])["type"] == "webhook.test"
    assert cli("webhooks", "add", "ops", f"{url}500").code == 0
    assert cli("webhooks", "test", "ops", "--json=status").json == {"status": 500}
    (failed,) = cli("webhooks", "deliveries", "ops", "--failed", "-q").lines
    assert cli("webhooks", "add", "ops", url).code == 0
    assert cli("webhooks", "replay", "ops", failed).code == 0
    assert cli("webhooks", "replay", "ops").code == 0
    assert added.json["secret"] not in cli("webhooks", "show", "ops", "-o", "json").out


def test_a_webhook_is_disabled_enabled_and_removed(cli: Any) -> None:
    cli("webhooks", "add", "ops", "https://ops.example/hook")
    assert cli("webhooks", "disable", "ops", "--reason", "moving", "--json=enabled,reason").json == [{"enabled": False, "reason": "moving"}]
    assert cli("webhooks", "test", "ops").code == 6
    assert cli("webhooks", "enable", "ops", "--json=enabled").json == [{"enabled": True}]
    cli("webhooks", "disable", "ops", "--reason", "moving")
    (finding,) = [row for row in cli("doctor", "-o", "json").json if row["check"] == "webhook ops"]
    assert (finding["verdict"], "moving" in finding["detail"]) == ("note", True)
    assert cli("webhooks", "remove", "ops", "other").code == 5
    assert cli("webhooks", "remove", "ops").code == 0
    assert cli("webhooks", "list", "-o", "json").json == []


@pytest.mark.parametrize(
    "wrong", [["http://127.0.0.1/x"], ["ftp://x"], ["https://x.example", "--event", "nothing"], ["https://x.example", "--query", "x:1"]]
)
def test_a_wrong_webhook_is_a_usage_error(cli: Any, wrong: list[str]) -> None:
    ran = cli("webhooks", "add", "ops", *wrong)
    assert ran.code == 2, ran.err
    assert cli("webhooks", "list", "-q").lines == []


def test_without_a_worker_the_test_says_so(cli: Any) -> None:
    cli("webhooks", "add", "ops", "https://ops.example/hook")
    ran = cli("webhooks", "test", "ops", "--timeout", "0.05")
    assert ran.code == 8
    assert "inferq work" in ran.err
