"""`inferq db export` and `inferq db import`: through pipes and servers, interrupted, and twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Cli = Any  # the fixtures of the conftest, which test files cannot import
Processes = Any


def many(home: Path, count: int, *, words: int = 1) -> None:
    text = "word " * words
    lines = [json.dumps({"executor": "echo", "action": "chat", "payload": {"messages": [{"role": "user", "content": text}]}})] * count
    (home / "tasks.jsonl").write_text("\n".join(lines) + "\n")


def test_a_store_goes_through_a_pipe_into_another_and_a_second_time_adds_nothing(cli: Cli, home: Path) -> None:
    many(home, 30)
    assert cli("submit", "batch", "--file", "tasks.jsonl", "--name", "nightly").code == 0
    said = cli("db", "export", "a.jsonl", "-o", "json")
    assert said.json == {"path": str(home / "a.jsonl"), "bytes": (home / "a.jsonl").stat().st_size}
    assert cli("db", "export", "a.jsonl").code == 2
    piped = cli("db", "export", "-")
    assert piped.out == (home / "a.jsonl").read_text()
    assert "exported" in piped.err

    dry = cli("--store", "b.db", "db", "import", "a.jsonl", "--dry-run", "-o", "json")
    assert (dry.code, dry.json["tasks"], dry.json["dry_run"]) == (0, 30, True)
    assert cli("--store", "b.db", "list", "-q").lines == []
    first = cli("--store", "b.db", "db", "import", "-", "-o", "json", stdin=piped.out)
    assert (first.code, first.json["tasks"], first.json["batches"], first.json["present"]) == (0, 30, 1, 0)
    again = cli("--store", "b.db", "db", "import", "a.jsonl", "-o", "json")
    assert (again.code, again.json["tasks"], again.json["present"]) == (0, 0, 33)
    assert cli("--store", "b.db", "db", "export", "-").out == piped.out
    assert cli("--store", "b.db", "batch", "show", "nightly", "-o", "json").json["total"] == 30
    assert cli("--store", "b.db", "list", "-q", "--limit", "0").lines == cli("list", "-q", "--limit", "0").lines
    assert cli("--store", "b.db", "db", "check").code == 0


def test_wrong_lines_and_a_file_that_is_cut_short_end_with_partial(cli: Cli, home: Path) -> None:
    many(home, 3)
    cli("submit", "batch", "--file", "tasks.jsonl")
    whole = cli("db", "export", "-").out.splitlines()
    torn = [*whole[:2], whole[2].replace('"state":"pending"', '"state":"flying"'), *whole[3:-1]]
    ran = cli("--store", "b.db", "db", "import", "-", "-o", "json", stdin="\n".join(torn))
    assert (ran.code, ran.json["tasks"], ran.json["whole"]) == (3, 2, False)
    assert "line 3: Invalid enum value 'flying' - at `$.state`" in ran.err
    assert "the archive is cut short" in ran.err
    no_archive = cli("--store", "b.db", "db", "import", "tasks.jsonl")
    assert (no_archive.code, no_archive.err.count("\n")) == (2, 1)
    assert cli("db", "import", "nothing.jsonl").code == 5


def test_an_import_that_was_killed_goes_on_where_it_was(cli: Cli, processes: Processes, home: Path) -> None:
    many(home, 3000, words=200)
    cli("submit", "batch", "--file", "tasks.jsonl", "--name", "big")
    cli("db", "export", "a.jsonl")
    archive = (home / "a.jsonl").read_bytes()
    importing = processes.start("--store", "b.db", "db", "import", "-", stdin=subprocess.PIPE)
    # It has taken some of it when its standard input is full again: what the pipe holds is less than what we have written.
    fed = importing.stdin.fileno()
    os.write(fed, archive[: len(archive) // 2])
    kept = 0
    while not kept:
        asked = cli("--store", "b.db", "list", "-q", "--limit", "1")
        kept = len(asked.lines)
    importing.kill()
    importing.wait()

    again = cli("--store", "b.db", "db", "import", "a.jsonl", "-o", "json")
    assert again.code == 0, again.err
    assert again.json["present"] > 0
    assert 0 < again.json["tasks"] < 3000
    assert cli("--store", "b.db", "db", "export", "-").out.encode() == archive
    assert cli("--store", "b.db", "db", "check").code == 0


def test_a_reader_that_leaves_ends_an_export_quietly(home: Path) -> None:
    many(home, 2000, words=500)
    inferq = f"{sys.executable} -m inferq"
    script = f"{inferq} submit batch --file tasks.jsonl -q >/dev/null && {inferq} db export - | head -c 100 | wc -c"
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, "100")
    assert "Traceback" not in ran.stderr
