"""`inferq backends`: list, show, test, drain, enable, disable, discover; and why tasks wait, as people see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings, StoreSettings
from inferq.executors.discovery import Candidate, discover

CONFIG = """
[backends.gpu]
executor = "echo"
slots = 2
models = ["m"]

[backends.cloud]
executor = "echo"
remote = true
priority = 3
"""


@pytest.fixture
def configured(home: Path) -> Path:
    (home / "inferq.toml").write_text(CONFIG)
    return home


def test_backends_are_listed_with_where_and_state(cli: Any, configured: Path) -> None:
    records = cli("backends", "list", "-o", "json").json
    assert [(one["name"], one["remote"], one["state"], one["priority"]) for one in records] == [
        ("cloud", True, "up", 3),
        ("gpu", False, "up", 0),
    ]
    lines = cli("backends", "ls").lines
    assert lines[0].split("\t")[:4] == ["NAME", "EXECUTOR", "WHERE", "STATE"]
    assert "no worker" in lines[1]
    assert cli("backends", "show", "gpu", "-o", "json").json["models"] == ["m"]


def test_a_switch_is_kept_over_processes_until_it_is_undone(cli: Any, configured: Path) -> None:
    assert cli("backends", "drain", "gpu", "--reason", "new fan").code == 0
    assert cli("backends", "show", "gpu", "-o", "json").json["state"] == "draining"
    assert "draining: new fan" in cli("backends", "list").out
    cli("backends", "disable", "gpu", "cloud")
    assert [one["state"] for one in cli("backends", "list", "-o", "json").json] == ["disabled", "disabled"]
    cli("backends", "enable", "gpu", "cloud")
    assert [one["state"] for one in cli("backends", "list", "-o", "json").json] == ["up", "up"]


def test_a_test_asks_each_and_fails_when_one_does_not_work(cli: Any, home: Path, free_port: int) -> None:
    text = f'[backends.a]\nexecutor = "echo"\n[backends.b]\nexecutor = "openai"\nsettings.base_url = "http://127.0.0.1:{free_port}/v1"\n'
    (home / "inferq.toml").write_text(text)
    assert cli("backends", "test", "a").code == 0
    ran = cli("backends", "test", "-o", "json")
    assert ran.code == 1
    assert [(one["name"], one["ok"]) for one in ran.json] == [("a", True), ("b", False)]


def test_unknown_names_are_not_found(cli: Any, configured: Path) -> None:
    for verb in ("show", "test", "drain", "disable", "enable"):
        ran = cli("backends", verb, "gpuu")
        assert ran.code == 5
        assert "cloud, gpu" in ran.err


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# ── discovery ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_discovery_says_what_was_not_found_and_why(cli: Any, home: Path) -> None:
    records = cli("backends", "discover", "-o", "json").json
    assert [one["title"] for one in records] == ["Ollama", "llama.cpp server", "vLLM"]
    assert all(one["note"] for one in records if not one["found"])


async def _served(models: bytes) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(models), models))
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def test_a_server_that_is_found_is_used_unless_one_of_its_kind_was_configured(free_port: int) -> None:
    body = json.dumps({"object": "list", "data": [{"id": "qwen3", "object": "model"}]}).encode()
    server = await _served(body)
    port = server.sockets[0].getsockname()[1]
    candidates = [
        Candidate("Ollama", "ollama", "ollama", f"http://127.0.0.1:{free_port}"),
        Candidate("vLLM", "openai", "vllm", f"http://127.0.0.1:{port}/v1"),
    ]
    settings = Settings()
    missing, found = await discover(settings.backends, built_in=True, candidates=candidates)
    assert (missing.found, missing.used) == (False, False)
    assert missing.note
    assert (found.found, found.used, found.models) == (True, True, ("qwen3",))
    assert found.backend is not None
    assert (found.backend.name, found.backend.serves, found.backend.models, found.backend.remote) == (
        "vllm",
        ("ollama",),
        ("qwen3",),
        False,
    )
    _, left = await discover(settings.backends, built_in=False, candidates=candidates)
    assert (left.used, left.note) == (False, "not used: openai is configured for executor openai")
    server.close()
    await server.wait_closed()


async def test_whatever_else_listens_there_is_not_taken_for_a_model_server() -> None:
    server = await _served(b'{"hello": "world"}')
    port = server.sockets[0].getsockname()[1]
    (found,) = await discover((), built_in=True, candidates=[Candidate("vLLM", "openai", "vllm", f"http://127.0.0.1:{port}/v1")])
    assert not found.found
    assert "did not answer as its API says" in found.note
    server.close()
    await server.wait_closed()


async def test_looking_takes_no_longer_than_the_patience_of_one() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = await discover((), built_in=True, candidates=[Candidate("x", "openai", str(n), url) for n in range(5)], patience=0.2)
    assert loop.time() - began < 2
    assert {one.note for one in found} == {"no answer within 0.2 s"}
    server.close()


# ── why tasks wait ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_says_why_each_task_waits(cli: Callable[..., Any], home: Path) -> None:
    cli("submit", "chat", "--executor", "echo", "--model", "m", "hi")
    assert "no worker is running on this store" in cli("list").out
    assert Settings(store=StoreSettings()).worker.discover


def test_models_in_memory_are_asked_of_every_backend_that_can_say(cli: Any, configured: Path) -> None:
    assert cli("models", "ps", "-o", "json").json == []
    assert "gpu: it does not say which models it has in memory" in cli("models", "ps", "--backend", "gpu").err


def test_a_worker_process_obeys_a_drain_at_once_and_goes_on_when_it_is_enabled(cli: Any, processes: Any, home: Path) -> None:
    (home / "inferq.toml").write_text('worker.discover = false\n[backends.gpu]\nexecutor = "echo"\nslots = 1\nsettings.latency = 0.4\n')
    worker = processes.start("work", "--quiet")
    assert "working on" in worker.stderr.readline()
    submitted = [cli("submit", "chat", "--executor", "echo", "--model", "m", "hi", "-q").out.strip() for _ in range(4)]
    drained = cli("backends", "drain", "gpu", "--reason", "new fan", "--wait", "-o", "json")
    assert (drained.code, drained.json[0]["state"], drained.json[0]["busy"], drained.json[0]["unaware"]) == (0, "draining", 0, [])
    late = cli("submit", "chat", "--executor", "echo", "--model", "m", "hi", "-q").out.strip()
    assert "gpu is draining: new fan" in cli("status", late).out
    rows = [line.split("\t")[:2] for line in cli("status").lines]
    assert ["oldest pending", "gpu is draining: new fan; `inferq backends enable gpu`"] in rows
    assert ["backend", "gpu"] in rows
    assert cli("status", "-o", "json").json["backends_closed"] == {"gpu": "draining: new fan"}
    cli("backends", "enable", "gpu")
    assert cli("wait", *submitted, late).code == 0
    assert cli("backends", "show", "gpu", "-o", "json").json["completed"] == 5


def test_a_backend_that_failed_shows_how_often_and_when_it_is_tried_again(cli: Any, processes: Any, home: Path) -> None:
    (home / "inferq.toml").write_text(
        "worker.discover = false\nbreaker = { failures = 1, initial_delay = 600, max_delay = 600 }\n"
        '[backends.gpu]\nexecutor = "echo"\nsettings.fail = ["server_error"]\n'
    )
    worker = processes.start("work", "--quiet")
    assert "working on" in worker.stderr.readline()
    assert cli("submit", "chat", "--executor", "echo", "--model", "m", "hi", "--retries", "0", "--wait").code == 1
    # The worker tells the store of it a moment after the task has ended.
    told = next(ran for ran in (cli("backends", "show", "gpu") for _ in range(500)) if "BREAKER" in ran.out)
    shown = dict(line.split("\t", 1) for line in told.lines)
    assert shown["STATE"] == "up, not for m"
    assert shown["BREAKER"].startswith("m: failed once (server_error); a task may find out at 20")
    assert "backend gpu at m failed 1 times (server_error)" in worker.stderr.readline()
