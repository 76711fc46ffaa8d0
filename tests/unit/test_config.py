"""Configuration: precedence, sources, values, names that do not exist, backends, documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inferq.config import DEFAULT_BACKENDS, Key, Loaded, Places, Settings, keys, load, reference
from inferq.errors import ConfigError

Load = Callable[..., Loaded]


def make_places(root: Path) -> Places:
    places = Places(cwd=root / "work", home=root / "home", user=root / "user", system=(root / "system",), data=root / "data")
    for directory in (places.cwd, places.home, places.user, *places.system):
        directory.mkdir(parents=True, exist_ok=True)
    return places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return make_places(tmp_path)


@pytest.fixture
def loads(places: Places) -> Load:
    """Loads one file's text (or none) with an environment and arguments of its own."""

    def loads(text: str = "", *, name: str = "inferq.toml", env: dict[str, str] | None = None, **arguments: Any) -> Loaded:
        if text:
            (places.cwd / name).write_text(text, encoding="utf-8")
        return load(env=env or {}, places=places, arguments=arguments)

    return loads


# ── precedence ──────────────────────────────────────────────────────────────────────────────────────────────────────


def values_for(key: Key) -> st.SearchStrategy[tuple[str, Any]]:
    """What may be written for a key as text, and what it then is."""
    low = max([int(limit) + (word != "of at least") for word, limit in key.bounds if word != "of at most"], default=1)
    numbers = st.integers(max(low, 1), 900)
    match key.kind:
        case "duration":
            return numbers.map(lambda number: (f"{number}m", number * 60.0))
        case "number":
            return numbers.map(lambda number: (str(number), float(number)))
        case "integer" | "size":
            return numbers.map(lambda number: (str(number), number))
        case "choice":
            return st.sampled_from(key.choices).map(lambda choice: (choice, choice))
        case "flag":
            return st.sampled_from([("true", True), ("false", False)])
        case "list":
            return st.lists(st.sampled_from("abc"), min_size=1).map(lambda names: (",".join(names), tuple(names)))
        case "path":
            return st.sampled_from(["/a", "/b/c", "/d"]).map(lambda path: (path, path))
        case "store url":
            return st.sampled_from(["sqlite:////a.db", "sqlite:////d/b.db"]).map(lambda url: (url, url))
        case _:
            return st.sampled_from(["ollama", "echo", "http"]).map(lambda name: (name, name))


def as_toml(path: tuple[str, ...], text: str, key: Key) -> str:
    bare = key.kind in ("integer", "number", "size", "flag")
    value = "[" + ", ".join(f'"{part}"' for part in text.split(",")) + "]" if key.kind == "list" else f'"{text}"'
    return f"{'.'.join(path)} = {text if bare else value}\n"


LAYERS = ("system", "user", "project", "environment", "argument")


@given(data=st.data())
@hypothesis_settings(deadline=None, max_examples=60)
def test_whoever_sets_a_key_the_highest_place_wins_and_is_named(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    places = make_places(tmp_path_factory.mktemp("layers"))
    key = data.draw(st.sampled_from(keys()))
    path = tuple("gpu" if part == "*" else part for part in key.path) + (("region",) if key.kind == "mapping" else ())
    name = (
        key.env.replace("NAME", "GPU").replace("SETTING", "REGION") if key.kind != "mapping" else "INFERQ_BACKENDS__GPU__SETTINGS__REGION"
    )
    written = {layer: data.draw(values_for(key)) for layer in data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, unique=True))}
    files = {"system": places.system[0], "user": places.user, "project": places.cwd}
    backend = 'backends.gpu.executor = "echo"\n' if key.path[0] == "backends" and key.path[-1] != "executor" else ""
    env: dict[str, str] = {}
    arguments: dict[str, Any] = {}

    for layer, (text, value) in written.items():
        if layer in files:
            (files[layer] / "inferq.toml").write_text(as_toml(path, text, key))
        elif layer == "environment":
            env[name] = text
        else:
            arguments[".".join(path)] = value
    if backend:
        with (places.system[0] / "inferq.toml").open("a") as file:
            file.write(backend)
    loaded = load(env=env, places=places, arguments=arguments)

    winner = max(written, key=LAYERS.index)
    source = loaded.sources[".".join(path)]
    assert {row[0]: row[1] for row in loaded.rows()}[".".join(path)] == (
        list(written[winner][1]) if key.kind == "list" else written[winner][1]
    )
    assert source.kind == ("file" if winner in files else winner)
    assert source.name == {"environment": name, "argument": ".".join(path)}.get(winner, str(files.get(winner, Path()) / "inferq.toml"))


