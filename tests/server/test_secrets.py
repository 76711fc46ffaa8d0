"""Secrets are never shown: a real server with secrets of every origin is asked everything, and its commands and logs are read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferq.server.routes import ROUTES
from inferq.testing import wait_until

INFERQ = Path(sys.executable).with_name("inferq")
SECRETS = [f"s3cret-{word}-0123456789" for word in ("plain", "name", "file", "url", "header", "systemd")]
PLAIN, BY_NAME, BY_FILE, IN_URL, IN_HEADER, BY_CREDENTIAL = SECRETS

CONFIG = f"""
[backends.plain]
executor = "openai"
settings = {{ base_url = "http://127.0.0.1:9/v1", api_key = "{PLAIN}" }}
[backends.named]
executor = "openai"
settings = {{ base_url = "http://127.0.0.1:9/v1", api_key = "${{OPENAI_TEST_KEY}}" }}
[backends.filed]
executor = "openai"
settings = {{ base_url = "http://127.0.0.1:9/v1", api_key = "file:key.txt" }}
[backends.credential]
executor = "openai"
settings = {{ base_url = "http://127.0.0.1:9/v1", api_key = "credential:openai" }}
[backends.url]
executor = "ollama"
settings = {{ base_url = "http://user:{IN_URL}@127.0.0.1:9" }}
[backends.web]
executor = "http"
over_http = true
[backends.web.settings]
base_url = "http://127.0.0.1:9"
headers = {{ Authorization = "Bearer {IN_HEADER}" }}
allow_hosts = ["127.0.0.1"]
allow_private = true
[retry]
max_retries = 0
[log]
level = "debug"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "inferq.toml").write_text(CONFIG)
    (tmp_path / "key.txt").write_text(BY_FILE + "\n")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "openai").write_text(BY_CREDENTIAL)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    return kept | {
        "HOME": str(tmp_path),
        "INFERQ_URL": f"sqlite:///{tmp_path / 'q.db'}",
        "OPENAI_TEST_KEY": BY_NAME,
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "COLUMNS": "400",
    }


async def command(environment: dict[str, str], *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(INFERQ), *words, cwd=environment["HOME"], env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


async def asked(session: aiohttp.ClientSession, url: str, ids: list[str]) -> dict[str, str]:
    """Every GET of the table, by path, and its text."""
    texts: dict[str, str] = {}
    for route in ROUTES:
        if route.method != "GET":
            continue
        if route.path == "/api/store/backup":
            # A copy of the store is all of it, webhooks' secrets too.
            assert route.role == "admin"
            continue
        for id in ids if "{" in route.path else ["-"]:
            path = re.sub(r"\{\w+\}", id, route.path)
            async with session.get(url + path) as answer:
                text = b""
                try:
                    async with asyncio.timeout(1):
                        async for line in answer.content:
                            text += line
                except TimeoutError:
                    pass
                texts[path] = text.decode("utf-8", "replace")
    return texts


async def test_no_answer_command_or_log_shows_a_secret(tmp_path: Path, environment: dict[str, str]) -> None:
    shown: dict[str, str] = {}
    for words in ("config show --sources", "config show -o json", "config validate", "doctor", "executors", "backends list"):
        shown[words] = await command(environment, *words.split())
    assert "plain" in shown["config show --sources"]
    log = (tmp_path / "server.log").open("wb")
    server = await asyncio.create_subprocess_exec(
        str(INFERQ), "-vv", "serve", "--port", "0", cwd=tmp_path, env=environment, stdout=log, stderr=log
    )
    try:
        url = await _url(tmp_path / "server.log")
        async with aiohttp.ClientSession(headers={"accept-encoding": "identity"}) as session:
            ids = [await _task(session, url, backend) for backend in ("plain", "named", "filed", "credential", "url", "web")]
            async with session.post(f"{url}/api/webhooks", json={"name": "ops", "url": "https://ops.example"}) as answer:
                hook = (await answer.json())["secret"]
            async with session.post(f"{url}/api/tasks", json={"executor": "openai", "api_key": PLAIN[:6]}) as answer:
                assert answer.status == 400
            shown |= await asked(session, url, [*ids, "ops", "plain", "web", "url"])
            async with session.post(f"{url}/api/keys", json={"name": "boss", "role": "admin"}) as answer:
                key = (await answer.json())["secret"]
            async with session.get(f"{url}/api/tasks", headers={"authorization": f"Bearer {key[:-1]}"}) as answer:
                assert answer.status == 401
                shown["a wrong key"] = await answer.text()
            async with session.get(f"{url}/api/keys", headers={"authorization": f"Bearer {key}"}) as answer:
                assert answer.status == 200
                shown["keys"] = await answer.text()
    finally:
        server.terminate()
        await server.wait()
        log.close()
    shown["log"] = (tmp_path / "server.log").read_text()
    secret = key.rpartition("_")[2]
    found = [(what, word) for what, text in shown.items() for word in (*SECRETS, hook, secret[:-1]) if word in text]
    assert found == []
    assert len(shown) > 40


async def _url(path: Path) -> str:
    found: re.Match[str] = await wait_until(lambda: re.search(r"http://127\.0\.0\.1:\d{4,}", path.read_text()), timeout=30, what="a URL")
    return found[0]


async def _task(session: aiohttp.ClientSession, url: str, backend: str) -> str:
    executor = {"url": "ollama", "web": "http"}.get(backend, "openai")
    body: dict[str, Any] = {"executor": executor, "backend": backend, "action": "chat", "model": "m"}
    body["payload"] = {"messages": [{"role": "user", "content": "x"}]}
    if executor == "http":
        body |= {"action": "request", "payload": {"url": "http://127.0.0.1:9/x"}, "model": ""}
    async with session.post(f"{url}/api/tasks", json=body) as answer:
        made = await answer.json()
        assert answer.status == 201, made
    async with session.get(f"{url}/api/tasks/{made['id']}?wait=20") as answer:
        task = await answer.json()
    assert task["state"] in ("failed", "scheduled", "pending"), json.dumps(task)
    return str(made["id"])
