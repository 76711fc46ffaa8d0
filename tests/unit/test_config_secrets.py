"""Secrets in the configuration are never shown, and references lead to what they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inferq.config import Loaded, Places, Secret, display, load, looks_secret
from inferq.config.references import escape, expand
from inferq.errors import ConfigError

Load = Callable[..., Loaded]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(cwd=tmp_path, home=tmp_path / "home", user=tmp_path / "user", system=(), data=tmp_path / "data")


@pytest.fixture
def loads(places: Places) -> Load:
    def loads(text: str = "", *, env: dict[str, str] | None = None, **arguments: Any) -> Loaded:
        if text:
            (places.cwd / "inferq.toml").write_text(text, encoding="utf-8")
        return load(env=env or {}, places=places, arguments=arguments)

    return loads


@given(secret=st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n$"), min_size=12).map(lambda text: f"sk-{text}"))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_secret_is_never_shown_and_reaches_only_the_executor(places: Places, secret: str) -> None:
    (places.cwd / "key").write_text(secret + "\n", encoding="utf-8")
    written = {"api_key": secret, "headers": {"Authorization": [secret]}, "plain": "file:key", "other": "${MY_TOKEN}"}

    loaded = load(env={"MY_TOKEN": secret}, places=places, arguments={"backends.openai.settings": written})

    for text in (repr(loaded), str(loaded.rows()), str(display(loaded.settings)), f"{loaded.settings}"):
        assert secret not in text
        assert repr(secret)[1:-1] not in text
    opened = loaded.settings.backend("openai").opened()  # type: ignore[union-attr] # it is one of the defaults
    assert opened == {
        "base_url": "https://api.openai.com/v1",
        "api_key": secret,
        "headers": {"Authorization": [secret]},
        "plain": secret,
        "other": secret,
    }


def test_a_password_in_a_url_is_masked_everywhere(loads: Load) -> None:
    loaded = loads('store.url = "redis://:hunter2@db/0"\nbackends.ollama.settings.base_url = "http://me:hunter2@gpu"\n')

    assert "hunter2" not in repr(loaded) + str(loaded.rows()) + str(display(loaded.settings))
    assert dict(row[:2] for row in loaded.rows())["backends.ollama.settings.base_url"] == "http://me:***@gpu"
    assert loaded.settings.store.url == "redis://:hunter2@db/0"


def test_an_error_about_a_secret_does_not_quote_it(loads: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        loads('backends.api_key = "hunter2"\n', **{"worker.slots": "redis://u:hunter2@x"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["api_key", "API_KEY", "X-Api-Key", "apiKey", "token", "auth_token", "password", "Authorization", "secret"]
)
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["base_url", "tokenizer", "max_retries", "key", "monkey", "keep_alive", "model"])
def test_other_names_are_no_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_a_secret_can_come_from_a_file_named_by_a_variable(loads: Load, places: Places) -> None:
    (places.cwd / "key.txt").write_text("abc\n")

    for name in ("INFERQ_BACKENDS__OPENAI__SETTINGS__API_KEY_FILE", "OPENAI_API_KEY_FILE"):
        loaded = loads(env={name: "key.txt"})
        assert loaded.settings.backend("openai").settings["api_key"] == Secret("abc", "file:key.txt")  # type: ignore[union-attr] # a default
        assert str(loaded.sources["backends.openai.settings.api_key"]) == name


def test_references_are_resolved_in_typed_values_too(loads: Load) -> None:
    text = 'worker.slots = "${SLOTS}"\nlog.level = "${LEVEL:-debug}"\nbackends.echo.models = ["${MODEL}", "$${MODEL}"]\n'

    settings = loads(text, env={"SLOTS": "9", "MODEL": "m"}).settings

    assert (settings.worker.slots, settings.log.level) == (9, "debug")
    assert settings.backend("echo").models == ("m", "${MODEL}")  # type: ignore[union-attr] # a default


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${NOPE}", r"\$\{NOPE\}, but that variable is not set"),
        ("file:nope", "nope, which cannot be read: No such file"),
        ("file:.", "Is a directory"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_with_its_place(loads: Load, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"inferq\.toml:1: backends\.openai\.settings\.api_key: refers to .*{message}"):
        loads(f'backends.openai.settings.api_key = "{value}"\n')


@given(text=st.text(st.sampled_from("${}A:-file x")) | st.text())
def test_an_escaped_text_stands_for_itself(text: str) -> None:
    assert expand(escape(text), env={}, base=Path("/"), home=Path("/")).text == text


def test_a_secret_compares_by_value_and_can_be_a_key() -> None:
    assert {Secret("a"): 1}[Secret("a")] == 1
    assert Secret("a") != Secret("b")
    assert f"{Secret('a')}" == "***"


def test_a_secret_file_must_be_small_and_text(loads: Load, places: Places) -> None:
    (places.cwd / "big").write_text("x" * 70_000)
    (places.cwd / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="larger than 65,536 bytes"):
        loads('backends.openai.settings.api_key = "file:big"')
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        loads('backends.openai.settings.api_key = "file:binary"')
