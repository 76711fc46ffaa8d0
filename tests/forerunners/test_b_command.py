"""What the forerunner's command line and deployment promised and did not keep: gaps B2, B5, B15, B16, on real processes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferq import AsyncQueue
from inferq.cli import root
from inferq.cli.groups import LazyGroup
from inferq.config import Settings
from inferq.config.address import find_address
from inferq.testing import FakeClock, wait_until

ROOT = Path(__file__).parents[2]


@dataclass
class Site:
    """A server in a process of its own, the command line that knows its address, and its URL."""

    url: str
    inferq: Any


@pytest.fixture
def serve(inferq: Any) -> Iterator[Callable[..., Site]]:
    started: list[Any] = []

    def start(*flags: str) -> Site:
        process = inferq.start("serve", *(flags or ("--port", "0")), "--data-dir", str(inferq.home / "server"), "--log-format", "json")
        started.append(process)
        for line in process.stderr:
            if (told := json.loads(line)).get("event") == "server.started":
                inferq.env["INFERQ_URL"] = told["url"]
                return Site(told["url"], inferq)
        raise AssertionError("it ended before it had started")

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    return serve()


def test_b02_the_server_listens_where_the_client_looks(inferq: Any, tmp_path: Path) -> None:
    assert Settings().server.port == 7125
    assert "7125" in inferq("serve", "--help")
    # Where a server with the defaults listens, a command line without any address finds it.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "inferq.toml").write_text(f"[server]\nport = {port}\n")
    del inferq.env["INFERQ_URL"]
    server = inferq.start("serve", "--log-format", "json")
    for line in server.stderr:
        if json.loads(line).get("event") == "server.started":
            break
    assert inferq.json("status")["total"] == 0
    inferq("submit", "chat", "--executor", "echo", "--model", "m", "hello", "--sync")
    assert inferq("health") == ""
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert find_address("http://127.0.0.1:7125").is_server


@pytest.mark.parametrize("where", ["--config", "--config-dir"])
def test_b02_each_flag_of_the_forerunners_server_has_its_effect(inferq: Any, where: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = inferq.home / "etc"
    folder.mkdir()
    (folder / "config.yaml").write_text("max_workers: 9\nollama_host: http://127.0.0.1:3\nlog_level: error\n")
    config = folder / "config.yaml" if where == "--config" else folder
    inferq.env |= {"INFERQ_LOG__FORMAT": "json"}
    del inferq.env["INFERQ_URL"]
    asked = ("--port", str(port), "--host", "localhost", "--data-dir", "./kept", "--ollama-host", "http://127.0.0.1:9", where, str(config))
    server = inferq.start("serve", *asked, "-v")
    lines = (json.loads(line) for line in server.stderr)
    started = next(line for line in lines if line.get("event") == "server.started")  # which `-v` lets through, not the file's level
    assert started["url"] in (f"http://localhost:{port}", f"http://127.0.0.1:{port}")
    assert (started["slots"], started["store"]) == (9, f"sqlite:///{inferq.home}/kept/inferq.db")
    assert (inferq.home / "kept" / "inferq.db").is_file()
    inferq.env["INFERQ_URL"] = started["url"]
    inferq("submit", "chat", "--model", "m", "--retries", "0", "hello", "--wait", code=1)
    (task,) = inferq.json("list")
    assert "127.0.0.1:9" in task["error"], "the flag's Ollama is asked, not the file's"
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode == 0


async def test_b03_a_server_fires_what_is_due_and_its_list_shows_when(inferq: Any) -> None:
    """Nobody waits for an hour: the schedule was put an hour ago, by a clock that was late."""
    yesterday = FakeClock(wall=round(time.time() * 1000) - 3_700_000)
    async with AsyncQueue(inferq.env["INFERQ_URL"], work=False, clock=yesterday) as queue:
        task = {"executor": "echo", "action": "generate", "model": "m", "payload": {"prompt": "of {schedule}"}}
        await queue.schedules.put("hourly", "0 * * * *", task=task, misfire="once", window="1d")
        await queue.schedules.put("off", "0 * * * *", task=task, misfire="once", window="1d", enabled=False)
    server = await asyncio.to_thread(inferq.start, "serve", "--port", "0", "-q")

    async def fired() -> list[Any]:
        return [task for task in await asyncio.to_thread(inferq.json, "cron", "history", "hourly") if task["state"] == "completed"]

    (made,) = await wait_until(fired, timeout=30)
    assert (await asyncio.to_thread(inferq, "result", made["id"])).strip() == "of hourly"
    head, *rows = [line.split("\t") for line in (await asyncio.to_thread(inferq, "cron", "list")).splitlines()]
    shown = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert (shown["hourly"]["RUN COUNT"], shown["off"]["RUN COUNT"]) == ("1", "0")
    assert shown["hourly"]["LAST RUN"] < shown["hourly"]["NEXT RUN"]
    assert shown["off"]["LAST RUN"] in ("", "-")
    server.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.communicate)


def test_b05_remote_endpoints_are_switched_on_by_the_servers_configuration_file(inferq: Any, serve: Callable[..., Site]) -> None:
    endpoint = {"name": "cloud", "base_url": "http://127.0.0.1:9/v1", "api_key": "${CLOUD_KEY}", "priority": 2}
    file = inferq.home / "config.yaml"
    file.write_text(yaml.safe_dump({"max_workers": 3, "remote_scheduling": {"enabled": True, "endpoints": [endpoint]}}))
    inferq.env["CLOUD_KEY"] = "sk-of-the-cloud"
    site = serve("--port", "0", "--config", str(file))
    shown = site.inferq("backends", "list", "-o", "json")
    (cloud,) = [backend for backend in json.loads(shown) if backend["name"] == "cloud"]
    assert (cloud["remote"], cloud["executor"]) == (True, "openai")
    assert "sk-of-the-cloud" not in shown


def test_b15_the_command_line_streams_over_the_server(site: Site) -> None:
    ran = site.inferq("submit", "chat", "--executor", "echo", "--model", "m", "one two three", "--stream")
    assert ran == "one two three\n"
    chunks = site.inferq.json("submit", "chat", "--executor", "echo", "--model", "m", "one two", "--stream")["chunks"]
    assert [chunk.get("data") for chunk in chunks[:-1]] == ["one ", "two"]
    assert chunks[-1] == {"done": True}


def test_b16_the_image_has_the_server_and_the_composition_calls_commands_that_exist() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert ".[server]" in dockerfile
    (command,) = re.findall(r'^CMD \["(\w+)"\]', dockerfile, re.MULTILINE)
    assert isinstance(root, LazyGroup)
    assert command in root.verbs
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    named = [service["command"][0] for service in services.values() if "command" in service and "build" in service]
    assert all(name in root.verbs for name in named)