def test_without_any_source_every_value_is_the_documented_default(loads: Load, places: Places) -> None:
    loaded = loads()

    assert loaded.settings.worker == Settings().worker
    assert loaded.settings.retry == Settings().retry
    assert loaded.settings.backends == DEFAULT_BACKENDS
    assert loaded.settings.store.url == f"sqlite:///{places.data}/inferq.db"
    assert {source.kind for source in loaded.sources.values()} == {"default"}


def test_a_source_says_file_line_variable_and_argument(loads: Load, places: Places) -> None:
    loaded = loads(
        '# mine\n[worker]\nslots = 3\n\n[log]\nlevel = "debug"\n',
        env={"INFERQ_LOG__FORMAT": "json", "QUEUE_MAX_WORKERS": ""},
        **{"retry.max_retries": 0},
    )

    assert str(loaded.sources["worker.slots"]) == f"{places.cwd}/inferq.toml:3"
    assert str(loaded.sources["log.level"]) == f"{places.cwd}/inferq.toml:6"
    assert str(loaded.sources["log.format"]) == "INFERQ_LOG__FORMAT"
    assert str(loaded.sources["retry.max_retries"]) == "argument retry.max_retries"
    assert str(loaded.sources["worker.lease"]) == "default"


def test_arguments_that_are_none_were_not_given_and_the_word_none_unsets(loads: Load) -> None:
    loaded = loads("store.max_queue_size = 5\nworker.timeout = 7\n", **{"store.max_queue_size": None, "worker.timeout": "none"})

    assert loaded.settings.store.max_queue_size == 5
    assert loaded.settings.worker.timeout is None


def test_a_data_dir_overrides_a_url_from_a_lower_place_but_not_from_its_own(loads: Load, places: Places) -> None:
    text = 'store.url = "sqlite:////elsewhere/q.db"\nstore.data_dir = "here"\n'

    assert loads(text).settings.store.url == "sqlite:////elsewhere/q.db"
    assert loads(text, env={"INFERQ_STORE__DATA_DIR": "/there"}).settings.store.url == "sqlite:////there/inferq.db"
    assert loads(text, env={"INFERQ_STORE__DATA_DIR": "/x", "INFERQ_URL": "/y/q.db"}).settings.store.url == "sqlite:////y/q.db"


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ('worker.lease = "1h30m"', "worker.lease", 5400.0),
        ('worker.lease = "250ms"', "worker.lease", 0.25),
        ("worker.lease = 45", "worker.lease", 45.0),
        ("worker.shutdown_grace = 0", "worker.shutdown_grace", 0.0),
        ('worker.timeout = "none"', "worker.timeout", None),
        ('store.max_payload_bytes = "2MiB"', "store.max_payload_bytes", 2_097_152),
        ('store.retention.failed.bytes = "1.5GB"', "store.retention.failed.bytes", 1_500_000_000),
        ('log.level = "DEBUG"', "log.level", "debug"),
        ("retry.max_retries = 0", "retry.max_retries", 0),
        ('store.url = "sqlite:///:memory:"', "store.url", "sqlite://:memory:"),
    ],
)
def test_values_are_read_in_every_documented_spelling(loads: Load, line: str, path: str, value: object) -> None:
    assert {row[0]: row[1] for row in loads(line).rows()}[path] == value


