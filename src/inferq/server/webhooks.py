"""Webhooks over HTTP: who is told, and what became of each message."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import require_everything
from inferq.errors import Conflict, InvalidQuery, InvalidTask, RecordNotFound, WrongState
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.store import Cursor
from inferq.webhook import Delivery, MadeWebhook, WebhookView
from inferq.wire.native import Listing, ReasonBody
from inferq.wire.webhooks import ReplayBody, WebhookBody, WebhookChange

_WRONG: Final = (InvalidTask, InvalidQuery)
EXAMPLE: Final = {"name": "ops", "url": "https://ops.example/hook", "events": ["batch.finished", "task.failed"], "query": "tag:billing"}


@route(
    "POST",
    "/api/webhooks",
    role="operator",
    body=WebhookBody,
    returns={201: MadeWebhook},
    errors=(*_WRONG, Conflict),
    examples={"ops": EXAMPLE},
)
async def create(call: Call) -> Reply:
    """Make a webhook. It is told of what happens from now on; a secret that was made for it is in this answer and nowhere else."""
    made = await _put(call, call.body.name, call.body, replace=False)
    return Reply(made, 201, {"location": f"{call.root}/api/webhooks/{call.body.name}", "cache-control": "no-store"})


@route(
    "PUT",
    "/api/webhooks/{name}",
    role="operator",
    body=WebhookChange,
    returns={200: MadeWebhook},
    errors=_WRONG,
    examples={"ops": {name: value for name, value in EXAMPLE.items() if name != "name"}},
)
async def replace(call: Call) -> Reply:
    """Make a webhook, or make the one of that name so."""
    return Reply(await _put(call, call.path["name"], call.body, replace=True), 200, {"cache-control": "no-store"})


async def _put(call: Call, name: str, body: WebhookChange, *, replace: bool) -> MadeWebhook:
    require_everything(call.principal)
    return await call.queue.webhooks.put(
        name,
        url=body.url,
        events=body.events,
        query=body.query,
        secret=body.secret,
        headers=body.headers,
        enabled=body.enabled,
        replace=replace,
    )


@route("GET", "/api/webhooks", role="operator", returns={200: Listing[WebhookView]})
async def list_(call: Call) -> Reply:
    """List webhooks by name, without their secrets."""
    require_everything(call.principal)
    return Reply(Listing(await call.queue.webhooks.list()))


@route("GET", "/api/webhooks/{name}", role="operator", returns={200: WebhookView}, errors=(RecordNotFound,))
async def show(call: Call) -> Reply:
    """Show a webhook: whether it is enabled, and since when it fails."""
    require_everything(call.principal)
    return Reply(await call.queue.webhooks.get(call.path["name"]))


@route("DELETE", "/api/webhooks/{name}", role="operator", returns={204: None}, errors=(RecordNotFound,))
async def remove(call: Call) -> Reply:
    """Remove a webhook. Its waiting messages fail."""
    require_everything(call.principal)
    await call.queue.webhooks.remove(call.path["name"])
    return Reply(None, 204)


@route("POST", "/api/webhooks/{name}/enable", role="operator", returns={200: WebhookView}, errors=(RecordNotFound, Conflict))
async def enable(call: Call) -> Reply:
    """Enable a webhook: it is told of what happens from now on."""
    require_everything(call.principal)
    return Reply(await call.queue.webhooks.enable(call.path["name"]))


@route(
    "POST",
    "/api/webhooks/{name}/disable",
    role="operator",
    body=ReasonBody,
    optional=True,
    returns={200: WebhookView},
    errors=(RecordNotFound,),
    examples={"reason": {"reason": "the receiver moves"}},
)
async def disable(call: Call) -> Reply:
    """Disable a webhook. Its waiting messages fail, and can be replayed."""
    require_everything(call.principal)
    return Reply(await call.queue.webhooks.disable(call.path["name"], reason=call.body.reason))


@route("POST", "/api/webhooks/{name}/test", role="operator", returns={202: Delivery}, errors=(RecordNotFound, WrongState))
async def test(call: Call) -> Reply:
    """Send a message of type `webhook.test`. Ask for the delivery to see what became of it."""
    require_everything(call.principal)
    return Reply(await call.queue.webhooks.test(call.path["name"]), 202)


class DeliveriesQuery(msgspec.Struct, forbid_unknown_fields=True):
    failed: Annotated[bool, Meta(description="Only messages that were given up.")] = False
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    after: Annotated[str, Meta(description="The `next` of the page before.")] | None = None


@route(
    "GET",
    "/api/webhooks/{name}/deliveries",
    role="operator",
    query=DeliveriesQuery,
    returns={200: Listing[Delivery]},
    errors=(RecordNotFound, InvalidQuery),
)
async def deliveries(call: Call) -> Reply:
    """List messages to this receiver, newest first: state, attempts, the status of the last one."""
    require_everything(call.principal)
    query: DeliveriesQuery = call.query
    page = await call.queue.webhooks.deliveries(call.path["name"], failed=query.failed, limit=query.limit, after=_cursor(query.after))
    return Reply(Listing(page.deliveries, None if page.after is None else str(page.after)))


def _cursor(text: str | None) -> Cursor | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else text


@route("GET", "/api/deliveries/{id}", role="operator", returns={200: Delivery}, errors=(RecordNotFound,), tag="webhooks")
async def delivery(call: Call) -> Reply:
    """Show one message."""
    require_everything(call.principal)
    return Reply(await call.queue.webhooks.delivery(call.path["id"]))


@route(
    "POST",
    "/api/webhooks/{name}/replay",
    role="operator",
    body=ReplayBody,
    optional=True,
    returns={202: Listing[Delivery]},
    errors=(RecordNotFound, WrongState),
    examples={"all failed": {}, "some": {"ids": ["019ab3c4-d5e6-7f01-8aaa-0123456789ab"]}},
)
async def replay(call: Call) -> Reply:
    """Deliver messages once more, with the ids that their receiver knows; without ids all that have failed."""
    require_everything(call.principal)
    return Reply(Listing(await call.queue.webhooks.replay(call.path["name"], *call.body.ids)), 202)


ROUTES: Final[list[Route]] = [create, replace, list_, show, remove, enable, disable, test, deliveries, delivery, replay]
