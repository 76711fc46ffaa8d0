"""What tasks that come over HTTP may not do: run scripts and make requests, unless a backend is opened to them with bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferq import AsyncQueue, Backend, Settings
from inferq.config import DEFAULT_BACKENDS, BackendSettings, WorkerSettings
from inferq.engine import Backends
from inferq.errors import ConfigError, Forbidden
from inferq.executor import Executor

SCRIPT = {"executor": "script", "action": "execute", "payload": {"argv": ["echo", "hi"]}}
REQUEST = {"executor": "http", "action": "request", "payload": {"url": "https://example.org/"}}


@pytest.fixture
async def jobs(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs"
    (folder / "open").mkdir(parents=True)
    (folder / "closed").mkdir()
    for place in ("open", "closed"):
        (folder / place / "hello.sh").write_text('echo "hello $1"\n')
    (tmp_path / "outside.sh").write_text("echo outside\n")
    (folder / "open" / "link.sh").symlink_to(tmp_path / "outside.sh")
    (folder / "open" / "near.sh").symlink_to(folder / "closed" / "hello.sh")
    return folder


@pytest.fixture
async def serve(open_site: Any) -> Any:
    """A site whose backends are those of a configuration."""

    async def make(*backends: BackendSettings) -> Any:
        settings = Settings(worker=WorkerSettings(shutdown_grace=0.0), backends=backends)
        return await open_site(configured=True, settings=settings)

    return make


async def ended(site: Any, body: dict[str, Any]) -> tuple[str, str]:
    """State and error or text of a task that was taken."""
    made = await site.post("/api/tasks", body)
    task = await site.get(f"/api/tasks/{made['id']}?wait=20")
    if task["state"] == "completed":
        return "completed", (await site.get(f"/api/tasks/{made['id']}/result"))["text"]
    return task["code"], task["error"]


async def refused(site: Any, body: Any, path: str = "/api/tasks") -> tuple[int, str]:
    status, problem, _ = await site.ask("POST", path, json=body)
    assert status in (400, 403), problem
    return status, problem["detail"]


@pytest.mark.parametrize("body", [SCRIPT, REQUEST])
async def test_scripts_and_requests_are_refused_on_every_way_in(serve: Any, body: dict[str, Any]) -> None:
    site = await serve(*DEFAULT_BACKENDS)
    schedule = {"name": "nightly", "expression": "0 3 * * *", "task": body}
    for given, path in ((body, "/api/tasks"), ([body], "/api/tasks"), (schedule, "/api/cron")):
        status, detail = await refused(site, given, path)
        assert status == 403
        assert "docs/security.md" in detail
    for path in ("/api/batches/import", f"/api/batches/{(await site.post('/api/batches', {}))['id']}/tasks"):
        how: dict[str, Any] = {"data": json.dumps(body).encode() + b"\n", "headers": {"content-type": "application/x-ndjson"}}
        status, problem, _ = await site.ask("POST", path, **how)
        assert 400 <= status < 500, problem
        assert "docs/security.md" in str(problem)
    assert (await site.queue.stats()).total == 0
    # Who has the store may do so: it is about what comes over HTTP.
    await site.queue.submit("script", "execute", payload={"argv": ["echo", "hi"]})


async def test_an_opened_script_backend_runs_what_it_names_and_nothing_else(serve: Any, jobs: Path) -> None:
    settings = {"working_dir": str(jobs), "allow_programs": ["echo"], "allow_scripts": ["open"], "allow_env": ["LANG"]}
    site = await serve(BackendSettings("script", "script", over_http=True, settings=settings))

    def job(**payload: Any) -> dict[str, Any]:
        return SCRIPT | {"payload": payload}

    assert await ended(site, job(argv=["echo", "hi"])) == ("completed", "hi\n")
    assert await ended(site, job(script="open/hello.sh", args=["you"])) == ("completed", "hello you\n")
    for wrong in (
        {"argv": ["sh", "-c", "echo hi"]},
        {"argv": ["/bin/echo"]},
        {"argv": ["../jobs/open/hello.sh"]},
        {"command": "echo hi"},
        {"script": "closed/hello.sh"},
        {"script": "open/../closed/hello.sh"},
        {"script": "../outside.sh"},
        {"script": str(jobs / "open" / "hello.sh")},
        {"script": "open/hello.sh\0"},
        {"argv": ["echo"], "env": {"LD_PRELOAD": "/tmp/x.so"}},
        {"argv": ["echo"], "env": {"PATH": "/tmp"}},
    ):
        status, _ = await refused(site, job(**wrong))
        assert status == 400, wrong
    for link in ("open/link.sh", "open/near.sh"):
        code, error = await ended(site, job(script=link))
        assert code == "bad_request", error
        assert "leads out of" in error


async def test_an_opened_http_backend_asks_named_hosts_only_whatever_redirects_say(serve: Any) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if target := request.query.get("to"):
            return web.Response(status=302, headers={"location": target})
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        settings = {"allow_hosts": ["127.0.0.1"], "allow_private": True}
        site = await serve(BackendSettings("http", "http", over_http=True, settings=settings))

        def request(url: str, **query: str) -> dict[str, Any]:
            return REQUEST | {"payload": {"url": url, "query": query}}

        assert await ended(site, request(f"http://127.0.0.1:{port}/a")) == ("completed", "here")
        code, error = await ended(site, request(f"http://127.0.0.1:{port}/b", to=f"http://localhost:{port}/secret"))
        assert (code, "redirected to a forbidden address" in error) == ("permission", True)
        for wrong in (f"http://localhost:{port}/", "http://169.254.169.254/", "http://evil@127.0.0.1/", "file:///etc/passwd"):
            assert (await refused(site, request(wrong)))[0] == 400
        assert "/secret" not in asked
    finally:
        await runner.cleanup()


async def test_private_addresses_stay_closed_where_hosts_are_named(serve: Any) -> None:
    site = await serve(BackendSettings("http", "http", over_http=True, settings={"allow_hosts": ["localhost", "10.0.0.1"]}))
    status, detail = await refused(site, REQUEST | {"payload": {"url": "http://10.0.0.1/"}})
    assert (status, "private" in detail) == (400, True)
    code, error = await ended(site, REQUEST | {"payload": {"url": f"http://localhost:{site.server.port}/api/keys"}})
    assert (code, "private" in error) == ("permission", True)


@pytest.mark.parametrize(
    ("executor", "settings", "why"),
    [
        ("script", {}, "allow_programs"),
        ("script", {"scripts_only": True}, "allow_scripts"),
        ("script", {"allow_shell": True, "allow_programs": ["echo"]}, "a shell runs anything"),
        ("http", {}, "allow_hosts"),
    ],
)
async def test_a_backend_is_not_opened_without_bounds(tmp_path: Path, executor: str, settings: dict[str, Any], why: str) -> None:
    backend = BackendSettings("b", executor, over_http=True, settings=settings)
    queue = AsyncQueue("sqlite://:memory:", settings=Settings(backends=(backend,)))
    with pytest.raises(ConfigError, match=why):
        await queue.start()


async def test_one_closed_backend_closes_its_executor_unless_the_open_one_is_named(serve: Any) -> None:
    bounds = {"allow_programs": ["echo"]}
    site = await serve(
        BackendSettings("open", "script", over_http=True, settings=bounds), BackendSettings("closed", "script", settings=bounds)
    )
    assert (await refused(site, SCRIPT))[0] == 403
    assert (await refused(site, SCRIPT | {"backend": "closed"}))[0] == 403
    assert await ended(site, SCRIPT | {"backend": "open"}) == ("completed", "hi\n")


class Plugin(Executor):
    actions = ("do",)


class Flagged(Plugin):
    over_http = True


class Closed(Plugin):
    over_http = False


def test_who_hands_over_an_executor_opens_it_and_who_configures_one_says_so() -> None:
    for made, open_ in ((Plugin("p"), True), (Flagged("p"), True), (Closed("p"), False)):
        backends = Backends([Backend(made, kind="p")])
        if open_:
            backends.check_over_http("p")
        else:
            with pytest.raises(Forbidden):
                backends.check_over_http("p")
    built_in = {name: Backend.from_settings(BackendSettings(name, name)).over_http for name in ("echo", "ollama", "openai", "llamacpp")}
    assert set(built_in.values()) == {True}
    for name in ("script", "http"):
        assert not Backend.from_settings(BackendSettings(name, name)).over_http
    assert not Backend.from_settings(BackendSettings("echo", "echo", over_http=False)).over_http


def test_an_installed_plugin_is_closed_until_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from inferq.engine import backend

    monkeypatch.setattr(backend, "load", lambda name: {"plugin": Plugin, "flagged": Flagged}[name])
    assert not Backend.from_settings(BackendSettings("x", "plugin")).over_http
    assert Backend.from_settings(BackendSettings("x", "plugin", over_http=True)).over_http
    assert Backend.from_settings(BackendSettings("x", "flagged")).over_http
