"""Fixtures of the executors' tests: scripted doubles, and a real model served by llama.cpp."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import platformdirs
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # importlib mode does not let test files import the doubles that they share

from doubles.server import Double  # noqa: E402 - only now can it be found


@pytest.fixture(autouse=True)
def _no_backends_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """A scripted HTTP server."""
    made = Double()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
def llm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The /v1 address of a real model server; skips, or under INFERQ_E2E=required fails, where there is none."""
    model = _model_file()
    if model is None or importlib.util.find_spec("xllamacpp") is None:
        missing = "no small model: set INFERQ_TEST_GGUF or run `inferq models pull smollm2` (and install inferq[local])"
        if os.environ.get("INFERQ_E2E") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("llm") / "server.log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "llm_server.py"), str(model), str(port)], stdout=subprocess.PIPE, stderr=errors
        )
        assert child.stdout is not None
        try:
            # It prints its address once it is ready; an end without one means that it died.
            if not child.stdout.readline().startswith(b"listening"):
                pytest.fail(f"the model server did not start:\n{log.read_text(errors='replace')[-2_000:]}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            child.wait(10)
            child.stdout.close()


def _model_file() -> Path | None:
    if given := os.environ.get("INFERQ_TEST_GGUF"):
        return Path(given)
    places = [Path(platformdirs.user_cache_dir("inferq")) / "models"]
    with contextlib.suppress(ImportError, AttributeError):
        places.insert(0, Path(importlib.import_module("inferq.executors.models").models_dir()))
    return next((file for place in places for file in sorted(place.glob("smollm2*.gguf"))), None)


@pytest.fixture
def free_port() -> int:
    """A loopback port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
