"""A configuration that is written back is the same when it is loaded again, and holds no secret's value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inferq.config import (
    BackendSettings,
    BreakerSettings,
    HealthSettings,
    LogSettings,
    Places,
    RemoteSettings,
    RetentionSettings,
    RetrySettings,
    Secret,
    Settings,
    StateRetention,
    StoreSettings,
    WorkerSettings,
    load,
    save,
)
from inferq.config.secret import has_password, looks_secret
from inferq.errors import ConfigError


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(cwd=tmp_path, home=tmp_path / "home", user=tmp_path / "user", system=(), data=tmp_path / "data")


SUFFIXES = [".toml", ".yaml", ".json"]
seconds = st.floats(0.001, 315_360_000.0)
counts = st.integers(1, 100_000)
texts = (st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.text("${}:-file", max_size=12)).filter(
    lambda text: not has_password(text)
)
free = st.dictionaries(
    texts.filter(lambda name: name and not looks_secret(name)),
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.lists(texts, max_size=2)
    | st.dictionaries(texts, texts, max_size=2),
    max_size=3,
)
names = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
backends = st.lists(
    st.builds(BackendSettings, names, st.sampled_from(["ollama", "mine"]), st.none() | counts,
              st.lists(texts, max_size=2).map(tuple), free, st.lists(names, max_size=2).map(tuple), st.none() | st.booleans(),
              st.integers(0, 9), st.floats(0.5, 9), st.booleans()),
    min_size=1, max_size=2, unique_by=lambda backend: backend.name,
).map(tuple)  # fmt: skip
keeps = st.builds(StateRetention, st.none() | seconds, st.none() | counts, st.none() | counts)
trees = st.builds(
    Settings,
    st.builds(
        StoreSettings, data_dir=st.just("/data"), url=st.sampled_from(["", "sqlite:////x/${HOME}.db", "redis://h/0"]),
        durability=st.sampled_from(["full", "normal"]), max_payload_bytes=counts, max_queue_size=st.none() | counts,
        prune_interval=seconds, retention=st.builds(RetentionSettings, keeps, keeps, keeps, seconds, seconds),
    ),
    st.builds(WorkerSettings, counts, seconds, st.none() | seconds, st.none() | seconds, seconds, seconds, counts, seconds, counts),
    st.builds(RetrySettings, st.integers(0, 9), seconds, seconds, st.floats(1.001, 1000)),
    backends,
    st.builds(LogSettings, st.sampled_from(["debug", "error"]), st.none() | st.just("/log/$file"), st.sampled_from(["auto", "json"])),
    health=st.builds(HealthSettings, seconds, seconds, st.integers(1, 1000)),
    breaker=st.builds(BreakerSettings, counts, seconds, seconds),
    remote=st.builds(RemoteSettings, st.sampled_from(["overflow", "queue"]), st.booleans(), counts, counts, counts, st.booleans()),
)  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(tree=trees)
@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_saved_is_loaded_again(places: Places, suffix: str, tree: Settings) -> None:
    path = places.cwd / f"saved{suffix}"

    left_out = save(tree, path)

    assert left_out == []
    assert load(file=path, env={}, places=places).settings == tree


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_writes_references_of_secrets_and_never_their_values(places: Places, suffix: str) -> None:
    given = {"api_key": "${KEY}", "token": "hunter2", "headers": {"Cookie": "hunter2", "X": "1"}, "proxy": "http://a:hunter2@p"}
    loaded = load(env={"KEY": "k1"}, places=places, arguments={"backends.openai.settings": given})
    path = places.cwd / f"new/dir/saved{suffix}"

    left_out = save(loaded.settings, path)

    prefix = "backends.openai.settings"
    assert left_out == [f"{prefix}.token", f"{prefix}.headers.Cookie", f"{prefix}.proxy"]
    assert "hunter2" not in path.read_text()
    again = load(file=path, env={"KEY": "k1"}, places=places).settings.backend("openai")
    assert again is not None
    assert again.settings == {"base_url": "https://api.openai.com/v1", "api_key": Secret("k1", "${KEY}"), "headers": {"X": "1"}}


def test_saving_the_defaults_writes_nothing_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "inferq.toml"
    path.write_text("worker.slots = 3\n")

    assert save(Settings(), path) == []
    assert path.read_text().strip() == ""
    assert list(tmp_path.iterdir()) == [path]


def test_saving_says_what_cannot_be_written(tmp_path: Path) -> None:
    null = Settings(backends=(BackendSettings("x", "echo", settings={"a": None}),))
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"backends\.x\.settings\.a is null, which TOML cannot say; save as \.yaml"):
        save(null, tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"write an inferq\.toml beside it"):
        save(Settings(), tmp_path / "pyproject.toml")
    with pytest.raises(ConfigError, match="expected a name that ends in"):
        save(Settings(), tmp_path / "a.ini")
    with pytest.raises(ConfigError, match=r"cannot write .*: (Not a directory|File exists)"):
        save(Settings(), tmp_path / "file" / "a.toml")
    with pytest.raises(ConfigError, match="not valid Unicode"):
        save(Settings(log=LogSettings(file="\ud800")), tmp_path / "a.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
