"""docs/batches.md is true: its program and its commands run over its files, in the order they stand there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import INFERQ, Desk, Page

PAGE = Page("batches.md")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(PAGE.blocks("json")[0])
    (tmp_path / "questions.jsonl").write_text(PAGE.blocks("jsonl")[0])


@pytest.fixture
def worker(desk: Desk) -> Iterator[None]:
    with subprocess.Popen([INFERQ, "work"], cwd=desk.folder, env=desk.environment, stderr=subprocess.DEVNULL) as process:
        yield
        process.terminate()


def test_the_program_runs(tmp_path: Path, desk: Desk) -> None:
    (program,) = PAGE.blocks("python")
    assert "2/2  failed 0" in desk.program(program)[-1]
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["result"]["text"] for answer in answers] == [
        "Why is the sky blue?\nAnswer in one line.", "Why is grass green?\nAnswer in one line.",
    ]  # fmt: skip


def test_a_table_becomes_json_lines(tmp_path: Path, desk: Desk) -> None:
    (command,) = PAGE.blocks("bash")
    (tmp_path / "table.csv").write_text('id,question\n1,"who, me?"\n2,why\n')
    desk.command(command)
    read = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert read == [{"id": "1", "question": "who, me?"}, {"id": "2", "question": "why"}]


@pytest.mark.usefixtures("worker")
def test_the_commands_run(tmp_path: Path, desk: Desk) -> None:
    lines = PAGE.commands()
    assert len(lines) == 13
    for line in lines:
        desk.command(line)
    assert [json.loads(line)["key"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()] == ["1", "2"]


def test_every_route_of_the_page_exists() -> None:
    from inferq.server.batches import ROUTES

    said = {route.path.rpartition("/")[2].strip("{}") for route in ROUTES}
    named = set(re.findall(r"/api/batches(?:/\{id\})?/?(\w*)", PAGE.text)) | set(re.findall(r"…/(\w+)", PAGE.text))
    assert named - {""} <= said | {"id"}
    assert {"import", "tasks", "seal", "pause", "resume", "cancel", "retry", "priority", "results", "items", "errors"} <= named
