"""Where truth can be kept; the URL's scheme decides."""

from __future__ import annotations

from typing import Literal

from inferq.clock import Clock
from inferq.errors import ConfigError
from inferq.store import Store


async def open_store(
    url: str,
    *,
    durability: Literal["full", "normal"] = "full",
    clock: Clock | None = None,
    lease: float = 30.0,
    lost_limit: int = 3,
) -> Store:
    """Open (and create) a store on the running event loop.

    `url` is `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://:memory:` or a path; `lease` is in seconds and renewed four
    times in its length; a task that vanished with its worker `lost_limit` times fails as `lost`. Raises StoreError or ConfigError.
    """
    given: object = url
    if not isinstance(given, str):
        raise ConfigError(f"expected a store URL such as sqlite:///inferq.db or sqlite://:memory:, got {given!r}")
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    if scheme == "sqlite" or url == ":memory:":
        from inferq.stores.sqlite.store import open_sqlite

        return open_sqlite(url, durability=durability, clock=clock, lease=lease, lost_limit=lost_limit)
    if scheme.lower() in ("http", "https"):
        raise ConfigError(f"expected a store here, got the server {url!r}; a program asks it with connect(), Client or AsyncClient")
    raise ConfigError(f"expected a store URL such as sqlite:///inferq.db or sqlite://:memory:, got {url!r}")
