"""Fixtures of the fault tests: a place for a store and its logs, a small disk to fill, a way to start children."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the harness is shared with the child programs, and by test files that cannot import each other
sys.path.append(str(HERE.parent / "executors"))  # the scripted backends

from faultkit.children import Child, Start, absent  # noqa: E402 - only now can it be found
from faultkit.place import Place  # noqa: E402


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A store with a lease of one second."""
    return Place(str(tmp_path), lease=1.0, rescue_interval=0.1)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program of `programs/` and ends it with the test."""
    with ExitStack() as stack:

        def begin(program: str, place: Place, **arguments: Any) -> Child:
            return stack.enter_context(Child(program, place, **arguments))

        yield begin


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True, check=False)
    if made.returncode:
        absent(f"no full disk without the right to mount one: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)
