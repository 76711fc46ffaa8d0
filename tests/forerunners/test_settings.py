"""Every setting that is accepted does something: those of the forerunners name ours, and ours are read where work is done."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from inferq.config import Places, keys, load
from inferq.config.schema import json_schema
from inferq.errors import ConfigError

SOURCE = Path(__file__).parents[2] / "src" / "inferq"
SCHEMA = jsonschema_rs.validator_for(json_schema())

OLLAMA = "backends.ollama.settings.base_url"
CLOUD = "backends.cloud"
REMOTE = {"enabled": True, "endpoints": [{"name": "cloud", "base_url": "https://cloud/v1", "api_key": "k", "priority": 2}]}

# features of the embedded queue (flat file, its variable) and of the server (the block of remote endpoints): each with what it changes
FILE: list[tuple[dict[str, Any], str, Any]] = [
    ({"ollama_host": "http://gpu:1"}, OLLAMA, "http://gpu:1"),
    ({"ollama_timeout": "7m"}, "worker.timeout", 420.0),
    ({"max_workers": 9}, "worker.slots", 9),
    ({"storage_path": "/srv/q"}, "store.url", "sqlite:////srv/q/inferq.db"),
    ({"cleanup_interval": "2h"}, "store.prune_interval", 7200.0),
    ({"cleanup_interval": "2h"}, "store.retention.failed.age", 2 * 86_400.0),
    ({"max_completed_tasks": 5}, "store.retention.completed.count", 5),
    ({"scheduling_interval": "2s"}, "worker.poll_interval", 2.0),
    ({"batch_size": 3}, "worker.claim_batch", 3),
    ({"retry_config": {"max_retries": 0}}, "retry.max_retries", 0),
    ({"retry_config": {"initial_delay": "2s"}}, "retry.initial_delay", 2.0),
    ({"retry_config": {"max_delay": "1m"}}, "retry.max_delay", 60.0),
    ({"retry_config": {"backoff_factor": 3}}, "retry.backoff_factor", 3.0),
    ({"log_level": "warn"}, "log.level", "warning"),
    ({"log_file": "/var/log/q"}, "log.file", "/var/log/q"),
    ({"listen_addr": "localhost:8080"}, "server.port", 8080),
    ({"listen_addr": ":8080"}, "server.host", "0.0.0.0"),
    ({"remote_scheduling": REMOTE}, f"{CLOUD}.executor", "openai"),
    ({"remote_scheduling": REMOTE}, f"{CLOUD}.settings.base_url", "https://cloud/v1"),
    ({"remote_scheduling": REMOTE}, f"{CLOUD}.settings.api_key", "***"),
    ({"remote_scheduling": REMOTE}, f"{CLOUD}.priority", 2),
    ({"remote_scheduling": REMOTE}, f"{CLOUD}.enabled", True),
    ({"remote_scheduling": REMOTE | {"enabled": False}}, f"{CLOUD}.enabled", False),
    ({"remote_scheduling": REMOTE | {"health_check_interval": "10s"}}, "health.interval", 10.0),
    ({"remote_scheduling": REMOTE | {"fallback_to_local": False}}, "remote.fallback_to_local", False),
    ({"remote_scheduling": REMOTE | {"max_local_queue_size": 7}}, "remote.max_local_queue", 7),
    ({"remote_scheduling": REMOTE | {"local_first_policy": False}}, "remote.local_first", False),
]
VARIABLES: list[tuple[str, str, str, Any]] = [
    ("OLLAMA_HOST", "gpu", OLLAMA, "http://gpu:11434"),
    ("OLLAMA_TIMEOUT", "7m", "worker.timeout", 420.0),
    ("QUEUE_MAX_WORKERS", "9", "worker.slots", 9),
    ("MAX_CONCURRENT_REQUESTS", "9", "worker.slots", 9),
    ("QUEUE_STORAGE_PATH", "/srv/q", "store.data_dir", "/srv/q"),
    ("QUEUE_CLEANUP_INTERVAL", "2h", "store.prune_interval", 7200.0),
    ("QUEUE_MAX_COMPLETED_TASKS", "5", "store.retention.completed.count", 5),
    ("SCHEDULER_INTERVAL", "2s", "worker.poll_interval", 2.0),
    ("SCHEDULER_BATCH_SIZE", "3", "worker.claim_batch", 3),
    ("RETRY_MAX_RETRIES", "0", "retry.max_retries", 0),
    ("RETRY_INITIAL_DELAY", "2s", "retry.initial_delay", 2.0),
    ("RETRY_MAX_DELAY", "1m", "retry.max_delay", 60.0),
    ("RETRY_BACKOFF_FACTOR", "3", "retry.backoff_factor", 3.0),
    ("LOG_LEVEL", "debug", "log.level", "debug"),
    ("LOG_FILE", "/var/log/q", "log.file", "/var/log/q"),
    ("MAX_QUEUE_SIZE", "100", "store.max_queue_size", 100),
    ("REQUEST_TIMEOUT", "300", "worker.timeout", 300.0),
]


def read(tmp_path: Path, **more: Any) -> dict[str, Any]:
    places = Places(cwd=tmp_path, home=tmp_path / "home", user=tmp_path / "user", system=(), data=tmp_path / "data")
    return {name: value for name, value, _ in load(places=places, **({"env": {}} | more)).rows()}


@pytest.mark.parametrize(("data", "key", "value"), FILE)
def test_every_key_of_a_forerunners_file_changes_a_setting(tmp_path: Path, data: dict[str, Any], key: str, value: Any) -> None:
    before = read(tmp_path)
    SCHEMA.validate(data)
    for name in ("config.yaml", "inferq.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(data))
        found = read(tmp_path, file=tmp_path / name)
        assert found[key] == value
        assert before.get(key) != value


@pytest.mark.parametrize(("name", "text", "key", "value"), VARIABLES)
def test_every_variable_of_a_forerunner_changes_a_setting(tmp_path: Path, name: str, text: str, key: str, value: Any) -> None:
    assert read(tmp_path)[key] != value
    assert read(tmp_path, env={name: text})[key] == value


@pytest.mark.parametrize("wrong", ["8080", "http://localhost:8080", "localhost:", 8080])
def test_an_address_to_listen_on_is_checked(tmp_path: Path, wrong: Any) -> None:
    (tmp_path / "inferq.yaml").write_text(yaml.safe_dump({"listen_addr": wrong}))
    with pytest.raises(ConfigError, match="listen_addr: expected an address such as localhost:7125"):
        read(tmp_path)


def attributes_read() -> set[str]:
    """Every attribute that the program reads outside the package that reads the configuration."""
    files = [file for file in SOURCE.rglob("*.py") if "config" not in file.relative_to(SOURCE).parts[:1]]
    trees = [ast.walk(ast.parse(file.read_text("utf-8"))) for file in files]
    return {node.attr for tree in trees for node in tree if isinstance(node, ast.Attribute)}


def test_every_setting_is_read_by_the_program() -> None:
    used = attributes_read()
    indirect = {"store.data_dir"}  # `store.url` follows from it
    assert [key.name for key in keys() if key.path[-1] not in used and key.name not in indirect] == []
