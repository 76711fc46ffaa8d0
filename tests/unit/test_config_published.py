"""What is published about the configuration file is true: its JSON Schema, the file to begin with, systemd's credentials."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from inferq.config import Key, Places, Settings, display, keys, load
from inferq.config.schema import document, json_schema
from inferq.config.template import Format, template
from inferq.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = jsonschema_rs.validator_for(json_schema())


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(cwd=tmp_path, home=tmp_path / "home", user=tmp_path / "user", system=(tmp_path / "system",), data=tmp_path / "data")
    for directory in (made.home, made.user, *made.system):
        directory.mkdir()
    return made


# ── schema ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert (DOCS / "inferq.schema.json").read_text("utf-8") == document(), "run: python -m inferq.config.schema docs/inferq.schema.json"


def loads_and_fits(places: Places, text: str) -> tuple[bool, bool]:
    """Whether the loader takes a TOML file, and whether the schema does."""
    (places.cwd / "inferq.toml").write_text(text)
    try:
        load(env={"SLOTS": "3"}, places=places)
    except ConfigError:
        loaded = False
    else:
        loaded = True
    return loaded, SCHEMA.is_valid(tomllib.loads(text))


def right(key: Key) -> list[Any]:
    match key.kind:
        case "integer":
            return [5, 5, "${SLOTS}"]
        case "number":
            return [3, 2.5]
        case "duration":
            return [30, 0.25, "10m", "1h30m", "250ms"]
        case "size":
            return [1000, "16MB", "16 MiB", "64k"]
        case "choice":
            return [*key.choices]
        case "flag":
            return [True, False]
        case "list":
            return [[], ["a", "b"]]
        case "mapping":
            return [{"base_url": "http://a", "nested": {"deep": 1}}]
        case "store url":
            return ["sqlite:////tmp/a.db", "a.db"]
        case _:
            return ["echo"]


def wrong(key: Key) -> list[Any]:
    match key.kind:
        case "integer":
            return [1.5, True, "five", -1]
        case "number":
            return ["x", True, 0]
        case "duration":
            return ["ten minutes", -1, True]
        case "size":
            return ["16 apples", -1, 1.5]
        case "choice":
            return ["neither", 3]
        case "flag":
            return ["perhaps", 3]
        case "list":
            return [[1], 3]
        case "mapping":
            return [3]
        case _:
            return [3, ""]


def toml_of(key: Key, value: Any) -> str:
    words = [part if part != "*" else "echo" for part in key.path]
    written = "{ base_url = 'http://a', nested = { deep = 1 } }" if isinstance(value, dict) else json.dumps(value)
    beside = 'backends.echo.executor = "echo"\n' if key.path[0] == "backends" and key.path[-1] != "executor" else ""
    return f"{beside}{'.'.join(words)} = {written}\n"


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.name)
def test_the_schema_agrees_with_the_loader_about_every_key(places: Places, key: Key) -> None:
    for value in right(key) + ([] if not key.optional else ["none"]):
        assert loads_and_fits(places, toml_of(key, value)) == (True, True), value
    for value in wrong(key):
        assert loads_and_fits(places, toml_of(key, value)) == (False, False), value


@pytest.mark.parametrize(
    "text", ["[worker]\nslotz = 1\n", "[wurker]\n", "[backends.a]\nexecutor = 'echo'\nslotz = 1\n", "[backends.'a b']\nexecutor = 'echo'\n"]
)
def test_a_misspelt_key_is_marked_by_the_schema_too(places: Places, text: str) -> None:
    assert loads_and_fits(places, text)[1] is False


def test_the_documented_files_fit_the_schema() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    for block in page.split("```toml\n")[1:]:
        SCHEMA.validate(tomllib.loads(block.partition("```")[0]))


def test_a_file_may_name_its_schema(places: Places) -> None:
    (places.cwd / "inferq.json").write_text('{"$schema": "./inferq.schema.json", "worker": {"slots": 2}}')

    assert load(env={}, places=places).settings.worker.slots == 2


# ── the file to begin with ──────────────────────────────────────────────────────────────────────────────────────────

_SETTING = re.compile(r"^( *)#(\w+)( =|:) (.+)$", re.MULTILINE)
_OF_THE_MACHINE = ("data_dir", "url")


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_the_file_to_begin_with_changes_nothing_and_names_every_setting(places: Places, form: Format) -> None:
    text = template(form)
    (places.cwd / f"inferq.{form}").write_text(text)

    loaded = load(env={}, places=places)

    assert loaded.files == (places.cwd / f"inferq.{form}",)
    assert {source.kind for source in loaded.sources.values()} == {"default"}
    for key in keys():
        assert key.meaning[:60].split("`")[0] in " ".join(text.replace("#", " ").split()), key.name


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_every_line_that_is_uncommented_sets_its_key_to_its_default(places: Places, form: Format) -> None:
    head, _, _ = template(form).partition("\n# Where tasks run.")
    text = _SETTING.sub(lambda m: m[0] if m[2] in _OF_THE_MACHINE else f"{m[1]}{m[2]}{m[3]} {m[4]}", head)
    (places.cwd / f"inferq.{form}").write_text(text)

    loaded = load(env={}, places=places)

    set_ = {name for name, source in loaded.sources.items() if source.kind == "file"}
    assert set_ == {key.name for key in keys() if key.path[0] != "backends"} - {"store.data_dir", "store.url"}
    same = display(Settings()) | {"store": display(loaded.settings)["store"]}
    assert display(loaded.settings) == same
    assert loaded.settings.store.retention == Settings().store.retention
    SCHEMA.validate(tomllib.loads(text) if form == "toml" else {k: v for k, v in yaml.safe_load(text).items() if v is not None})


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_the_backends_it_shows_are_two_that_load(places: Places, form: Format) -> None:
    block = template(form).partition("\n# Secrets:")[2].partition("\n# What an entry")[0].partition("\n")[2]
    (places.cwd / f"inferq.{form}").write_text(re.sub(r"^#", "", block, flags=re.MULTILINE))

    found = load(env={"OPENAI_API_KEY": "k"}, places=places).settings.backends

    assert [(backend.name, backend.executor) for backend in found] == [("gpu", "ollama"), ("cloud", "openai")]
    assert found[1].opened()["api_key"] == "k"


# ── systemd's credentials ───────────────────────────────────────────────────────────────────────────────────────────


def credentials(places: Places, **files: str) -> dict[str, str]:
    directory = places.cwd / "credentials"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(directory)}


def test_a_credential_is_referred_to_by_name(places: Places) -> None:
    (places.cwd / "inferq.toml").write_text('[backends.cloud]\nexecutor = "openai"\nsettings.api_key = "credential:cloud-key"\n')
    env = credentials(places, **{"cloud-key": "sk-1\n"})

    loaded = load(env=env, places=places)

    assert loaded.settings.backends[0].opened()["api_key"] == "sk-1"
    assert "sk-1" not in repr(loaded) + json.dumps(loaded.rows(), default=str)
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set"):
        load(env={}, places=places)
    (places.cwd / "inferq.toml").write_text('[backends.cloud]\nexecutor = "openai"\nsettings.api_key = "credential:../etc/shadow"\n')
    with pytest.raises(ConfigError, match="expected the name of a credential"):
        load(env=env, places=places)


def test_a_credential_named_like_a_variable_is_that_variable_unless_the_variable_is_set(places: Places) -> None:
    env = credentials(places, OPENAI_API_KEY="sk-2", INFERQ_BACKENDS__OPENAI__SETTINGS__API_KEY="sk-3", UNRELATED="x")

    loaded = load(env=env, places=places)

    key = "backends.openai.settings.api_key"
    assert loaded.settings.backend("openai").opened()["api_key"] == "sk-3"  # type: ignore[union-attr] # it is a built-in one
    assert str(loaded.sources[key]) == "credential INFERQ_BACKENDS__OPENAI__SETTINGS__API_KEY"
    above = load(env=env | {"INFERQ_BACKENDS__OPENAI__SETTINGS__API_KEY": "sk-4"}, places=places)
    assert above.settings.backend("openai").opened()["api_key"] == "sk-4"  # type: ignore[union-attr] # it is a built-in one


# ── what is no file ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pipe_is_refused_instead_of_waited_for(places: Places) -> None:
    os.mkfifo(places.cwd / "pipe.toml")
    with pytest.raises(ConfigError, match=r"pipe\.toml is no regular file"):
        load(file=places.cwd / "pipe.toml", env={}, places=places)
    with pytest.raises(ConfigError, match=r"pipe\.toml, which is no regular file"):
        load(env={"INFERQ_BACKENDS__OPENAI__SETTINGS__API_KEY_FILE": str(places.cwd / "pipe.toml")}, places=places)
