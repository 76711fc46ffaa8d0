"""The http executor: one request to any web address, with bounds on where it may go and how much may come back."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from inferq.errors import ConfigError, InvalidTask, Reject, Unavailable
from inferq.executor import Answer, Call, Executor
from inferq.executors import payload as fields
from inferq.executors.addresses import is_public
from inferq.net import HttpClient, Reply, encode_json, origin_of
from inferq.wire.failures import failure_of

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_ANYWHERE: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers that may follow a redirect to another origin; any other may be a credential."""

Scalar = str | int | float | bool


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of an http backend. `docs/executors.md` explains each; times are seconds, sizes bytes."""

    base_url: str = ""
    headers: dict[str, str] = {}
    allow_private: bool = False
    allow_hosts: tuple[str, ...] = ()
    max_response_bytes: int = 10 * 1024 * 1024
    max_redirects: int = 5
    connect_timeout: float = 10.0
    timeout: float | None = None


class Request(msgspec.Struct):
    """The payload of `request`. `body` (text) and `json` exclude each other. `timeout` is in seconds."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    query: dict[str, Scalar | list[Scalar]] = {}
    body: str | None = None
    json: Any = msgspec.UNSET
    expect_status: list[int] | None = None
    timeout: float | None = None


class _Hop(msgspec.Struct):
    """What is sent next."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


class HttpExecutor(Executor):
    """Makes requests. Addresses are judged when they are connected to, so that neither names nor redirects get around it."""

    actions = ("request",)
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {"request": ("url",)}
    over_http = False
    description = "Makes an HTTP request; private addresses are refused unless allowed."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        self._set = fields.settings(self.settings, Settings, of=name)
        guard = None if self._set.allow_private else _public_only
        self._client = HttpClient(connect_timeout=self._set.connect_timeout, guard=guard)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def confine(self) -> None:
        """Over HTTP only hosts that are named may be asked, and `allow_hosts` holds for every redirect."""
        if not self._set.allow_hosts:
            raise ConfigError(
                f"backend {self.name}: over_http opens it to whoever may submit; say with settings.allow_hosts which hosts may be asked"
            )

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Refuses what could never be sent; where a name leads to is judged when it is connected to."""
        request = fields.read(payload, Request)
        self._check_url(self._address(request))
        if not _TOKEN.fullmatch(request.method):
            raise InvalidTask(f"expected a method such as GET, got {request.method!r}", field="payload.method")
        if request.body is not None and request.json is not msgspec.UNSET:
            raise InvalidTask("body and json exclude each other: give one", field="payload.body")
        if request.timeout is not None and not request.timeout > 0:
            raise InvalidTask(f"expected more than 0 seconds, got {request.timeout}", field="payload.timeout")
        for name, value in request.headers.items():
            if not _TOKEN.fullmatch(name) or any(bad in value for bad in "\r\n\0"):
                raise InvalidTask("not a header that can be sent", field=f"payload.headers.{name}")
            if name.lower() in _OURS:
                raise InvalidTask("this header is set by the connection itself", field=f"payload.headers.{name}")

    async def run(self, call: Call) -> Answer:
        """The answer, redirects followed. `Reject`, `RetryLater` or `Unavailable` for a status that was not expected."""
        try:
            self.validate(call.action, call.model, call.payload)
        except InvalidTask as error:
            raise Reject(str(error), failure="bad_request") from error
        request = fields.read(call.payload, Request)
        limit = request.timeout if request.timeout is not None else self._set.timeout
        try:
            async with asyncio.timeout(limit):
                url, reply = await self._follow(request)
        except TimeoutError:
            origin = origin_of(self._address(request))
            raise Unavailable(f"{origin} did not answer within {limit} s", failure="timeout") from None
        self._judge(url, reply, request)
        return _answer(url, reply)

    # ── the way of a request ────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self, request: Request) -> tuple[str, Reply]:
        """The last hop's address and reply. Each hop is checked like the first."""
        expected = request.expect_status or ()
        hop = self._first(request)
        for _ in range(self._set.max_redirects + 1):
            reply = await self._client.request(
                hop.method, hop.url, body=hop.body, headers=hop.headers, max_bytes=self._set.max_response_bytes
            )
            target = reply.headers.get("location")
            if reply.status not in _REDIRECTS or reply.status in expected or target is None or not self._set.max_redirects:
                return hop.url, reply
            hop = self._next(hop, reply.status, target)
        raise Reject(f"{origin_of(hop.url)} redirected more than {self._set.max_redirects} times (max_redirects)")

    def _first(self, request: Request) -> _Hop:
        url = self._address(request)
        own = self._set.headers if self._set.base_url and origin_of(url) == origin_of(self._set.base_url) else {}
        headers = {name.lower(): value for name, value in {**own, **request.headers}.items()}
        body = request.body.encode("utf-8", "replace") if request.body is not None else None
        if request.json is not msgspec.UNSET:
            body = encode_json(request.json)
            headers.setdefault("content-type", "application/json")
        elif body is not None:
            headers.setdefault("content-type", "text/plain; charset=utf-8")
        return _Hop(request.method.upper(), url, headers, body)

    def _next(self, hop: _Hop, status: int, target: str) -> _Hop:
        url = urljoin(hop.url, target).partition("#")[0]
        try:
            self._check_url(url)
        except InvalidTask as error:
            raise Reject(f"{origin_of(hop.url)} redirected to a forbidden address: {error}", failure="permission") from None
        method, body, headers = hop.method, hop.body, hop.headers
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {name: value for name, value in headers.items() if name != "content-type"}
        if origin_of(url) != origin_of(hop.url):
            headers = {name: value for name, value in headers.items() if name in _ANYWHERE}
        return _Hop(method, url, headers, body)

    def _address(self, request: Request) -> str:
        url = request.url.partition("#")[0]
        if self._set.base_url and url.startswith("/"):
            url = self._set.base_url.rstrip("/") + url
        if request.query:
            plain = {name: _spelled(value) for name, value in request.query.items()}
            url += ("&" if "?" in url else "?") + urlencode(plain, doseq=True)
        return url

    # ── where it may go ─────────────────────────────────────────────────────────────────────────────────────────────

    def _check_url(self, url: str) -> None:
        # Two parsers that disagree about an odd address would let it pass the one and reach the other's host.
        if _UNSAFE.search(url):
            raise InvalidTask("an address holds no spaces, control characters or backslashes", field="payload.url")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidTask(f"not an address: {error}", field="payload.url") from None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidTask("expected an address that begins with http:// or https://", field="payload.url")
        if "@" in parts.netloc:
            raise InvalidTask("give credentials as a header, not in the address", field="payload.url")
        if "%" in parts.netloc:
            raise InvalidTask("a host holds no percent signs", field="payload.url")
        if self._set.allow_hosts and not any(_fits(host, pattern) for pattern in self._set.allow_hosts):
            known = ", ".join(self._set.allow_hosts)
            raise InvalidTask(f"host {host!r} is not among those allowed here ({known})", field="payload.url")
        literal = re.fullmatch(r"[0-9.]+|.*:.*", host) is not None
        if literal and not self._set.allow_private and not is_public(host):
            raise InvalidTask(_PRIVATE, field="payload.url")

    def _judge(self, url: str, reply: Reply, request: Request) -> None:
        expected = request.expect_status
        if reply.status in expected if expected is not None else 200 <= reply.status < 400:
            return
        if reply.status < 400:
            wanted = ", ".join(map(str, expected or ()))
            raise Reject(f"{origin_of(url)} answered {reply.status}, expected {wanted}", failure="bad_request")
        secrets = [value for value in (*request.headers.values(), *self._set.headers.values()) if len(value) > 5]
        raise failure_of(reply.status, reply.headers, reply.body, now=time.time(), source=origin_of(url), secrets=secrets)


