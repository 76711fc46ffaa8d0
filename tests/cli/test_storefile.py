"""`inferq db compact` and `inferq db migrate`: space comes back, old files come forward, and both refuse what would harm."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from inferq.stores.sqlite import compacting, files
from inferq.stores.sqlite.statements import MIGRATIONS

Cli = Any  # the fixtures of the conftest, which test files cannot import
Processes = Any
NEWEST = len(MIGRATIONS)


def fill(cli: Cli, home: Path, count: int = 400) -> None:
    text = "word " * 2000
    line = json.dumps({"executor": "echo", "action": "chat", "payload": {"messages": [{"role": "user", "content": text}]}})
    (home / "tasks.jsonl").write_text(f"{line}\n" * count)
    assert cli("submit", "batch", "--file", "tasks.jsonl").code == 0
    for verb in ("cancel", "delete"):
        assert cli(verb, "--query", "action:chat", "--yes").code == 0


def test_the_space_of_removed_tasks_comes_back_while_another_process_works(cli: Cli, processes: Processes, home: Path) -> None:
    fill(cli, home)
    worker = processes.start("work", "--quiet")
    dry = cli("db", "compact", "--dry-run", "-o", "json")
    assert (dry.code, dry.json["dry_run"]) == (0, True)
    assert dry.json["free"] > 3_000_000
    assert (home / "queue.db").stat().st_size > 3_000_000

    ran = cli("db", "compact", "-o", "json")

    assert ran.code == 0, ran.err
    assert ran.json["before"] - ran.json["after"] > 3_000_000
    assert (home / "queue.db").stat().st_size < 1_000_000
    assert "MB came back" in ran.err
    id = cli("submit", "chat", "--executor", "echo", "--model", "m", "hello", "-q").out.strip()
    assert cli("wait", id, "--timeout", "20s").code == 0
    assert worker.poll() is None
    assert cli("db", "check").code == 0


def test_it_is_refused_without_room_for_the_copy_and_while_tasks_run_in_a_large_store(
    cli: Cli, processes: Processes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cli, home, 20)
    monkeypatch.setattr(compacting, "_RESERVE", 1 << 60)
    ran = cli("db", "compact")
    assert (ran.code, "MB free at" in ran.err, "nothing was changed" in ran.err) == (7, True, True)
    monkeypatch.undo()
    monkeypatch.setenv("INFERQ_URL", f"sqlite:///{home / 'queue.db'}")
    (home / "inferq.toml").write_text('[backends.script]\nexecutor = "script"\n')
    monkeypatch.chdir(home)
    id = cli("submit", "script", "-q", "--", "sh", "-c", "until [ -e go ]; do sleep 0.02; done").out.strip()
    worker = processes.start("work")
    while cli("show", id, "-o", "json").json["state"] != "running":
        assert worker.poll() is None
    monkeypatch.setattr(compacting, "QUIET", 0)
    refused = cli("db", "compact")
    assert (refused.code, "got 1 running tasks; `inferq drain --wait` first" in refused.err) == (6, True)
    (home / "go").touch()


def old_store(path: Path, schema: int) -> None:
    db = files.connect(str(path))
    files.migrate(db, schema)
    db.execute("INSERT INTO pause (scope) VALUES ('echo/m')")
    db.close()


def test_an_old_store_is_looked_at_then_brought_forward_with_a_copy_of_it_as_it_was(cli: Cli, home: Path) -> None:
    old_store(home / "old.db", 4)
    look = cli("--store", "old.db", "db", "migrate", "--dry-run", "-o", "json")
    assert look.json["schema"] == 4
    assert [name[:4] for name in look.json["pending"]] == [f"{n:04}" for n in range(5, NEWEST + 1)]
    assert list(home.glob("*.bak")) == []

    part = cli("--store", "old.db", "db", "migrate", "--to", "5", "--no-backup", "-o", "json")
    assert (part.json["schema"], part.json["backup"]) == (5, None)
    whole = cli("--store", "old.db", "db", "migrate", "-o", "json")
    assert (whole.json["schema"], whole.json["pending"]) == (NEWEST, [])
    assert whole.json["backup"] == str(home / "old.db.schema-5.bak")
    copy = sqlite3.connect(whole.json["backup"])
    assert copy.execute("PRAGMA user_version").fetchone() == (5,)
    copy.close()
    assert cli("--store", "old.db", "resume", "echo/other", "-q").lines == ["echo/m"]
    again = cli("--store", "old.db", "db", "migrate", "-o", "json")
    assert (again.code, again.json["backup"]) == (0, None)


def test_what_cannot_be_migrated_is_refused_with_what_to_do(cli: Cli, processes: Processes, home: Path) -> None:
    old_store(home / "old.db", 4)
    back = cli("--store", "old.db", "db", "migrate", "--to", "3")
    assert (back.code, "a store never goes back; restore a backup made before" in back.err) == (2, True)
    assert cli("--store", "old.db", "db", "migrate", "--to", "99").code == 7
    assert "there is none at" in cli("--store", "none.db", "db", "migrate").err
    assert "works on the store itself" in cli("--url", "http://127.0.0.1:1", "db", "migrate").err
    newer = sqlite3.connect(home / "old.db")
    newer.execute("PRAGMA user_version = 999")
    newer.close()
    ran = cli("--store", "old.db", "db", "migrate", "--dry-run")
    assert (ran.code, "has schema 999, this inferq knows up to" in ran.err) == (7, True)


def test_a_store_that_somebody_has_open_is_left_alone(cli: Cli, processes: Processes, home: Path) -> None:
    worker = processes.start("work", "--quiet")
    while not list(home.glob("queue.db-instances/*.lock")):
        assert worker.poll() is None
    db = sqlite3.connect(home / "queue.db")
    db.execute(f"PRAGMA user_version = {NEWEST - 1}")
    db.commit()
    db.close()
    ran = cli("db", "migrate")
    assert (ran.code, "stop them first" in ran.err) == (7, True)
    assert list(home.glob("*.bak")) == []
