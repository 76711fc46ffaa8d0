"""`inferq doctor --bundle`: what a bug report needs is in it, and nothing that anybody asked, was answered or keeps secret."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

Cli = Any  # the fixtures of the conftest, which test files cannot import

PRIVATE = {
    "prompt": "zebra-question-in-the-prompt",
    "system": "zebra-system-message",
    "result": "zebra-answer-of-the-model",
    "error": "zebra-error-that-quotes-the-prompt",
    "reason": "zebra-reason-of-a-cancel",
    "metadata": "zebra-metadata-value",
    "tag": "zebra-tag",
    "header": "zebra-header-value",
    "api_key": "sk-zebra-key-of-a-backend",
    "variable": "zebra-key-from-the-environment",
    "own_key": "iq_zebra_own-key-of-the-caller",
    "password": "zebra-password-in-an-address",
    "webhook": "zebra-webhook-header",
    "batch": "zebra-line-of-a-batch",
    "log": "zebra-text-in-the-log",
}


@pytest.fixture
def busy(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEBRA_KEY", PRIVATE["variable"])
    monkeypatch.setenv("INFERQ_API_KEY", PRIVATE["own_key"])
    (home / "inferq.toml").write_text(f"""\
[log]
file = "{home / "inferq.log"}"
level = "debug"
[retry]
max_retries = 0
[backends.echo]
executor = "echo"
[backends.gpu]
executor = "openai"
[backends.gpu.settings]
base_url = "http://user:{PRIVATE["password"]}@127.0.0.1:9/v1"
api_key = "{PRIVATE["api_key"]}"
headers = {{ "X-Odd-Name" = "{PRIVATE["header"]}" }}
[backends.other]
executor = "openai"
[backends.other.settings]
base_url = "http://127.0.0.1:9/v1"
api_key = "${{ZEBRA_KEY}}"
""")
    task = ("--model", "m", "--backend", "echo", "--meta", f"secret={PRIVATE['metadata']}", "--tag", PRIVATE["tag"], "-q")
    ran = cli("run", "m", "--executor", "echo", "--system", PRIVATE["system"], PRIVATE["prompt"])
    assert ran.code == 0, ran.err
    assert cli("run", "m", "--executor", "echo", PRIVATE["result"]).code == 0
    failing = ("--executor", "echo", "--field", "fail=" + json.dumps([{"code": "bad_request", "message": PRIVATE["error"]}]))
    assert cli("run", "m", *failing, "x").code == 1
    id = cli("submit", "chat", "--executor", "echo", *task, "later").out.strip()
    assert cli("cancel", id, "--reason", PRIVATE["reason"]).code == 0
    line = {"executor": "echo", "action": "chat", "payload": {"messages": [{"role": "user", "content": PRIVATE["batch"]}]}}
    (home / "lines.jsonl").write_text(json.dumps(line) + "\n")
    assert cli("submit", "batch", "--file", "lines.jsonl").code == 0
    assert cli("webhooks", "add", "ops", "https://hooks.example/a", "--header", f"Authorization: {PRIVATE['webhook']}").code == 0
    with (home / "inferq.log").open("a") as log:
        log.write(json.dumps({"ts": "2026-01-01T00:00:00Z", "level": "info", "msg": PRIVATE["log"], "event": "task.failed"}) + "\n")
        log.write(f"a line that is no JSON {PRIVATE['log']}\n")


def test_no_secret_prompt_answer_or_error_is_in_a_report(cli: Cli, busy: None, home: Path) -> None:
    ran = cli("doctor", "--bundle", "report.zip", "-o", "json")
    assert ran.code in (0, 1), ran.err
    assert "look before you send it" in ran.err
    kept = {row["code"] for row in cli("list", "-o", "json", "--limit", "0").json}
    assert any(kept), "one of the tasks failed, so that its error could be in the log of events"
    raw = (home / "report.zip").read_bytes()
    with zipfile.ZipFile(home / "report.zip") as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    for what, private in PRIVATE.items():
        for name, text in texts.items():
            assert private not in text, f"{what} is in {name}"
    assert not any("zebra" in text for text in texts.values())
    assert b"zebra" not in raw


def test_what_a_bug_report_needs_is_in_it(cli: Cli, busy: None, home: Path) -> None:
    cli("doctor", "--bundle", "report.zip")
    assert (home / "report.zip").stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(home / "report.zip") as archive:
        parts = {Path(name).name: archive.read(name).decode() for name in archive.namelist()}
    assert sorted(parts) == ["README.txt", "config.json", "doctor.json", "events.jsonl", "log.jsonl", "store.json", "versions.json"]
    versions = json.loads(parts["versions.json"])
    assert versions["packages"]["msgspec"]
    assert {"INFERQ_API_KEY", "INFERQ_URL"} <= set(versions["variables"])
    settings = {row["key"]: row for row in json.loads(parts["config.json"])["settings"]}
    assert settings["retry.max_retries"]["value"] == 0
    assert "inferq.toml" in settings["retry.max_retries"]["source"]
    store = json.loads(parts["store.json"])
    assert store["queue"]["states"]["failed"] == 1
    assert {one["name"] for one in store["backends"]} == {"echo", "gpu", "other"}
    events = [json.loads(line) for line in parts["events.jsonl"].splitlines()]
    failed = [event for event in events if event["type"] == "task.failed"]
    assert len(failed) == 1
    assert failed[0]["code"]
    assert "error" not in failed[0]
    assert any(json.loads(line).get("event") == "task.failed" for line in parts["log.jsonl"].splitlines())
    assert any(finding["check"] == "python" for finding in json.loads(parts["doctor.json"]))


def test_a_report_is_made_also_where_nothing_works_and_overwrites_nothing(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "broken.db").write_text("this is no database, but long enough to be looked at" * 100)
    ran = cli("--store", "broken.db", "doctor", "--bundle", "report.zip")
    assert ran.code == 1
    with zipfile.ZipFile(home / "report.zip") as archive:
        assert json.loads(archive.read("inferq-report/store.json"))["error"] == "StoreDamaged"
    again = cli("doctor", "--bundle", "report.zip")
    assert (again.code, "exists already" in again.err) == (2, True)
    monkeypatch.setenv("INFERQ_WORKER__SLOTS", "many")
    assert cli("doctor", "--bundle", "other.zip").code == 1
    with zipfile.ZipFile(home / "other.zip") as archive:
        assert "slots" in json.loads(archive.read("inferq-report/config.json"))["error"]
    assert cli("doctor", "--bundle", str(home / "no" / "dir.zip")).code in (5, 1)
    assert list(home.glob(".*.part")) == []
