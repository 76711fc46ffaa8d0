"""`queue.webhooks`: who is told over HTTP of what happens, and what became of each message."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import msgspec

from inferq.store import Cursor
from inferq.webhook import Delivery, MadeWebhook, WebhookView


class DeliveryPage(msgspec.Struct, frozen=True):
    """Deliveries, newest first; `after` continues the listing, None at its end."""

    deliveries: list[Delivery]
    after: Cursor | None


class WebhooksDoor(ABC):
    """Webhooks. Messages are made and delivered by any process that works on the queue."""

    @abstractmethod
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
        """Make a webhook, or make the one of that name so; safe to call at every start. A new one begins with what happens from now on.

        `events` are types or patterns such as `task.*` and `batch.finished`; `query` narrows events of tasks with a filter
        (docs/filters.md). `secret` is `whsec_…` or a reference (`${NAME}`, `file:NAME`, `credential:NAME`) that the delivering process
        resolves; without one a new webhook gets a random one, told in the answer this once, and an old one keeps its own. Raises
        InvalidTask, InvalidQuery, Conflict (it exists, and `replace` is False).
        """

    @abstractmethod
    async def list(self) -> list[WebhookView]:
        """All webhooks, by name."""

    @abstractmethod
    async def get(self, name: str) -> WebhookView:
        """Raises RecordNotFound."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Its waiting messages fail. Raises RecordNotFound."""

    @abstractmethod
    async def enable(self, name: str) -> WebhookView:
        """It is told of what happens from now on. Idempotent. Raises RecordNotFound."""

    @abstractmethod
    async def disable(self, name: str, *, reason: str = "") -> WebhookView:
        """Make no more messages; waiting ones fail, and can be replayed. Idempotent. Raises RecordNotFound."""

    @abstractmethod
    async def test(self, name: str) -> Delivery:
        """Send a message of type `webhook.test`; see `delivery` for what became of it. Raises RecordNotFound, WrongState (disabled)."""

    @abstractmethod
    async def deliveries(self, name: str, *, failed: bool = False, limit: int = 50, after: Cursor | None = None) -> DeliveryPage:
        """Messages to this receiver, newest first; with `failed` only those that were given up. Raises RecordNotFound."""

    @abstractmethod
    async def delivery(self, id: str) -> Delivery:
        """Raises RecordNotFound."""

    @abstractmethod
    async def replay(self, name: str, *ids: str) -> builtins.list[Delivery]:
        """Deliver these messages once more, or all that have failed; the receiver knows each by its `webhook-id`, which stays.

        Raises RecordNotFound, WrongState for a message that is still under way (then nothing was done).
        """
