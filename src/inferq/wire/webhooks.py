"""What the server and its clients say about webhooks. Pure.

Shared as they are: `WebhookView`, `MadeWebhook`, `Delivery` of `inferq.webhook`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Url = Annotated[str, Meta(max_length=2000, description="http:// or https://, without credentials")]
Events = Annotated[tuple[str, ...], Meta(min_length=1, max_length=50, description="Types or patterns such as task.* and batch.finished")]
Secret = Annotated[
    str, Meta(max_length=500, description="whsec_ and base64, or a reference: ${NAME}, file:NAME, credential:NAME; left out: made")
]
Headers = Annotated[dict[str, str], Meta(max_length=50)]


class WebhookChange(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook as it is to be (PUT); its name stands in the path. Without `secret` an old one keeps its own."""

    url: Url
    events: Events = ("*",)
    query: Annotated[str, Meta(max_length=10_000, description="A filter for events of tasks (docs/filters.md)")] = ""
    secret: Secret | None = None
    headers: Headers = {}
    enabled: bool = True


class WebhookBody(WebhookChange, forbid_unknown_fields=True, kw_only=True):
    """A webhook to make (POST)."""

    name: Name


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which deliveries to make once more; none: all that have failed."""

    ids: Annotated[list[str], Meta(max_length=1000)] = []