_PRIVATE: Final = "this address is private, loopback or reserved, which this backend refuses; set allow_private: true to allow it"


def _public_only(address: str) -> None:
    if not is_public(address):
        raise Reject(_PRIVATE, failure="permission")


def _fits(host: str, pattern: str) -> bool:
    host, pattern = host.lower().rstrip("."), pattern.lower()
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _spelled(value: Scalar | list[Scalar]) -> str | list[str]:
    if isinstance(value, list):
        return [str(_spelled(item)) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _answer(url: str, reply: Reply) -> Answer:
    data: dict[str, Any] = {"status": reply.status, "url": url, "headers": dict(reply.headers)}
    kind, _, parameters = reply.headers.get("content-type", "").lower().partition(";")
    text = _text(reply.body, parameters)
    if text is None:
        data["body_base64"] = base64.b64encode(reply.body).decode()
        return Answer(data=data)
    if kind.strip() == "application/json" or kind.strip().endswith("+json"):
        try:
            data["json"] = msgspec.json.decode(reply.body)
        except (msgspec.MsgspecError, RecursionError):
            data["body"] = text
    else:
        data["body"] = text
    return Answer(text=text, data=data)


def _text(body: bytes, parameters: str) -> str | None:
    """The body as text in the charset that it names, else UTF-8; None when it is no text."""
    named = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters)
    try:
        return body.decode(named[1] if named else "utf-8")
    except (LookupError, UnicodeDecodeError):
        return None
