"""From where one may speak to this server: Host allow-list and Origin check, because any web page can reach a local port."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Final

from inferq.access import LOCAL, Principal
from inferq.errors import Forbidden, InvalidRequest
from inferq.server.call import Call

Authenticate = Callable[[Call], Awaitable[Principal]]
"""Says who calls. Raises Unauthenticated."""

_CREDENTIALS: Final = (b"authorization", b"x-api-key")
_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})
_ONCE: Final = frozenset({b"host", b"origin", b"content-type", b"idempotency-key", *_CREDENTIALS})
"""Headers that two readers of one request could understand differently if they came twice."""
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+(?:%[\w.~-]+)?\]|[\w.~-]*)(?::\d*)?", re.ASCII | re.IGNORECASE)
_SAME_SITE: Final = frozenset({b"same-origin", b"none"})


async def by_key(call: Call) -> Principal:
    """Whose key it is. While the store has no keys, whoever comes from this very machine is the admin. Raises Unauthenticated."""
    raw = call.raw_headers
    given = {name.decode(): raw[name].decode("latin-1") for name in _CREDENTIALS if name in raw}
    open_ = call.app.settings.insecure or _comes_from_here(call)
    return await call.queue.keys.principal_of(given, keyless=LOCAL if open_ else None)


def _comes_from_here(call: Call) -> bool:
    """Whether a program of this machine calls, and none that passes on what others say."""
    client = call.scope.get("client")
    return (client is None or is_loopback(client[0])) and _FORWARDED.isdisjoint(call.raw_headers)


class Guard:
    """Refuses by Host and Origin. `hosts` and `origins` are the allowed ones beyond this machine's own names; `*` allows any."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._good: set[bytes] = set()

    def check_host(self, raw: bytes | None) -> None:
        """Refuse names that only a rebound DNS entry could have led here. Addresses cannot be rebound. Raises Forbidden."""
        if raw is None or raw in self._good or "*" in self._hosts:
            return
        host = host_name(raw.decode("latin-1"))
        if not self._is_ours(host):
            raise Forbidden(f"expected a known Host (server.allowed_hosts), got {host[:100]!r}")
        if len(self._good) < 1000:
            self._good.add(raw)

    def _is_ours(self, host: str) -> bool:
        if host in self._hosts or host == "localhost" or host.endswith(".localhost"):
            return True
        if any(allowed.startswith("*.") and host.endswith(allowed[1:]) for allowed in self._hosts):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def check_origin(self, headers: dict[bytes, bytes], scheme: str) -> None:
        """Refuse what another site's page sends: browsers always say where a page is from, programs say nothing. Raises Forbidden."""
        origin = headers.get(b"origin")
        if origin is None:
            site = headers.get(b"sec-fetch-site")
            if site is not None and site not in _SAME_SITE:
                raise Forbidden(f"expected a request of this server's own pages, got one from another site ({site.decode('latin-1')[:40]})")
            return
        text = origin.decode("latin-1").lower()
        if self.allows_origin(text):
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        same = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        if text != f"{same}://{host}":
            raise Forbidden(f"expected an Origin that is allowed (server.origins), got {text[:100]!r}")

    def allows_origin(self, origin: str) -> bool:
        return origin.rstrip("/") in self._origins or "*" in self._origins


def host_name(text: str) -> str:
    """The name or address in a Host header (RFC 9110, 7.2), without its port; nothing of what is none."""
    found = _HOST.fullmatch(text)
    return found[1].strip("[]").lower().rstrip(".") if found else ""


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header values by lower-case name; of a repeated one the last. Raises InvalidRequest for one that must not be repeated."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in found and name in _ONCE:
            shown = name.decode().title()
            raise InvalidRequest(f"expected one {shown} (RFC 9110, section 5.3), got several", parameter=shown)
        found[name] = value
    return found


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to that host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
