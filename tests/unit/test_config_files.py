"""Configuration files: which are found, what a damaged one says, and the forerunners' forms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferq.config import (
    Loaded,
    Places,
    load,
)
from inferq.config.legacy import TABLE, ollama_url
from inferq.errors import ConfigError
from inferq.stores.sqlite.files import path_of

DAY = 86_400.0


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(
        cwd=tmp_path / "a" / "b", home=tmp_path / "home", user=tmp_path / "user", system=(tmp_path / "etc",), data=tmp_path / "data"
    )
    for directory in (places.cwd, places.home, places.user, *places.system):
        directory.mkdir(parents=True)
    return places


@pytest.fixture
def loads(places: Places) -> Callable[..., Loaded]:
    def loads(**env: str) -> Loaded:
        return load(env=env, places=places)

    return loads


def slots(number: int) -> str:
    return f"worker.slots = {number}\n"


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_nearest_project_file_counts_and_the_others_fill_in(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.system[0] / "inferq.toml").write_text("worker.slots = 1\nworker.lease = 11\nworker.timeout = 111\n")
    (places.user / "inferq.yaml").write_text("worker: {slots: 2, lease: 22}")
    (places.cwd.parent / "inferq.toml").write_text(slots(3))
    (places.cwd.parent.parent / "inferq.toml").write_text("log.level = 'debug'\n")

    loaded = loads()

    assert (loaded.settings.worker.slots, loaded.settings.worker.lease, loaded.settings.worker.timeout) == (3, 22, 111)
    assert loaded.settings.log.level == "info"
    assert loaded.files == (places.cwd.parent / "inferq.toml", places.user / "inferq.yaml", places.system[0] / "inferq.toml")


def test_an_explicit_file_is_read_alone_and_beats_the_variable(places: Places) -> None:
    (places.user / "inferq.toml").write_text("worker.lease = 22\n")
    (places.cwd / "one.json").write_text('{"worker": {"slots": 7}}')
    (places.cwd / "two.yml").write_text("worker:\n  slots: 8\n")

    named = load(file="one.json", env={"INFERQ_CONFIG": "two.yml"}, places=places)
    by_variable = load(env={"INFERQ_CONFIG": "two.yml"}, places=places)

    assert (named.settings.worker.slots, named.settings.worker.lease) == (7, 30)
    assert by_variable.settings.worker.slots == 8


def test_an_explicit_file_that_is_missing_is_an_error(places: Places) -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml does not exist; check the path given by --config or INFERQ_CONFIG"):
        load(env={"INFERQ_CONFIG": "nope.toml"}, places=places)


def test_pyproject_counts_only_with_its_own_table(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "pyproject.toml").write_text('[project]\nname = "inferq-user"\n')
    (places.cwd.parent / "pyproject.toml").write_text("[tool.inferq.worker]\nslots = 6\n")

    assert loads().settings.worker.slots == 6
    assert load(file=places.cwd.parent / "pyproject.toml", env={}, places=places).settings.worker.slots == 6


def test_a_broken_pyproject_is_somebody_elses_matter(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "pyproject.toml").write_text("[tool.inferq\n")

    assert loads().settings.worker.slots == 4
    assert "pyproject.toml was not read" in loads().notes[0]


def test_two_files_in_one_directory_are_noted(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "inferq.toml").write_text(slots(1))
    (places.cwd / "inferq.yaml").write_text("worker: {slots: 2}")

    assert loads().settings.worker.slots == 1
    assert loads().notes == (f"inferq.yaml in {places.cwd} not read: inferq.toml comes first",)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_strangers_file_above_the_working_directory_is_not_read(places: Places, loads: Callable[..., Loaded]) -> None:
    planted = places.cwd.parent / "inferq.toml"
    planted.write_text(slots(99))
    os.chown(planted, 12345, 12345)

    assert loads().settings.worker.slots == 4
    assert "belongs to another user" in loads().notes[0]
    assert load(file=planted, env={}, places=places).settings.worker.slots == 99


def test_relative_paths_start_from_the_file_or_else_from_the_working_directory(places: Places) -> None:
    (places.user / "inferq.toml").write_text('store.data_dir = "tasks"\nlog.file = "~/q.log"\n')

    loaded = load(env={}, places=places)
    assert loaded.settings.store.data_dir == str(places.user / "tasks")
    assert loaded.settings.log.file == str(places.home / "q.log")
    assert load(env={"INFERQ_URL": "q.db"}, places=places).settings.store.url == f"sqlite:///{places.cwd}/q.db"
    assert load(env={"INFERQ_URL": "sqlite:///q.db"}, places=places).settings.store.url == f"sqlite:///{places.cwd}/q.db"


def test_the_store_opens_the_very_file_that_the_settings_name(places: Places) -> None:
    assert path_of(load(env={}, places=places).settings.store.url) == f"{places.data}/inferq.db"
    assert path_of(load(env={"INFERQ_URL": "~/q.db"}, places=places).settings.store.url) == f"{places.home}/q.db"


# ── damaged ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("inferq.toml", b"[worker\n", r"inferq\.toml is not valid TOML: .*line 1"),
        ("inferq.yaml", b"worker: {slots: 1\n", r"inferq\.yaml:2 is not valid YAML"),
        ("inferq.yaml", b"worker: {}\nworker: {}\n", r"inferq\.yaml:2: the key 'worker' is given twice"),
        ("inferq.yaml", b"!!python/object:os.system x", "is not valid YAML"),
        ("inferq.yaml", b"1: 2\n", "expected a text as key, got 1"),
        ("inferq.json", b'{"worker": }', r"inferq\.json:1 is not valid JSON"),
        ("inferq.json", b'{"log": {"level": "info", "level": "debug"}}', "'level' is given twice"),
        ("inferq.json", b"[1]", "expected the file to hold settings such as worker.slots, got a list"),
        ("inferq.json", b"[" * 100_000, "is nested too deeply"),
        ("inferq.toml", b"\xff\xfe", "is not UTF-8 text"),
        ("inferq.toml", b"# " + b"x" * 1_000_001, "is larger than 1,000,000 bytes"),
        ("inferq.toml", b"max_workers = 1\nworker.slots = 2\n", r"worker\.slots is given twice, as max_workers and as worker\.slots"),
        ("inferq.toml", b"backends.x.executor = 'a'\nbackends.x.settings.t = 12:00:00\nworker.slots = 1979-01-01\n", "expected an integer"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(
    places: Places, loads: Callable[..., Loaded], name: str, content: bytes, message: str
) -> None:
    (places.cwd / name).write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        loads()


def test_a_directory_or_an_unknown_format_is_refused(places: Places) -> None:
    (places.cwd / "dir.toml").mkdir()
    (places.cwd / "x.conf").write_text("a=1")

    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(file="dir.toml", env={}, places=places)
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.toml"):
        load(file="x.conf", env={}, places=places)


def test_a_byte_order_mark_and_empty_files_are_fine(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "inferq.json").write_text("")
    (places.user / "inferq.yaml").write_text("# nothing yet\nworker:\n")
    (places.system[0] / "inferq.toml").write_bytes(b"\xef\xbb\xbfworker.slots = 2\n")

    assert loads().settings.worker.slots == 2


# ── forerunners ─────────────────────────────────────────────────────────────────────────────────────────────────────

EXPECTED = {
    "backends.ollama.settings.base_url": "http://gpu:11434",
    "worker.timeout": 420.0,
    "worker.slots": 8,
    "store.prune_interval": 7200.0,
    "store.retention.completed.age": 2 * DAY,
    "store.retention.failed.age": 2 * DAY,
    "store.retention.cancelled.age": 2 * DAY,
    "store.retention.completed.count": 500,
    "worker.poll_interval": 2.0,
    "worker.claim_batch": 20,
    "retry.max_retries": 5,
    "retry.initial_delay": 2.0,
    "retry.max_delay": 60.0,
    "retry.backoff_factor": 3.0,
    "log.level": "warning",
}
RETRIES = {"max_retries": 5, "initial_delay": "2s", "max_delay": "1m0s", "backoff_factor": 3}
FLAT: dict[str, Any] = {
    "ollama_host": "gpu",
    "ollama_timeout": "7m",
    "max_workers": 8,
    "storage_path": "./tasks",
    "cleanup_interval": "2h0m0s",
    "max_completed_tasks": 500,
    "scheduling_interval": "2s",
    "batch_size": 20,
    "retry_config": RETRIES,
    "log_level": "WARN",
    "log_file": "q.log",
}
NESTED: dict[str, Any] = {
    "ollama": {"host": "http://gpu:11434", "timeout": "7m"},
    "queue": {"max_workers": 8, "storage_path": "./tasks", "cleanup_interval": "2h", "max_completed_tasks": 500},
    "scheduler": {"interval": "2s", "batch_size": 20},
    "retry": RETRIES,
    "logging": {"level": "warn", "file": "q.log"},
}
# Go's encoding/json writes a time.Duration as integer nanoseconds.
IN_GO_JSON = FLAT | {
    "ollama_timeout": 420_000_000_000,
    "cleanup_interval": 7_200_000_000_000,
    "scheduling_interval": 2_000_000_000,
    "retry_config": RETRIES | {"initial_delay": 2_000_000_000, "max_delay": 60_000_000_000},
}
VARIABLES = {
    "OLLAMA_HOST": "gpu:11434",
    "OLLAMA_TIMEOUT": "7m",
    "QUEUE_MAX_WORKERS": "8",
    "QUEUE_STORAGE_PATH": "./tasks",
    "QUEUE_CLEANUP_INTERVAL": "2h",
    "QUEUE_MAX_COMPLETED_TASKS": "500",
    "SCHEDULER_INTERVAL": "2s",
    "SCHEDULER_BATCH_SIZE": "20",
    "RETRY_MAX_RETRIES": "5",
    "RETRY_INITIAL_DELAY": "2s",
    "RETRY_MAX_DELAY": "1m",
    "RETRY_BACKOFF_FACTOR": "3",
    "LOG_LEVEL": "warn",
    "LOG_FILE": "q.log",
}


def assert_forerunner(loaded: Loaded, places: Places, kind: str) -> None:
    set_ = {name: value for name, value, source in loaded.rows() if source.kind != "default"}
    paths = {
        "store.data_dir": f"{places.cwd}/tasks",
        "store.url": f"sqlite:///{places.cwd}/tasks/inferq.db",
        "log.file": f"{places.cwd}/q.log",
    }
    assert set_ == EXPECTED | paths
    assert {source.kind for source in loaded.sources.values()} == {"default", kind}


@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.json"])
@pytest.mark.parametrize("form", [FLAT, NESTED, IN_GO_JSON], ids=["flat", "nested", "go-json"])
def test_a_forerunners_file_works_with_every_key(places: Places, loads: Callable[..., Loaded], name: str, form: dict[str, Any]) -> None:
    # JSON is YAML: one text serves both readers.
    (places.cwd / name).write_text(json.dumps(form, indent=1))

    assert_forerunner(loads(), places, "file")


def test_a_forerunners_variables_all_work(places: Places, loads: Callable[..., Loaded]) -> None:
    assert_forerunner(loads(**VARIABLES), places, "environment")
    assert loads(MAX_CONCURRENT_REQUESTS="3").settings.worker.slots == 3
    assert loads(MAX_CONCURRENT_REQUESTS="3", QUEUE_MAX_WORKERS="5").settings.worker.slots == 5
    assert loads(MAX_QUEUE_SIZE="100", REQUEST_TIMEOUT="300").settings.store.max_queue_size == 100
    assert loads(REQUEST_TIMEOUT="300").settings.worker.timeout == 300
    assert loads(MAX_QUEUE_SIZE="0", QUEUE_MAX_COMPLETED_TASKS="0").settings.store == loads().settings.store


def test_every_name_of_the_table_is_covered_here() -> None:
    written = {*FLAT, *(f"{group}.{name}" for group, inside in (NESTED | FLAT).items() if isinstance(inside, dict) for name in inside)}

    assert {row.flat for row in TABLE if row.flat} <= written
    assert {".".join(name) for row in TABLE for name in row.nested} - written == {"scheduler.scheduling_interval"}
    assert {name for row in TABLE for name in row.env} - set(VARIABLES) == {
        "MAX_CONCURRENT_REQUESTS", "MAX_QUEUE_SIZE", "REQUEST_TIMEOUT", "OPENAI_BASE_URL", "OPENAI_API_KEY",
    }  # fmt: skip


def test_own_variables_rank_above_the_forerunners_and_these_above_files(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "inferq.toml").write_text(slots(1))

    assert loads(QUEUE_MAX_WORKERS="2").settings.worker.slots == 2
    assert loads(QUEUE_MAX_WORKERS="2", INFERQ_WORKER__SLOTS="3").settings.worker.slots == 3


def test_an_explicit_retention_beats_what_a_cleanup_interval_implies(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd / "inferq.toml").write_text("store.retention.completed.age = '3d'\n")

    retention = loads(QUEUE_CLEANUP_INTERVAL="1h").settings.store.retention

    assert (retention.completed.age, retention.failed.age) == (3 * DAY, DAY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n",
        "logging: {level: info}\nhandlers: []\n",
        "queue: {name: x}\n",
        "log_level: info\n",
        "- a\n",
        "{{ broken",
        "retry: {max_retries: 3}",
    ],
)
def test_somebody_elses_config_yaml_is_ignored(places: Places, loads: Callable[..., Loaded], text: str) -> None:
    (places.cwd / "config.yaml").write_text(text)

    loaded = loads()

    assert loaded.settings == load(env={}, places=places, search=False).settings
    assert f"{places.cwd}/config.yaml was ignored" in loaded.notes[0]


def test_a_forerunners_file_counts_in_the_working_directory_and_the_home_only(places: Places, loads: Callable[..., Loaded]) -> None:
    (places.cwd.parent / "config.yaml").write_text("ollama_host: a\nmax_workers: 7\n")
    assert loads().settings.worker.slots == 4

    (places.home / ".ollama-queue").mkdir()
    (places.home / ".ollama-queue" / "config.yaml").write_text("ollama_host: a\nmax_workers: 9\n")
    assert loads().settings.worker.slots == 9


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost", "http://localhost:11434"),
        ("gpu:1234", "http://gpu:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:11434/", "http://127.0.0.1:11434"),
        ("[::]:5", "http://[::1]:5"),
        ("::1", "http://[::1]:11434"),
        ("http://gpu", "http://gpu"),
        ("https://gpu/ollama", "https://gpu/ollama"),
        ("gpu/ollama", "http://gpu:11434/ollama"),
        (' "gpu" ', "http://gpu:11434"),
    ],
)
def test_a_host_is_understood_as_ollama_itself_does(written: str, url: str) -> None:
    assert ollama_url(written) == url


@pytest.mark.parametrize("written", ["ftp://gpu", "gpu:port", "gpu:99999999", 5, " ", "http://[::1"])
def test_a_wrong_host_is_an_error_with_its_source(places: Places, written: object) -> None:
    with pytest.raises(ConfigError, match=r"^argument ollama_host: backends\.ollama\.settings\.base_url: "):
        load(env={}, places=places, arguments={"ollama_host": written})
