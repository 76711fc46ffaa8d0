"""HTTP requests: what is sent and what comes back, what each status means, and where a task may not reach."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from inferq.errors import ConfigError, ExecutorError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Call
from inferq.executors import http
from inferq.executors.addresses import is_public
from inferq.executors.http import HttpExecutor


class Site:
    """A real server on loopback that answers as its path says and remembers what it was asked."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.seen: list[dict[str, Any]] = []
        self.hang_ups = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{what:.*}", self.answer)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.host, 0)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append({"method": request.method, "path": request.raw_path, "body": body, "headers": headers})
        if what.startswith("status/"):
            return web.Response(status=int(what[7:10]), text="as you wished", headers=dict(request.query))
        if what.startswith("to/"):
            return web.Response(status=int(what[3:6]), headers={"Location": request.query["at"]})
        if what.startswith("big/"):
            return web.Response(body=b"x" * int(what[4:]))
        if what == "bytes":
            return web.Response(body=b"\x89PNG\xff", content_type="image/png")
        if what == "latin":
            return web.Response(body="grün".encode("latin-1"), headers={"Content-Type": "text/plain; charset=iso-8859-1"})
        if what == "half":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            request.transport.close()  # type: ignore[union-attr]  # it is connected: it just wrote
            return response
        if what == "silent":
            try:
                await asyncio.Event().wait()
            finally:
                self.hang_ups.set()
        return web.json_response({"you": "sent", "body": body})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.start()
    yield site
    await site.runner.cleanup()


Make = Callable[..., HttpExecutor]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[HttpExecutor] = []

    def one(**settings: Any) -> HttpExecutor:
        made.append(HttpExecutor("web", settings))
        return made[-1]

    yield one
    for executor in made:
        await executor.close()


def call(url: str, **payload: Any) -> Call:
    return Call("t1", "request", "", {"url": url, **payload})


async def failed(executor: HttpExecutor, url: str, **payload: Any) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        await executor.run(call(url, **payload))
    return caught.value


# ── asking and answering ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_get_brings_status_headers_and_decoded_json(site: Site, make: Make) -> None:
    answer = await make(allow_private=True).run(call(f"{site.url}/a?x=1#part"))
    assert answer.data["status"] == 200
    assert answer.data["json"] == {"you": "sent", "body": ""}
    assert answer.data["headers"]["content-type"].startswith("application/json")
    assert answer.text == '{"you": "sent", "body": ""}'
    assert (site.seen[0]["method"], site.seen[0]["path"]) == ("GET", "/a?x=1")


async def test_everything_of_the_payload_is_sent(site: Site, make: Make) -> None:
    await make(allow_private=True).run(
        call(
            f"{site.url}/a?x=1",
            method="put",
            headers={"X-Mark": "yes"},
            query={"q": "a b&c", "n": [1, 2], "on": True},
            json={"k": ["ä", None]},
        )
    )
    seen = site.seen[0]
    assert (seen["method"], seen["path"]) == ("PUT", "/a?x=1&q=a+b%26c&n=1&n=2&on=true")
    assert seen["body"] == '{"k":["ä",null]}'
    assert (seen["headers"]["x-mark"], seen["headers"]["content-type"]) == ("yes", "application/json")


async def test_a_text_body_goes_as_it_is_and_a_null_json_is_a_body(site: Site, make: Make) -> None:
    executor = make(allow_private=True)
    await executor.run(call(site.url, method="POST", body="<a>é</a>", headers={"Content-Type": "text/xml"}))
    await executor.run(call(site.url, method="POST", json=None))
    assert [(seen["body"], seen["headers"]["content-type"]) for seen in site.seen] == [
        ("<a>é</a>", "text/xml"),
        ("null", "application/json"),
    ]


async def test_bodies_that_are_no_utf8_are_kept(site: Site, make: Make) -> None:
    executor = make(allow_private=True)
    binary = await executor.run(call(f"{site.url}/bytes"))
    assert (binary.text, binary.data["body_base64"]) == (None, "iVBOR/8=")
    latin = await executor.run(call(f"{site.url}/latin"))
    assert (latin.text, latin.data["body"]) == ("grün", "grün")


async def test_a_base_url_completes_paths_and_its_headers_stay_there(site: Site, make: Make) -> None:
    other = Site()
    await other.start()
    executor = make(allow_private=True, base_url=f"{site.url}/v1/", headers={"Authorization": "Bearer secret"})
    await executor.run(call("/things"))
    await executor.run(call(f"{other.url}/things"))
    await other.runner.cleanup()
    assert (site.seen[0]["path"], site.seen[0]["headers"]["authorization"]) == ("/v1/things", "Bearer secret")
    assert "authorization" not in other.seen[0]["headers"]


