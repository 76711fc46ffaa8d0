"""docs/batches.md is true: its program and its commands run over its files, in the order they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "batches.md").read_text("utf-8")
INFERQ = Path(sys.executable).with_name("inferq")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tasks.json").write_text(blocks("json")[0])
    (tmp_path / "questions.jsonl").write_text(blocks("jsonl")[0])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "INFERQ_URL": str(tmp_path / "q.db")}


@pytest.fixture
def worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen([INFERQ, "work"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        yield
        process.terminate()


def test_the_program_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    (program,) = blocks("python")
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
    assert "2/2  failed 0" in ran.stdout.splitlines()[-1]
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["result"]["text"] for answer in answers] == [
        "Why is the sky blue?\nAnswer in one line.", "Why is grass green?\nAnswer in one line.",
    ]  # fmt: skip


def test_a_table_becomes_json_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    (command,) = blocks("bash")
    (tmp_path / "table.csv").write_text('id,question\n1,"who, me?"\n2,why\n')
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, timeout=60, check=True)
    read = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert read == [{"id": "1", "question": "who, me?"}, {"id": "2", "question": "why"}]


@pytest.mark.usefixtures("worker")
def test_the_commands_run(tmp_path: Path, environment: dict[str, str]) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 13
    for line in lines:
        ran = subprocess.run(
            line.replace("inferq", str(INFERQ), 1), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
    assert [json.loads(line)["key"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()] == ["1", "2"]


def test_every_route_of_the_page_exists() -> None:
    from inferq.server.batches import ROUTES

    said = {route.path.rpartition("/")[2].strip("{}") for route in ROUTES}
    named = set(re.findall(r"/api/batches(?:/\{id\})?/?(\w*)", PAGE)) | set(re.findall(r"…/(\w+)", PAGE))
    assert named - {""} <= said | {"id"}
    assert {"import", "tasks", "seal", "pause", "resume", "cancel", "retry", "priority", "results", "items", "errors"} <= named
