"""Webhooks of a queue behind a server."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence

from inferq.client.transport import Transport, delete, get, post, put
from inferq.door.webhooks import DeliveryPage, WebhooksDoor
from inferq.errors import RecordNotFound
from inferq.query import parse
from inferq.store import Cursor
from inferq.webhook import Delivery, MadeWebhook, WebhookView, check_name
from inferq.wire.native import Listing


class RemoteWebhooks(WebhooksDoor):
    """Each method is a request."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def put(
        self,
        name: str,
        *,
        url: str,
        events: Sequence[str] = ("*",),
        query: str = "",
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        enabled: bool = True,
        replace: bool = True,
    ) -> MadeWebhook:
        parse(query)
        body = {
            "url": url,
            "events": [events] if isinstance(events, str) else list(events),
            "query": query,
            "secret": secret,
            "headers": dict(headers or {}),
            "enabled": enabled,
        }
        if not replace:
            return await self._transport.ask(post("webhooks", json={"name": name, **body}), MadeWebhook)
        return await self._transport.ask(put("webhooks", check_name(name), json=body), MadeWebhook)

    async def list(self) -> builtins.list[WebhookView]:
        return (await self._transport.ask(get("webhooks"), Listing[WebhookView])).items

    async def get(self, name: str) -> WebhookView:
        return await self._transport.ask(get("webhooks", _known(name)), WebhookView)

    async def remove(self, name: str) -> None:
        await self._transport.send(delete("webhooks", _known(name)))

    async def enable(self, name: str) -> WebhookView:
        return await self._transport.ask(post("webhooks", _known(name), "enable", again=True), WebhookView)

    async def disable(self, name: str, *, reason: str = "") -> WebhookView:
        return await self._transport.ask(post("webhooks", _known(name), "disable", json={"reason": reason}, again=True), WebhookView)

    async def test(self, name: str) -> Delivery:
        return await self._transport.ask(post("webhooks", _known(name), "test"), Delivery)

    async def deliveries(self, name: str, *, failed: bool = False, limit: int = 50, after: Cursor | None = None) -> DeliveryPage:
        query = {"failed": failed, "limit": limit, "after": after}
        page = await self._transport.ask(get("webhooks", _known(name), "deliveries", query=query), Listing[Delivery])
        return DeliveryPage(page.items, page.next)

    async def delivery(self, id: str) -> Delivery:
        return await self._transport.ask(get("deliveries", _known(id)), Delivery)

    async def replay(self, name: str, *ids: str) -> builtins.list[Delivery]:
        return (await self._transport.ask(post("webhooks", _known(name), "replay", json={"ids": list(ids)}), Listing[Delivery])).items


def _known(name: str) -> str:
    if not name:
        raise RecordNotFound(f"expected the name of a webhook or the id of a delivery, got {name!r}")
    return name
