"""The guide, word for word, against servers: one that runs tasks, a gateway without workers beside it, and a client process of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GUIDE = HERE.parent / "guide"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes, and ends those that are left by their own ids."""
    started: list[subprocess.Popen[str]] = []

    def make(*args: str, **env: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen([sys.executable, *args], text=True, env=os.environ | env, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield make
    for process in started:
        process.terminate()
    for process in started:
        process.communicate(timeout=30)


@pytest.mark.timeout(300)
def test_the_whole_guide_runs_against_a_server_and_against_a_gateway(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    urls = []
    for role in ("work", "gateway"):
        serving = start(str(HERE / "programs" / "hall.py"), str(tmp_path), role)
        assert serving.stdout is not None
        urls.append(f"http://127.0.0.1:{int(serving.stdout.readline())}")
    server, gateway = urls
    pytest_ = ("-m", "pytest", str(GUIDE), "-q", "-p", "no:cacheprovider")
    clients = [start(*pytest_, INFERQ_GUIDE=f"{first} {second}") for first, second in ((server, gateway), (gateway, server))]
    for client in clients:
        said, _ = client.communicate(timeout=280)
        assert client.returncode == 0, said
        passed = re.search(r"(\d+) passed", said)
        assert passed is not None
        assert int(passed[1]) >= 44
        assert "skipped" not in said
