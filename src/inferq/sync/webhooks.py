"""`queue.webhooks` for programs without an event loop."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence

from inferq.door.webhooks import DeliveryPage, WebhooksDoor
from inferq.store import Cursor
from inferq.sync.group import Group
from inferq.webhook import Delivery, MadeWebhook, WebhookView


class Webhooks(Group[WebhooksDoor]):
    """Webhooks. Messages are made and delivered by any process that works on the queue."""

    def put(
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
        """Make a webhook, or make the one of that name so; safe to call at every start. See `WebhooksDoor.put`."""
        made = self._asynchronous.put(
            name, url=url, events=events, query=query, secret=secret, headers=headers, enabled=enabled, replace=replace
        )
        return self._queue.call(made)

    def list(self) -> builtins.list[WebhookView]:
        """All webhooks, by name."""
        return self._queue.call(self._asynchronous.list())

    def get(self, name: str) -> WebhookView:
        """Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.get(name))

    def remove(self, name: str) -> None:
        """Its waiting messages fail. Raises RecordNotFound."""
        self._queue.call(self._asynchronous.remove(name))

    def enable(self, name: str) -> WebhookView:
        """It is told of what happens from now on. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.enable(name))

    def disable(self, name: str, *, reason: str = "") -> WebhookView:
        """Make no more messages; waiting ones fail, and can be replayed. Idempotent. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.disable(name, reason=reason))

    def test(self, name: str) -> Delivery:
        """Send a message of type `webhook.test`. Raises RecordNotFound, WrongState (disabled)."""
        return self._queue.call(self._asynchronous.test(name))

    def deliveries(self, name: str, *, failed: bool = False, limit: int = 50, after: Cursor | None = None) -> DeliveryPage:
        """Messages to this receiver, newest first. Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.deliveries(name, failed=failed, limit=limit, after=after))

    def delivery(self, id: str) -> Delivery:
        """Raises RecordNotFound."""
        return self._queue.call(self._asynchronous.delivery(id))

    def replay(self, name: str, *ids: str) -> builtins.list[Delivery]:
        """Deliver these messages once more, or all that have failed. Raises RecordNotFound, WrongState."""
        return self._queue.call(self._asynchronous.replay(name, *ids))
