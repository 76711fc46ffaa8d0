"""The shell completes what exists: asked as the shells ask, and in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import get_completion_class

from inferq.cli import root
from inferq.cli.app import App

Completes = Callable[..., list[str]]
ECHO = ("submit", "chat", "--executor", "echo")


@pytest.fixture
def offered(home: Path, monkeypatch: pytest.MonkeyPatch) -> Completes:
    """What bash would offer for the last word of a line."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        shell = get_completion_class("bash")
        assert shell is not None
        said = shell(root, {"obj": App()}, "inferq", "_INFERQ_COMPLETE").complete()
        return [item.partition(",")[2] for item in said.splitlines()]

    return ask


@pytest.fixture
def ids(cli: Any) -> list[str]:
    made = [cli(*ECHO, "--model", model, "x", "--tag", "nightly", "-q").out.strip() for model in ("m-one", "m-two")]
    cli("cancel", made[1])
    return made


def test_ids_are_those_that_the_verb_is_for(offered: Completes, ids: list[str]) -> None:
    waiting, cancelled = ids
    assert offered("inferq show ") == [cancelled, waiting]
    assert offered("inferq cancel ") == [waiting]
    assert offered("inferq retry ") == [cancelled]
    assert offered(f"inferq show {waiting[:20]}")[-1:] == [waiting]
    assert offered("inferq result nothing") == []


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("inferq list --status f", ["failed"]),
        ("inferq list --status failed,p", ["failed,pending"]),
        ("inferq list --priority h", ["high"]),
        ("inferq list --executor o", ["ollama", "openai"]),
        ("inferq submit chat --backend scr", ["script"]),
        ("inferq list --tag ni", ["nightly"]),
        ("inferq config show worker.s", ["worker.slots", "worker.shutdown_grace"]),
        ("inferq events task.com", ["task.completed"]),
        ("inferq completion f", ["fish"]),
        ("inferq list --json=id,sta", ["id,state", "id,started"]),
        ("inferq list -o js", ["json", "jsonl"]),
        ("inferq pri", ["priority"]),
        ("inferq list --sta", ["--status", "--state"]),
        ("inferq list st", ["state:", "started:"]),
        ("inferq list state:failed,pe", ["state:failed,pending"]),
        ("inferq cancel --query -tag:x", []),
        ("inferq cancel --query pri", ["priority:"]),
        ("inferq models pull smol", ["smollm2-135m-instruct"]),
    ],
)
def test_words_are_completed(offered: Completes, ids: list[str], line: str, wanted: list[str]) -> None:
    assert set(wanted) <= set(offered(line))
    assert all(word.startswith(line.split(" ")[-1].partition("=")[2] or line.split(" ")[-1]) for word in offered(line))


def test_models_are_those_of_tasks_and_backends(offered: Completes, ids: list[str], home: Path) -> None:
    (home / "inferq.toml").write_text('[backends.gpu]\nexecutor = "ollama"\nmodels = ["m-three"]\n')
    assert sorted(offered("inferq submit chat --model m-")) == ["m-one", "m-three", "m-two"]
    assert "m-one" in offered("inferq run m-o")


def test_other_shells_get_the_help_beside_the_word(offered: Completes, processes: Any, ids: list[str]) -> None:
    env = os.environ | {"COMP_WORDS": "inferq cancel ", "COMP_CWORD": "2"}
    zsh = processes.run(env=env | {"_INFERQ_COMPLETE": "zsh_complete"})
    assert zsh.lines == ["plain", ids[0], "pending chat m-one"]
    fish = processes.run(env=env | {"_INFERQ_COMPLETE": "fish_complete", "COMP_WORDS": "inferq cancel", "COMP_CWORD": ""})
    assert ids[0] in fish.out
    assert "pending chat m-one" in fish.out


def test_a_queue_that_cannot_be_asked_completes_nothing_and_says_nothing(offered: Completes, home: Path) -> None:
    (home / "inferq.toml").write_text("[worker]\nslotz = 1\n")
    assert offered("inferq cancel ") == []
    assert offered("inferq --url /proc/none.db cancel ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(cli: Any, shell: str) -> None:
    ran = cli("completion", shell)
    assert ran.code == 0
    assert "_INFERQ_COMPLETE" in ran.out


def test_a_real_bash_completes_with_the_script(home: Path, ids: list[str]) -> None:
    program = Path(sys.executable).with_name("inferq")
    script = f"""
        PATH={program.parent}:$PATH
        eval "$(inferq completion bash)"
        COMP_WORDS=(inferq cancel "") COMP_CWORD=2
        _inferq_completion inferq
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{ids[0]}\n", "")


def test_profiles_are_completed(offered: Completes, cli: Any, home: Path) -> None:
    for name in ("lab", "laptop", "other"):
        assert cli("profile", "add", name, "--server", str(home / f"{name}.db")).code == 0
    assert offered("inferq profile use la") == ["lab", "laptop"]
    assert offered("inferq list -P ot") == ["other"]
