"""The forerunners' block `remote_scheduling` means what it said, and our own words for backends are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferq.config import Places, Settings, load
from inferq.errors import ConfigError

BLOCK = """
ollama_host: gpu:11434
remote_scheduling:
  enabled: true
  health_check_interval: 10s
  fallback_to_local: false
  max_local_queue_size: 7
  local_first_policy: false
  endpoints:
    - {name: cloud, base_url: "https://api.example.com/v1", api_key: "${CLOUD_KEY}", priority: 3}
    - {name: spare, base_url: "https://spare.example.com/v1", enabled: false}
"""


def read(tmp_path: Path, text: str, name: str = "inferq.yaml", **env: str) -> Settings:
    (tmp_path / name).write_text(text)
    places = Places(cwd=tmp_path, home=tmp_path / "home", user=tmp_path / "user", system=(), data=tmp_path / "data")
    return load(env=env, places=places).settings


def test_b10_the_forerunners_endpoints_become_remote_backends_with_their_keys_from_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, BLOCK, CLOUD_KEY="sk-1")
    cloud, spare = settings.backend("cloud"), settings.backend("spare")
    assert cloud is not None
    assert spare is not None
    assert (cloud.executor, cloud.serves, cloud.remote, cloud.priority, cloud.enabled) == ("openai", ("ollama",), True, 3, True)
    assert cloud.opened() == {"base_url": "https://api.example.com/v1", "api_key": "sk-1"}
    assert "sk-1" not in repr(settings)
    assert not spare.enabled
    ollama = settings.backend("ollama")
    assert ollama is not None
    assert ollama.settings["base_url"] == "http://gpu:11434"


def test_b05_the_forerunners_rules_are_ours(tmp_path: Path) -> None:
    settings = read(tmp_path, BLOCK, CLOUD_KEY="x")
    remote = settings.remote
    assert (remote.policy, remote.local_first, remote.max_local_queue, remote.fallback_to_local) == ("queue", False, 7, False)
    assert settings.health.interval == 10.0


def test_b05_what_is_not_enabled_changes_nothing_and_its_endpoints_get_no_task(tmp_path: Path) -> None:
    settings = read(tmp_path, BLOCK.replace("enabled: true", "enabled: false"), CLOUD_KEY="x")
    cloud = settings.backend("cloud")
    assert cloud is not None
    assert not cloud.enabled
    assert settings.remote.policy == "overflow"


def test_b05_go_writes_durations_as_nanoseconds_and_json_is_read_too(tmp_path: Path) -> None:
    text = '{"remote_scheduling": {"enabled": true, "health_check_interval": 45000000000, "endpoints": []}}'
    settings = read(tmp_path, text, "inferq.json")
    assert settings.health.interval == 45.0
    assert [backend.name for backend in settings.backends][:2] == ["ollama", "openai"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("remote_scheduling: {enabeld: true}", "remote_scheduling: the key 'enabeld' is not known; known here: enabled, endpoints"),
        ("remote_scheduling: {endpoints: [{name: a}]}", r"remote_scheduling.endpoints\[1\]: expected a group with name and base_url"),
        ("remote_scheduling: {endpoints: [{name: a, base_url: x, key: y}]}", r"endpoints\[1\]: the key 'key' is not known"),
        ("remote_scheduling: 3", "expected a group with enabled"),
        (
            "remote_scheduling: {endpoints: [{name: a, base_url: x}, {name: a, base_url: y}]}",
            "two endpoints are called 'a'; rename one of them",
        ),
        ("backends: {a: {executor: echo, weight: 0}}", "weight: expected a number greater than 0"),
        ("backends: {a: {executor: echo, remote: perhaps}}", "expected true or false"),
        ("remote: {policy: sometimes}", "expected one of overflow, queue, never"),
    ],
)
def test_what_is_wrong_in_the_block_is_named_with_its_file(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        read(tmp_path, text)
    assert "inferq.yaml" in str(caught.value)


def test_a_backend_can_be_described_by_variables(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "backends: {a: {executor: echo}}",
        INFERQ_BACKENDS__A__REMOTE="true",
        INFERQ_BACKENDS__A__WEIGHT="2.5",
        INFERQ_BACKENDS__A__SERVES="ollama,openai",
    )
    backend = settings.backend("a")
    assert backend is not None
    assert (backend.remote, backend.weight, backend.serves) == (True, 2.5, ("ollama", "openai"))
