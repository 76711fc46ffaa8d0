"""docs/schedules.md is true: its program and its commands run, in the order they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text("utf-8")
INFERQ = Path(sys.executable).with_name("inferq")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "INFERQ_URL": str(tmp_path / "q.db")}


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
    *fires, states = ran.stdout.splitlines()
    assert len(fires) == 5
    assert all("T09:00:00+0" in fire for fire in fires)
    assert states == "[]"


def test_the_commands_run(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "crons.toml").write_text(blocks("toml")[0])
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 12
    for line in lines:
        ran = subprocess.run(
            line.replace("inferq", str(INFERQ), 1), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
