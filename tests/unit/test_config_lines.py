"""A key's line is found in every format, however often its last name stands in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inferq.config import Loaded, Places, load

Load = Callable[[], Loaded]

FILES = {
    "inferq.toml": """\
[worker]
slots = 3
[retry]
max_retries = 4
[backends."gpu-1"] # the first
executor = "ollama"
slots = 4
settings = { base_url = "http://one" }
[backends.gpu-2]
executor = "ollama"
slots = 5
settings.base_url = "http://two"
""",
    "inferq.yaml": """\
worker:
  slots: 3
retry.max_retries: 4

backends:
  gpu-1:
    slots: 4
    executor: ollama
    settings: {base_url: "http://one"}
  gpu-2:
    executor: ollama
    slots: 5
    settings:
      base_url: http://two
""",
    "inferq.json": """\
{"worker": {"slots": 3},
\t"retry": {
\t\t"max_retries": 4},
 "backends": {"gpu-1": {
    "executor": "ollama",
    "slots": 4,
    "settings": {"base_url": "http://one"}},
  "gpu-2": {
    "executor": "ollama",
    "slots": 5,
    "settings": {
      "base_url": "http://two"}}}}
""",
    "pyproject.toml": """\
[tool.other.worker]
slots = "none of ours"
[tool.inferq.worker]
slots = 3
[tool.inferq.retry]
max_retries = 4
[tool.inferq.backends]
gpu-1 = { executor = "ollama", slots = 4, settings = { base_url = "http://one" } }
gpu-2.executor = "ollama"
gpu-2.slots = 5
gpu-2.settings.base_url = "http://two"
""",
}
KEYS = ("worker.slots", "retry.max_retries", "backends.gpu-1.slots", "backends.gpu-1.settings.base_url", "backends.gpu-2.slots",
        "backends.gpu-2.settings.base_url")  # fmt: skip
LINES = {
    "inferq.toml": (2, 4, 7, 8, 11, 12),
    "inferq.yaml": (2, 3, 7, 9, 12, 14),
    "inferq.json": (1, 3, 6, 7, 10, 12),
    "pyproject.toml": (4, 6, 8, 8, 10, 11),
}


@pytest.fixture
def load_here(tmp_path: Path) -> Load:
    return lambda: load(env={}, places=Places(cwd=tmp_path, home=tmp_path, user=tmp_path / "u", system=(), data=tmp_path / "d"))


@pytest.mark.parametrize("name", FILES)
def test_each_value_names_the_line_that_sets_it(tmp_path: Path, load_here: Load, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    sources = load_here().sources
    assert tuple(sources[key].line for key in KEYS) == LINES[name]


def test_a_key_under_a_forerunners_name_has_its_line_too(tmp_path: Path, load_here: Load) -> None:
    (tmp_path / "inferq.yaml").write_text(
        "worker:\n  lease: 40\nbackends:\n- name: a\n  executor: echo\n  slots: 2\n- name: b\n  executor: echo\n"
    )
    assert load_here().sources["backends.a.slots"].line == 6
