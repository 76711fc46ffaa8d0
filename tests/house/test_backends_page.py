"""docs/backends.md says what is so: its configuration is loaded, its commands and its program run, its gates are all there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest

from inferq import AsyncQueue
from inferq.cli import main
from inferq.config import Places, load
from inferq.waiting import GateName

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[number]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = block("toml").replace('"ollama"\nslots', '"echo"\nslots')
    (tmp_path / "inferq.toml").write_text(re.sub(r"settings\.base_url.*gpu.*\n", "", text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INFERQ_URL", str(tmp_path / "q.db"))
    return tmp_path


def test_the_configuration_shown_is_valid_and_its_key_a_reference(tmp_path: Path) -> None:
    (tmp_path / "inferq.toml").write_text(block("toml"))
    places = Places(cwd=tmp_path, home=tmp_path, user=tmp_path / "u", system=(), data=tmp_path / "d")
    settings = load(env={"CLOUD_KEY": "sk-secret"}, places=places).settings
    assert [backend.name for backend in settings.backends] == ["gpu-1", "gpu-2", "cloud"]
    cloud = settings.backend("cloud")
    assert cloud is not None
    assert cloud.opened()["api_key"] == "sk-secret"
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("line", [line for line in block("sh").splitlines() if line != "inferq backends test"])
def test_each_command_runs(home: Path, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)[1:]) == 0
    assert capfd.readouterr().out


def test_a_program_names_its_own_backends(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python"), {})
    assert capsys.readouterr().out == "['gpu-1', 'here']\nhere\n"


async def test_the_program_that_steers_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block("python", 1), names)
    async with AsyncQueue(str(home / "q.db")) as queue:
        await names["renew"](queue)
        assert "('gpu-2', 'draining', 0, 0)" in capsys.readouterr().out
        assert (await queue.backends.get("gpu-2")).state == "up"


def test_every_gate_is_in_the_table() -> None:
    assert [gate for gate in get_args(GateName) if f"`{gate}`" not in PAGE] == []


def test_the_defaults_named_are_the_defaults() -> None:
    from inferq import Settings

    settings = Settings()
    for text, value in [
        ("`remote.remote_priority` (15)", settings.remote.remote_priority == 15),
        ("`remote.overflow_priority` (10)", settings.remote.overflow_priority == 10),
        ("`remote.max_local_queue` (100)", settings.remote.max_local_queue == 100),
        ("`breaker.failures` (5)", settings.breaker.failures == 5),
        ("`health.interval` (30 s)", settings.health.interval == 30),
        ("`health.failures` (2)", settings.health.failures == 2),
    ]:
        assert text in PAGE
        assert value