# ── what a status means ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "kind", "failure"),
    [
        (400, Reject, "bad_request"),
        (401, Reject, "auth"),
        (403, Reject, "permission"),
        (404, Reject, "not_found"),
        (408, Unavailable, "timeout"),
        (422, Reject, "bad_request"),
        (429, RetryLater, "rate_limited"),
        (500, Unavailable, "server_error"),
        (503, Unavailable, "overloaded"),
        (504, Unavailable, "server_error"),
    ],
)
async def test_a_status_that_was_not_expected_is_a_named_failure(
    site: Site, make: Make, status: int, kind: type[ExecutorError], failure: str
) -> None:
    error = await failed(make(allow_private=True), f"{site.url}/status/{status}?secret=query")
    assert (type(error), error.failure) == (kind, failure)
    assert f"answered {status}: as you wished" in str(error)
    assert "query" not in str(error)


async def test_a_wait_takes_the_servers_hint(site: Site, make: Make) -> None:
    for status in (429, 503):
        error = await failed(make(allow_private=True), f"{site.url}/status/{status}?Retry-After=7")
        assert isinstance(error, RetryLater)
        assert error.after == 7


async def test_expected_statuses_are_answers_and_only_those(site: Site, make: Make) -> None:
    executor = make(allow_private=True)
    answer = await executor.run(call(f"{site.url}/status/404", expect_status=[200, 404]))
    assert (answer.data["status"], answer.text) == (404, "as you wished")
    error = await failed(executor, f"{site.url}/status/200", expect_status=[204])
    assert (error.failure, "answered 200, expected 204" in str(error)) == ("bad_request", True)


async def test_nobody_listening_is_unavailable_and_surely_not_sent(make: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = await failed(make(allow_private=True), f"http://127.0.0.1:{port}/")
    assert isinstance(error, Unavailable)
    assert (error.failure, error.sent) == ("connect", False)


async def test_a_body_that_is_cut_short_is_a_failure(site: Site, make: Make) -> None:
    error = await failed(make(allow_private=True), f"{site.url}/half")
    assert isinstance(error, Unavailable)
    assert error.sent


async def test_silence_ends_at_the_timeout_and_the_connection_is_closed(site: Site, make: Make) -> None:
    error = await failed(make(allow_private=True, timeout=60), f"{site.url}/silent", timeout=0.1)
    assert (error.failure, "within 0.1 s" in str(error)) == ("timeout", True)
    await asyncio.wait_for(site.hang_ups.wait(), 10)


async def test_cancelling_closes_the_connection(site: Site, make: Make) -> None:
    task = asyncio.create_task(make(allow_private=True).run(call(f"{site.url}/silent")))
    async with asyncio.timeout(10):
        while not site.seen:
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(site.hang_ups.wait(), 10)


async def test_an_answer_may_be_as_big_as_the_setting_and_no_bigger(site: Site, make: Make) -> None:
    executor = make(allow_private=True, max_response_bytes=100_000)
    assert len((await executor.run(call(f"{site.url}/big/100000"))).text or "") == 100_000
    error = await failed(executor, f"{site.url}/big/100001")
    assert isinstance(error, Reject)
    assert "more than 100000 bytes" in str(error)


# ── redirects ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (307, "POST", "POST", "text"),
        (308, "PUT", "PUT", "text"),
    ],
)
async def test_redirects_keep_or_change_the_method_as_http_says(
    site: Site, make: Make, status: int, method: str, then: str, body: str
) -> None:
    answer = await make(allow_private=True).run(call(f"{site.url}/to/{status}?at=/end", method=method, body="text"))
    assert answer.data["url"] == f"{site.url}/end"
    assert (site.seen[1]["method"], site.seen[1]["path"], site.seen[1]["body"]) == (then, "/end", body)


async def test_redirects_have_an_end(site: Site, make: Make) -> None:
    endless = quote("/to/302?at=" + quote("/to/302?at=" + quote("/to/302?at=/end")))
    error = await failed(make(allow_private=True, max_redirects=2), f"{site.url}/to/302?at={endless}")
    assert "more than 2 times" in str(error)
    answer = await make(allow_private=True, max_redirects=0).run(call(f"{site.url}/to/302?at=/end"))
    assert answer.data["status"] == 302


async def test_an_expected_redirect_is_not_followed(site: Site, make: Make) -> None:
    answer = await make(allow_private=True).run(call(f"{site.url}/to/302?at=/end", expect_status=[302]))
    assert (answer.data["status"], len(site.seen)) == (302, 1)


async def test_credentials_do_not_follow_to_another_origin(site: Site, make: Make) -> None:
    other = Site()
    await other.start()
    headers = {"Authorization": "Bearer x", "X-Api-Key": "y", "Accept": "text/plain"}
    await make(allow_private=True).run(call(f"{site.url}/to/307?at={other.url}/end", headers=headers))
    await make(allow_private=True).run(call(f"{site.url}/to/307?at=/end", headers=headers))
    await other.runner.cleanup()
    assert not {"authorization", "x-api-key"} & set(other.seen[0]["headers"])
    assert other.seen[0]["headers"]["accept"] == "text/plain"
    assert site.seen[-1]["headers"]["authorization"] == "Bearer x"


