"""Health, metrics, the page, and the application mounted into another one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount

from inferq import AsyncQueue, Settings
from inferq.clock import Now, SystemClock
from inferq.errors import ConfigError
from inferq.metrics import MOST_NAMES, Metrics, Names
from inferq.server import create_app
from inferq.server.gauges import gauges
from inferq.server.openapi import openapi
from inferq.server.reference import renewed
from inferq.server.routes import ROUTES
from inferq.testing import EchoExecutor, wait_until

Chat = Callable[..., dict[str, Any]]


async def samples(site: Any) -> dict[str, float]:
    text = (await site.get("/metrics")).decode()
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_server_is_alive_and_ready_until_it_is_about_to_stop(site: Any) -> None:
    assert await site.get("/livez") == {"status": "ok"}
    for verbose in ("?verbose", "?verbose=1"):
        assert (await site.get(f"/readyz{verbose}"))["checks"] == {"store": "ok", "draining": "ok", "stopping": "ok"}

    site.app.draining = True

    status, body, _ = await site.ask("GET", "/readyz")
    assert (status, body["status"]) == (503, "not ready")
    assert await site.get("/livez") == {"status": "ok"}
    assert (await site.ask("GET", "/healthz"))[0] == 503


async def test_a_drained_queue_is_not_ready_says_why_and_keeps_what_still_comes(site: Any, chat: Chat) -> None:
    assert (await site.ask("POST", "/api/drain"))[0] == 204

    status, body, _ = await site.ask("GET", "/readyz")
    assert status == 503
    assert body["checks"]["draining"] == "the queue is drained: no task starts until `inferq resume`"
    assert await site.get("/livez") == {"status": "ok"}
    made = await site.post("/api/tasks", chat())
    assert (await site.get(f"/api/tasks/{made['id']}/why"))["reason"] == body["checks"]["draining"]
    assert (await site.get("/api/status"))["draining"]
    assert (await site.get("/api/stats"))["paused"] == ["*"]

    assert (await site.ask("POST", "/api/resume"))[0] == 204
    assert (await site.queue.wait(made["id"], timeout=10)).state == "completed"
    assert await site.get("/readyz") == {"status": "ok"}
    assert not (await site.get("/api/status"))["draining"]
    status, problem, _ = await site.ask("POST", "/api/pause", json={"scope": "drain"})
    assert (status, problem["detail"]) == (
        400,
        "scope: expected * or a lane such as ollama/llama3.2, got 'drain'; queue.drain() drains",
    )


async def test_a_closed_store_is_not_ready_and_says_so_without_paths(site: Any, tmp_path: Path) -> None:
    await site.queue.close()

    status, body, _ = await site.ask("GET", "/readyz")

    assert (status, body["checks"]["store"]) == (503, "the store cannot be used: store_closed")
    assert (await site.ask("GET", "/api/stats"))[0] == 503


async def test_metrics_count_what_happened(site: Any, chat: Chat) -> None:
    await site.get("/api/stats")
    for _ in range(3):
        made = await site.post("/api/tasks", chat())
        await site.queue.wait(made["id"])
    await wait_until(lambda: site.app.metrics.finished.values.get(("echo", "echo", "m", "completed")) == 3)

    found = await samples(site)

    assert found["inferq_tasks_submitted_total{executor=echo,model=m,source=submit}"] == 3
    assert found["inferq_tasks_finished_total{backend=echo,executor=echo,model=m,outcome=completed}"] == 3
    assert found["inferq_attempts_total{backend=echo,code=,model=m,outcome=completed}"] == 3
    assert found["inferq_task_run_seconds_count{backend=echo,model=m,priority=5}"] == 3
    assert found["inferq_time_to_first_token_seconds_count{backend=echo,model=m}"] == 3
    assert found["inferq_store_seconds_count{op=commit}"] >= found["inferq_store_seconds_count{op=add}"] >= 3
    assert found["inferq_store_disk_free_bytes{}"] > 0
    assert found["inferq_batches{state=running}"] == found["inferq_lease_lost_total{}"] == found["inferq_events_dropped_total{}"] == 0
    assert found["inferq_tasks{state=completed}"] == 3
    assert found["inferq_http_requests_total{method=POST,route=/api/tasks,status=201}"] == 3
    assert found["process_open_fds{}"] > 0
    assert found["inferq_backend_up{backend=echo}"] == 1
    assert found["inferq_event_loop_lag_seconds{}"] >= 0


async def test_no_label_holds_an_id_and_names_are_bounded(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat())
    await site.ask("GET", f"/api/tasks/{made['id']}")
    await site.ask("GET", "/no/such/path")
    names = Names()
    metrics = Metrics()
    for number in range(10_000):
        metrics.request("GET", "/x", 200 + number % 5, 0.1)

    assert made["id"] not in (await site.get("/metrics")).decode()
    assert {names.of(f"model-{number}") for number in range(10_000)} == {f"model-{number}" for number in range(MOST_NAMES)} | {"other"}


async def test_the_oldest_waiting_task_is_shown(open_site: Any, chat: Chat) -> None:
    site = await open_site(work=False)
    await site.post("/api/tasks", chat())

    async def shows() -> bool:
        return (await samples(site))["inferq_oldest_waiting_seconds{priority=5}"] > 0

    await wait_until(shows)


async def test_the_page_about_metrics_names_each_with_its_labels(site: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    told = dict(re.findall(r"`(inferq_[a-z_]+)(?:\{([a-z,]*)\})?`", page))
    numbers = site.app.metrics
    shown = {f"{counter.name}_total": counter.labels for counter in numbers.counters()}
    shown |= {histogram.name: histogram.labels for histogram in numbers.histograms()} | {"inferq_store_seconds": ("op",)}
    shown |= {gauge.name: gauge.labels for gauge in await gauges(site.app)}

    assert told == {name: ",".join(labels) for name, labels in shown.items()}


async def test_events_that_retention_removed_before_a_listener_took_them_are_counted(open_site: Any) -> None:
    site = await open_site(work=False)
    await site.queue.submit("echo", "echo", payload={"text": "x"})
    for _ in range(3):
        await site.queue.pause("*")
        await site.queue.resume("*")
    last = await site.queue.store.last_event()
    now = SystemClock().read()
    await site.queue.store.prune({}, Now(now.wall + 60_000, now.mono), chunks=0.0, events=0.0)

    async with site.session.get(f"{site.url}/api/events?after=0") as answer:
        assert answer.status == 200
        await wait_until(lambda: site.app.metrics.missed.values[()] == last)


RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "inferq.rules.yml"


async def test_every_series_that_the_alerts_ask_for_is_exposed_with_its_labels(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat())
    await site.queue.wait(made["id"])
    await wait_until(lambda: bool(site.app.metrics.attempts.values))
    families = list(text_string_to_metric_families((await site.get("/metrics")).decode()))
    # Those that have no sample yet are known by their name.
    shown = {family.name for family in families} | {sample.name for family in families for sample in family.samples}
    rules = [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}

    asked = {name for rule in rules for name in re.findall(r"\binferq[_:][a-z0-9_:]+", rule["expr"])}

    assert len(asked) > 15
    assert {name for name in asked if ":" in name} <= recorded
    plain = {name for name in asked if ":" not in name}
    assert {name for name in plain if name not in shown and re.sub("_(total|bucket)$", "", name) not in shown} == set()
    metrics = (*site.app.metrics.counters(), *site.app.metrics.histograms())
    labels = {"instance", "le"} | {label for metric in metrics for label in metric.labels}
    by = {label.strip() for rule in rules for names in re.findall(r"by \(([^)]+)\)", rule["expr"]) for label in names.split(",")}
    assert by <= labels


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("INFERQ_E2E") == "required":
            pytest.fail("promtool is required (Debian: prometheus)")
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


async def run(*words: str, stdin: bytes = b"") -> tuple[int | None, bytes]:
    child = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await child.communicate(stdin)
    return child.returncode, said


@pytest.mark.e2e
async def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    cases = tmp_path / "cases.yml"
    cases.write_text((Path(__file__).parent / "alerts.yml").read_text("utf-8"), "utf-8")
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"] if "alert" in rule}
    tried = {case["alertname"] for test in yaml.safe_load(cases.read_text("utf-8"))["tests"] for case in test["alert_rule_test"]}

    assert tried == alerts
    assert (await run(promtool(), "check", "rules", str(tmp_path / RULES.name)))[0] == 0
    code, said = await run(promtool(), "test", "rules", str(cases))
    assert code == 0, said.decode()


@pytest.mark.e2e
async def test_promtool_accepts_the_metrics(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat())
    await site.queue.wait(made["id"])
    text = await site.get("/metrics")

    assert await run(promtool(), "check", "metrics", stdin=text) == (0, b"")


async def test_the_page_shows_counts_and_addresses_loads_nothing_and_escapes(site: Any, chat: Chat) -> None:
    page = (await site.get("/")).decode()
    _, _, headers = await site.ask("GET", "/", headers={"Host": "127.0.0.1"})

    assert f'connect("{site.url}")'.replace('"', "&quot;") in page or f'connect("{site.url}")' in page
    assert f"\ninferq --url {site.url} list</pre>" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in page
    assert 'src="http' not in page


async def test_the_page_shows_no_counts_without_a_key_where_there_are_keys(site: Any) -> None:
    key = await site.queue.keys.create("root", role="admin")

    without = (await site.get("/")).decode()
    with_key = (await site.get("/", headers={"Authorization": f"Bearer {key.secret}"})).decode()

    assert "pending" not in without
    assert "pending" in with_key


async def test_status_and_stats_have_the_forerunners_fields(site: Any, chat: Chat) -> None:
    made = await site.post("/api/tasks", chat())
    await site.queue.wait(made["id"])
    theirs = {
        *("pending_tasks", "running_tasks", "completed_tasks", "failed_tasks", "cancelled_tasks", "total_tasks"),
        *("queues_by_priority", "workers_active", "workers_idle"),
    }

    for path in ("/api/status", "/api/stats"):
        numbers = await site.get(path)
        assert theirs <= set(numbers)
        assert (numbers["completed_tasks"], numbers["total_tasks"], numbers["workers_idle"]) == (1, 1, 4)


async def test_executors_are_shown_with_their_actions(site: Any) -> None:
    (echo,) = (await site.get("/api/executors"))["items"]

    assert echo == await site.get("/api/executors/echo")
    assert "chat" in echo["actions"]
    assert echo["backends"] == ["echo"]
    assert (await site.ask("GET", "/api/executors/nobody"))[0] in (400, 404)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Any ASGI application on a real port, under plain uvicorn with its lifespan."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="websockets-sansio"))
    task = asyncio.create_task(server._serve())
    await wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize(("prefix", "written"), [("/tools/inferq", "/tools/inferq"), ("/日本 x", "/%E6%97%A5%E6%9C%AC%20x")])
async def test_it_can_be_mounted_under_a_prefix(tmp_path: Path, chat: Chat, prefix: str, written: str) -> None:
    queue = AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", backends=[EchoExecutor("echo")], settings=Settings())

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with queue:
            yield

    outer = Starlette(routes=[Mount(prefix, create_app(queue))], lifespan=lifespan)
    async with serving(outer) as url, aiohttp.ClientSession() as session:
        async with session.post(f"{url}{written}/api/tasks", json=chat()) as answer:
            assert answer.status == 201
            place = answer.headers["location"]
            assert place.startswith(f"{written}/api/tasks/")
        async with session.get(f"{url}{place}/result?wait=10") as answer:
            assert answer.status == 200
        async with session.get(f"{url}{place}/stream") as answer:
            assert b'"end"' in await answer.read()
        async with session.get(f"{url}{written}/openapi.json") as answer:
            assert (await answer.json())["servers"] == [{"url": written}]
        async with session.get(f"{url}{written}/") as answer:
            assert f"{url}{written}" in await answer.text()
        async with session.ws_connect(f"{url}{written}/ws") as ws:
            assert (await ws.receive_json())["op"] == "hello"


@pytest.mark.parametrize("prefix", ["inferq", "/日本", "/a b", "//", "/a\r\nb"])
async def test_a_prefix_that_no_address_begins_with_is_refused(open_site: Any, prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.root_path: expected a prefix such as /inferq"):
        await open_site(root_path=prefix)


async def test_its_lifespan_opens_and_closes_a_queue_that_is_not_open(tmp_path: Path) -> None:
    queue = AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", backends=[EchoExecutor("echo")], settings=Settings())
    async with serving(create_app(queue)) as url, aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
        assert answer.status == 200
        assert queue.store.instance
    with pytest.raises(Exception, match="expected an open queue"):
        _ = queue.store


def test_the_document_names_every_route_once() -> None:
    document = openapi(ROUTES)
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]

    assert len(ids) == len(set(ids)) == len(ROUTES)
    assert all(operation["summary"] for path in document["paths"].values() for operation in path.values())
    assert document["openapi"] == "3.1.0"


def test_the_page_about_the_server_lists_every_route() -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")

    assert page == renewed(page), "renew it: python -m inferq.server.reference docs/server.md"
