"""The verbs that look after an installation, and the global options in every place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inferq.executors.models import CATALOG, installed

MODEL = next(iter(CATALOG))
HERE = installed()
"""The models of this machine, looked up before a test has a home of its own."""


def test_the_forerunners_global_flags_work_before_and_after_the_command(cli: Any, home: Path) -> None:
    before = cli("--data-dir", "one", "submit", "chat", "--executor", "echo", "--model", "m", "x", "-q")
    after = cli("submit", "chat", "--executor", "echo", "--model", "m", "x", "-q", "--data-dir", "two")
    assert (before.code, after.code) == (0, 0), before.err + after.err
    assert (home / "one" / "inferq.db").is_file()
    assert cli("list", "-q", "--data-dir", "two").lines == after.lines
    assert cli("list", "-q").lines == []


def test_the_ollama_host_flag_reaches_the_backend_and_beats_file_and_environment(
    cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "from-environment:1")
    key = "backends.ollama.settings.base_url"
    assert cli("config", "show", key, "--json=value").json == [{"value": "http://from-environment:1"}]
    [row] = cli("--ollama-host", "http://gpu:2", "config", "show", key, "-o", "json").json
    assert row["value"] == "http://gpu:2"
    assert "ollama_host" in row["source"]


def test_config_and_config_dir_are_really_read(cli: Any, home: Path) -> None:
    (home / "there").mkdir()
    (home / "there" / "inferq.toml").write_text("[worker]\nslots = 7\n")
    for flags in (("--config", "there/inferq.toml"), ("--config-dir", "there")):
        [row] = cli(*flags, "config", "show", "worker.slots", "-o", "json").json
        assert row["value"] == 7
        assert "inferq.toml" in row["source"]
        assert [Path(line) for line in cli(*flags, "config", "path", "-q").lines] == [home / "there" / "inferq.toml"]
    assert cli("--config-dir", ".", "config", "show").code == 2
    assert cli("--config", "missing.toml", "config", "show").code == 2


def test_config_path_without_a_file_tells_where_one_would_be_found(cli: Any, home: Path) -> None:
    ran = cli("config", "path", "-q")
    assert (ran.code, ran.out) == (5, "")
    assert str(home) in ran.err


def test_an_unknown_setting_is_not_found(cli: Any) -> None:
    assert cli("config", "show", "worker.slotz").code == 5


def test_config_masks_secrets(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-1234567890")
    ran = cli("config", "show", "--sources")
    assert ran.code == 0
    assert "very-secret" not in ran.out
    assert "api_key" in ran.out


def test_executors_are_listed_with_actions_and_origin(cli: Any) -> None:
    found = {record["name"]: record for record in cli("executors", "-o", "json").json}
    assert {"echo", "http", "ollama", "openai", "script"} <= set(found)
    echo = found["echo"]
    assert echo["actions"] == ["chat", "generate", "embed", "echo"]
    assert (echo["package"], echo["builtin"], echo["problem"]) == ("inferq", True, "")
    assert echo["description"]


def test_models_are_asked_of_every_backend_and_a_silent_one_is_named(cli: Any) -> None:
    ran = cli("models", "list", "--ollama-host", "127.0.0.1:9", "-o", "json")
    assert ran.code == 0
    assert {"model": "echo", "backend": "echo", "executor": "echo"} in ran.json
    assert "ollama:" in ran.err
    assert cli("models", "list", "--backend", "echo", "-q").lines == ["echo"]
    assert cli("models", "list", "--backend", "nope").code == 5


def test_doctor_finds_a_sound_installation_sound(cli: Any) -> None:
    ran = cli("doctor", "--ollama-host", "127.0.0.1:9", "-o", "json")
    found = {record["check"]: record for record in ran.json}
    assert {"python", "sqlite", "store", "durability", "file system", "disk space", "backend echo"} <= set(found)
    assert found["store"]["verdict"] == "ok"
    assert found["durability"]["detail"].startswith("full")
    assert "models: echo" in found["backend echo"]["detail"]


def test_doctor_fails_for_a_backend_that_was_configured_and_notes_one_that_was_not(cli: Any, home: Path) -> None:
    def verdict(*flags: str) -> tuple[int, str]:
        ran = cli("doctor", "-o", "json", *flags)
        return ran.code, next(record["verdict"] for record in ran.json if record["check"] == "backend ollama")

    (home / "down.toml").write_text('[backends.ollama.settings]\nbase_url = "http://127.0.0.1:9"\n')
    assert verdict("--config", "down.toml") == (1, "FAIL")


def test_doctor_reports_a_store_that_cannot_be_opened(cli: Any, home: Path) -> None:
    (home / "letter.txt").write_text("Dear reader, " * 1000)
    ran = cli("doctor", "--url", str(home / "letter.txt"), "-o", "json")
    assert ran.code == 1
    assert [record["verdict"] for record in ran.json if record["check"] == "store"] == ["FAIL"]


def test_a_backup_is_a_store_of_its_own(cli: Any, home: Path) -> None:
    task_id = cli("submit", "chat", "--executor", "echo", "--model", "m", "x", "-q").out.strip()
    made = cli("db", "backup", str(home / "copy.db"), "-o", "json")
    assert made.json == {"path": str(home / "copy.db"), "bytes": (home / "copy.db").stat().st_size}
    assert cli("--url", str(home / "copy.db"), "list", "-q").lines == [task_id]


def test_check_and_stats_of_the_store(cli: Any, home: Path) -> None:
    cli("submit", "chat", "--executor", "echo", "--model", "m", "x")
    sound = cli("db", "check")
    assert (sound.code, sound.out) == (0, "")
    assert "sound" in sound.err
    assert cli("db", "check", "-o", "json").json == []
    stats = cli("db", "stats", "-o", "json").json
    assert (stats["tasks"], stats["durability"]) == (1, "full")


def test_the_completion_script_of_bash_is_bash(cli: Any) -> None:
    script = cli("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "_INFERQ_COMPLETE" in script


def test_completion_knows_verbs_and_options(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_INFERQ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "inferq submit ch")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert processes.run().out.split() == ["plain,chat"]


def test_the_version_is_the_packages(cli: Any) -> None:
    from importlib.metadata import version

    assert cli("version").out == cli("--version").out == f"inferq {version('inferq')}\n"
    assert cli("version", "-o", "json").json["inferq"] == version("inferq")


@pytest.mark.parametrize(
    "args",
    [
        ("list",), ("status",), ("events",), ("executors",), ("config", "show"), ("db", "stats"), ("db", "check"),
        ("doctor", "--ollama-host", "127.0.0.1:9"), ("models", "list", "--ollama-host", "127.0.0.1:9"), ("pause",), ("version",),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "id", "table", "wide"])
def test_every_printing_command_has_every_format_and_only_data_on_stdout(cli: Any, args: tuple[str, ...], form: str) -> None:
    ran = cli(*args, "-o", form)
    assert ran.code in (0, 1)
    if form == "json":
        json.loads(ran.out)
    elif form == "jsonl":
        for line in ran.lines:
            json.loads(line)
    assert "\x1b" not in ran.out


def test_a_model_that_nobody_knows_is_not_found(cli: Any) -> None:
    ran = cli("models", "pull", "no-such-model")
    assert (ran.code, ran.out) == (5, "")
    assert "known: " in ran.err


def test_a_model_that_is_there_is_given_at_once(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if MODEL not in HERE:
        pytest.skip(f"{MODEL} was not pulled on this machine")
    monkeypatch.setenv("INFERQ_MODELS_DIR", str(HERE[MODEL].parent))
    ran = cli("models", "pull", "smollm2", "-o", "json")
    assert (ran.code, ran.json) == (0, {"name": "smollm2", "path": str(HERE[MODEL])})