# ── where it may go ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_loopback_is_refused_however_it_is_written(site: Site, make: Make, host: str) -> None:
    error = await failed(make(), f"http://{host}:{site.port}/")
    assert "allow_private" in str(error)
    assert site.seen == []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server of our own: names and the addresses that they give, one after the other."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        answers = known.get(host)
        return real(answers.pop(0) if answers and len(answers) > 1 else answers[0] if answers else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


async def test_a_name_that_leads_to_a_private_address_is_refused(site: Site, make: Make, names: dict[str, list[str]]) -> None:
    names["inner.example"] = ["127.0.0.1"]
    url = f"http://inner.example:{site.port}/"
    make().validate("request", "", {"url": url})  # nothing is looked up at submit
    error = await failed(make(), url)
    assert (error.failure, "allow_private" in str(error)) == ("permission", True)
    assert site.seen == []
    names["inner.example"] = ["127.0.0.1"]
    assert (await make(allow_private=True).run(call(url))).data["status"] == 200


async def test_a_name_is_judged_by_the_address_that_is_connected_to(
    site: Site, make: Make, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only so can a test have a "public" server: 127.0.0.1 plays one, 127.0.0.2 stays what it is.
    monkeypatch.setattr(http, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    inner = Site("127.0.0.2")
    await inner.start()
    executor = make()
    names["rebind.example"] = ["127.0.0.1", "127.0.0.2"]
    assert (await executor.run(call(f"http://rebind.example:{site.port}/"))).data["status"] == 200
    assert "allow_private" in str(await failed(executor, f"http://rebind.example:{inner.port}/"))
    names["inner.example"] = ["127.0.0.2"]
    for target in (f"{inner.url}/", f"http://inner.example:{inner.port}/"):
        error = await failed(executor, f"{site.url}/to/302?at={target}")
        assert (error.failure, "allow_private" in str(error)) == ("permission", True)
    await inner.runner.cleanup()
    assert inner.seen == []


async def test_allowed_hosts_bind_redirects_too(site: Site, make: Make) -> None:
    executor = make(allow_private=True, allow_hosts=["127.0.0.1", "*.example.org"])
    error = await failed(executor, f"{site.url}/to/302?at=http://localhost:{site.port}/end")
    assert (error.failure, "'localhost' is not among those allowed" in str(error)) == ("permission", True)
    assert len(site.seen) == 1
    executor.validate("request", "", {"url": "https://api.example.org/x"})
    for url in ("https://example.org.evil.net/", "https://example.org/", "http://evil.net%2f.example.org/"):
        with pytest.raises(InvalidTask):
            executor.validate("request", "", {"url": url})


async def test_a_redirect_to_another_scheme_is_refused(site: Site, make: Make) -> None:
    error = await failed(make(allow_private=True), f"{site.url}/to/302?at=file:///etc/passwd")
    assert error.failure == "permission"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"url": "ftp://example.org/"}, "payload.url"),
        ({"url": "example.org"}, "payload.url"),
        ({"url": "/path"}, "payload.url"),
        ({"url": "http:///path"}, "payload.url"),
        ({"url": "http://user:pw@example.org/"}, "payload.url"),
        ({"url": "http://good.example\\@evil.example/"}, "payload.url"),
        ({"url": "http://example.org/a b"}, "payload.url"),
        ({"url": "http://example.org/\r\nHost: x"}, "payload.url"),
        ({"url": "http://example.org:99999/"}, "payload.url"),
        ({"url": "http://[::1"}, "payload.url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "payload.url"),
        ({"url": 7}, "payload.url"),
        ({"url": "http://example.org", "method": "G T"}, "payload.method"),
        ({"url": "http://example.org", "body": "a", "json": 1}, "payload.body"),
        ({"url": "http://example.org", "headers": {"X": "a\r\nY: b"}}, "payload.headers.X"),
        ({"url": "http://example.org", "headers": {"Host": "x"}}, "payload.headers.Host"),
        ({"url": "http://example.org", "headers": ["X"]}, "payload.headers"),
        ({"url": "http://example.org", "expect_status": 200}, "payload.expect_status"),
        ({"url": "http://example.org", "timeout": 0}, "payload.timeout"),
    ],
)
def test_a_wrong_payload_is_refused_with_the_fields_name(payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        HttpExecutor("web").validate("request", "", payload)
    assert caught.value.field == field


async def test_a_wrong_payload_is_rejected_also_when_nobody_validated_it(make: Make) -> None:
    assert (await failed(make(), "gopher://example.org")).failure == "bad_request"


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="allow_privat"):
        HttpExecutor("web", {"allow_privat": True})