@pytest.mark.parametrize(
    ("line", "expected", "came"),
    [
        ('worker.slots = "four"', "worker.slots: expected an integer of at least 1", "'four'"),
        ('worker.slots = "4"', "worker.slots: expected an integer", "'4'"),
        ("worker.slots = 0", "of at least 1", "0"),
        ("worker.slots = true", "expected an integer", "True"),
        ("worker.slots = 2.5", "expected an integer", "2.5"),
        ("worker.lease = -1", "worker.lease: expected a duration", "-1"),
        ("worker.lease = true", "expected a duration", "True"),
        ("worker.lease = nan", "expected a duration", "nan"),
        ("worker.lease = []", "expected a duration", "[]"),
        ('worker.lease = "none"', "expected a duration", "'none'"),
        ("retry.backoff_factor = 1.0", "expected a number greater than 1", "1.0"),
        ("retry.backoff_factor = inf", "expected a number", "inf"),
        ('store.durability = "fast"', "expected one of full, normal", "'fast'"),
        ('store.max_payload_bytes = "51MB"', "of at most 50,000,000", "'51MB'"),
        ('backends.gpu = {executor = "echo", models = "llama"}', "expected a list of texts", "'llama'"),
        ('store.url = "sqlite://q.db"', "expected a url such as sqlite:///inferq.db", "'sqlite://q.db'"),
        ("worker = 3", "expected worker to be a group of settings", "3"),
    ],
)
def test_a_wrong_value_says_what_was_expected_what_came_and_where(loads: Load, places: Places, line: str, expected: str, came: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(line)

    assert expected in str(caught.value)
    assert str(caught.value).endswith(f"got {came}")
    assert str(caught.value).startswith(f"{places.cwd}/inferq.toml:1: ")


def test_all_mistakes_are_reported_at_once(loads: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        loads("worker.slots = 0\nworker.slts = 1\n", env={"INFERQ_RETRY__MAX_RETRIES": "-1"})

    assert len(str(caught.value).splitlines()) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
known_names = st.sampled_from(
    [key.name.replace("*", "gpu") for key in keys()] + ["ollama_host", "queue", "retry_config", "backends", "worker"]
)


@given(arguments=st.dictionaries(known_names | st.text(), json_values, max_size=4))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_given_the_answer_is_settings_or_a_config_error(places: Places, arguments: dict[str, Any]) -> None:
    try:
        loaded = load(env={}, places=places, arguments=arguments, search=False)
    except ConfigError:
        return
    assert 1 <= loaded.settings.worker.slots <= 100_000


# ── names that do not exist ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "place", "suggestion"),
    [
        ("worker.slot = 3", ":1", "did you mean 'worker.slots'?"),
        ("slots = 3", ":1", "did you mean 'worker.slots'?"),
        ("max_wrokers = 3", ":1", "did you mean 'max_workers'?"),
        ("[wroker]\nx = 3", ":2", "did you mean the group 'worker'?"),
        ('[backends.gpu]\nexecutor = "echo"\nslotz = 1', ":3", "did you mean 'backends.gpu.slots'?"),
        ("[retry]\nzzz = 3", ":2", "known here: retry.max_retries"),
    ],
)
def test_an_unknown_key_is_an_error_with_place_and_suggestion(loads: Load, places: Places, line: str, place: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(line)

    assert str(caught.value).startswith(f"{places.cwd}/inferq.toml{place}: ")
    assert suggestion in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("INFERQ_WORKER__SLOT", "did you mean 'worker.slots'?"),
        ("INFERQ_WORKER_SLOTS", "INFERQ_WORKER__SLOTS"),
        ("INFERQ_WORKR__SLOTS", "did you mean INFERQ_WORKER__SLOTS?"),
        ("INFERQ_WORKER", "names a group"),
        ("INFERQ_BACKENDS__GPU__SETTINGS", "names a group"),
    ],
)
def test_an_unknown_variable_is_an_error_with_a_suggestion(loads: Load, name: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
        loads(env={name: "3"})

    assert suggestion in str(caught.value)


def test_variables_that_others_own_are_left_alone(loads: Load) -> None:
    # Kubernetes gives every pod these for a service named inferq.
    env = {"INFERQ_SERVICE_HOST": "10.0.0.1", "INFERQ_PORT": "tcp://10.0.0.1:7125", "INFERQ_E2E": "required", "WORKER__SLOTS": "9"}

    assert loads(env=env).settings == loads().settings


# ── backends ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_built_in_name_without_executor_adjusts_the_built_in_backend(loads: Load) -> None:
    settings = loads('[backends.ollama]\nslots = 2\nsettings.base_url = "http://gpu:1"\n').settings

    assert [backend.name for backend in settings.backends] == [backend.name for backend in DEFAULT_BACKENDS]
    assert (ollama := settings.backend("ollama")) is not None
    assert (ollama.executor, ollama.slots, ollama.settings) == ("ollama", 2, {"base_url": "http://gpu:1"})


def test_stating_an_executor_makes_the_list_the_users(loads: Load) -> None:
    text = '[backends.gpu]\nexecutor = "ollama"\n[backends.ollama]\nslots = 1\n'
    env = {"OPENAI_API_KEY": "k", "INFERQ_BACKENDS__GPU__MODELS": "a, b"}

    settings = loads(text, env=env).settings

    assert [(backend.name, backend.executor, backend.models) for backend in settings.backends] == [
        ("gpu", "ollama", ("a", "b")),
        ("ollama", "ollama", ()),
    ]


def test_backends_can_be_written_as_a_list_and_must_have_an_executor(loads: Load) -> None:
    listed = loads('[[backends]]\nname = "gpu-1"\nexecutor = "ollama"\n[[backends]]\nname = "b"\nexecutor = "mine"\n').settings

    assert [(backend.name, backend.executor) for backend in listed.backends] == [("gpu-1", "ollama"), ("b", "mine")]
    with pytest.raises(ConfigError, match=r"backends\.gpu: executor is missing; expected one of echo, http"):
        loads("[backends.gpu]\nslots = 1\n")
    with pytest.raises(ConfigError, match="two backends are called 'a'"):
        loads('[[backends]]\nname = "a"\nexecutor = "echo"\n[[backends]]\nname = "a"\nexecutor = "echo"\n')
    with pytest.raises(ConfigError, match="expected backend 1 of the list to be a group with a name"):
        loads('[[backends]]\nexecutor = "echo"\n')


def test_another_executor_under_a_built_in_name_does_not_inherit_its_settings(loads: Load) -> None:
    backend = loads('backends.ollama.executor = "openai"\n').settings.backends[0]

    assert backend.settings == {}


def test_settings_of_an_executor_are_json_whatever_the_file_format_has(loads: Load) -> None:
    text = "backends: {echo: {settings: {day: 2026-01-02, nested: [{a: null, b: [1.5, x]}], empty: {}}}}"

    backend = loads(text, name="inferq.yaml").settings.backend("echo")

    assert backend is not None
    assert backend.opened() == {"day": "2026-01-02", "nested": [{"a": None, "b": [1.5, "x"]}], "empty": {}}


def test_a_setting_replaces_a_group_of_the_same_name_from_a_lower_place(loads: Load) -> None:
    backend = loads("backends.echo.settings.a.b = 1\n", **{"backends.echo.settings.a": 2}).settings.backend("echo")

    assert backend is not None
    assert backend.settings == {"a": 2}


def test_a_variable_reaches_a_backend_whose_name_has_hyphens(loads: Load) -> None:
    text = '[backends.gpu-1]\nexecutor = "http"\nsettings = { retries = 1, headers = { "X-A" = "1", "X-B" = "2" } }\n'
    env = {
        "INFERQ_BACKENDS__GPU_1__SETTINGS__RETRIES": "5",
        "INFERQ_BACKENDS__GPU_1__SETTINGS__PRIVATE": "true",
        "INFERQ_BACKENDS__GPU_1__SETTINGS__REGION": "eu",
        "INFERQ_BACKENDS__GPU_1__SETTINGS__API_KEY": "12345",
    }

    backend = loads(text, env=env).settings.backends[0]

    assert backend.opened() == {
        "retries": 5,
        "private": True,
        "region": "eu",
        "api_key": "12345",
        "headers": {"X-A": "1", "X-B": "2"},
    }


# ── documentation and weight ────────────────────────────────────────────────────────────────────────────────────────


def test_the_documented_tables_equal_the_code() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"

    assert page.read_text("utf-8") == reference.renewed(page.read_text("utf-8")), (
        "run: python -m inferq.config.reference docs/configuration.md"
    )


def test_the_documented_examples_load(loads: Load) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    first, second = (block.partition("```")[0] for block in page.split("```toml\n")[1:])

    settings = loads(first, env={"CLOUD_KEY": "k"}).settings
    assert (settings.worker.slots, settings.worker.timeout, settings.retry.max_retries) == (8, 600, 5)
    assert [backend.name for backend in settings.backends] == ["gpu", "cloud"]
    assert settings.backends[1].opened()["api_key"] == "k"
    assert loads(second).settings.backends[0].settings == {"base_url": "http://gpu:11434"}


def test_every_key_has_a_meaning_and_every_number_a_unit() -> None:
    assert [key.name for key in keys() if not key.meaning] == []
    assert [key.name for key in keys() if key.kind in ("integer", "duration", "size") and not key.unit] == []


def test_loading_without_yaml_imports_nothing_heavy() -> None:
    script = (
        "import sys; from inferq.config import load; load(env={}, search=False);"
        "print([name for name in ('yaml', 'asyncio', 'aiohttp', 'sqlite3', 'difflib', 'rich') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip() == "[]"
