"""`inferq webhooks`: who is told over HTTP of what happens, and what became of each message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, field, output_options, say
from inferq.cli.params import DURATION, HEADER, NAMES, joined
from inferq.cli.records import ago, iso

if TYPE_CHECKING:
    from inferq.door import AsyncDoor
    from inferq.webhook import Delivery, WebhookView

_CHANGE, _ASK = "Change", "Ask"

webhooks = LazyGroup(
    "webhooks",
    verbs={
        "add": Verb("inferq.cli.webhooks:add", "Add a webhook, or change the one of that name.", _CHANGE),
        "enable": Verb("inferq.cli.webhooks:enable", "Tell webhooks of what happens from now on.", _CHANGE),
        "disable": Verb("inferq.cli.webhooks:disable", "Tell webhooks nothing more.", _CHANGE),
        "remove": Verb("inferq.cli.webhooks:remove", "Remove webhooks; their waiting messages fail.", _CHANGE),
        "test": Verb("inferq.cli.webhooks:test", "Send a test message and say what the receiver answered.", _CHANGE),
        "replay": Verb("inferq.cli.webhooks:replay", "Deliver messages once more.", _CHANGE),
        "list": Verb("inferq.cli.webhooks:list_", "List webhooks by name.", _ASK),
        "show": Verb("inferq.cli.webhooks:show", "Show everything about one webhook.", _ASK),
        "deliveries": Verb("inferq.cli.webhooks:deliveries", "List messages to a receiver, newest first.", _ASK),
    },
    aliases={"ls": "list", "rm": "remove", "put": "add"},
    help="Who is told over HTTP of what happens.\n\nAny process that works on the queue delivers: see `inferq work`.",
    examples="""
        inferq webhooks add ops https://ops.example/hook --event "batch.finished,task.failed"
        inferq webhooks test ops
        inferq webhooks deliveries ops --failed
    """,
    no_args_is_help=True,
)

WEBHOOK_FIELDS = ("name", "url", "events", "query", "headers", "secret_from", "enabled", "reason", "created", "failing_since")
DELIVERY_FIELDS = ("id", "webhook", "type", "event", "state", "attempts", "status", "error", "created", "due", "finished")
_FOUND = (Exit.NOT_FOUND, Exit.UNREACHABLE)


def webhook_record(hook: WebhookView) -> dict[str, Any]:
    return {name: getattr(hook, name) for name in WEBHOOK_FIELDS}


def delivery_record(delivery: Delivery) -> dict[str, Any]:
    return {name: getattr(delivery, name) for name in DELIVERY_FIELDS}


def _state(record: Any) -> str:
    if not record["enabled"]:
        return "disabled"
    return "enabled" if record["failing_since"] is None else f"failing since {ago(record['failing_since'])}"


_COLUMNS = [
    Column("NAME", field("name")),
    Column("STATE", _state),
    Column("EVENTS", lambda record: ", ".join(record["events"])),
    Column("URL", field("url")),
    Column("QUERY", field("query")),
    Column("REASON", field("reason")),
    Column("SECRET", lambda record: record["secret_from"] or "kept in the store", wide=True),
    Column("CREATED", lambda record: iso(record["created"]), lambda record: ago(record["created"]), wide=True),
]
_DELIVERY_COLUMNS = [
    Column("ID", field("id")),
    Column("TYPE", field("type")),
    Column("STATE", field("state")),
    Column("STATUS", field("status")),
    Column("ATTEMPTS", field("attempts")),
    Column("CREATED", lambda record: iso(record["created"]), lambda record: ago(record["created"])),
    Column("NEXT", lambda record: iso(record["due"]), lambda record: ago(record["due"])),
    Column("ERROR", field("error")),
    Column("EVENT", field("event"), wide=True),
]


@click.command(
    cls=Command,
    examples="""
        inferq webhooks add ops https://ops.example/hook
        inferq webhooks add billing https://billing.example/hook --event task.completed --query tag:billing
        inferq webhooks add ops https://ops.example/hook --secret '${OPS_SECRET}' --header "X-Team: a"
    """,
    exits=(Exit.PERMISSION, Exit.UNREACHABLE),
    fields=("secret", *WEBHOOK_FIELDS),
)
@click.argument("name")
@click.argument("address", metavar="URL")
@click.option("--event", "events", multiple=True, type=NAMES, help="Types or patterns such as task.* (default: all).")
@click.option("--query", default="", help="Of tasks' events only those that pass this filter; docs/filters.md has the language.")
@click.option(
    "--secret", help="whsec_…, or ${NAME}, file:NAME or credential:NAME, which the delivering process resolves; else one is made."
)
@click.option("--header", "headers", multiple=True, type=HEADER, help="Sent with every message.")
@click.option("--disabled", is_flag=True, help="Tell it nothing yet.")
@output_options()
@click.pass_obj
def add(
    app: App,
    /,
    name: str,
    address: str,
    events: tuple[tuple[str, ...], ...],
    query: str,
    secret: str | None,
    headers: tuple[tuple[str, str], ...],
    disabled: bool,
) -> None:
    """Add a webhook, or change the one of that name.

    It is told of what happens from now on. A secret that was made for it is printed this once: the receiver checks
    signatures with it, see docs/webhooks.md.
    """
    asked: dict[str, Any] = {"url": address, "events": joined(events) or ("*",), "query": query, "secret": secret, "headers": dict(headers)}
    app.run(_add(app, name, asked | {"enabled": not disabled}))


async def _add(app: App, name: str, asked: dict[str, Any]) -> None:
    async with app.queue() as queue:
        made = await queue.webhooks.put(name, **asked)
    record = {"secret": made.secret, **webhook_record(made.webhook)}
    app.out.record(record, [*_COLUMNS[:4], Column("NEW SECRET", field("secret"))], key="name")
    if made.secret:
        say("keep the secret now: it is not shown again")


async def _each(app: App, names: tuple[str, ...], verb: str, **how: Any) -> None:
    records = []
    async with app.queue() as queue:
        for name in names:
            # All names are looked up before the first is changed: a typing error changes none.
            await queue.webhooks.get(name)
        for name in names:
            done = await getattr(queue.webhooks, verb)(name, **how)
            records.append({"name": name} if done is None else webhook_record(done))
    app.out.records(records, [_COLUMNS[0]] if verb == "remove" else _COLUMNS[:4], key="name")


@click.command(
    cls=Command,
    examples="""
        inferq webhooks enable ops
        inferq webhooks enable ops billing
    """,
    exits=_FOUND,
    fields=WEBHOOK_FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def enable(app: App, names: tuple[str, ...]) -> None:
    """Tell webhooks of what happens from now on.

    What happened while one was disabled is not told afterwards; what failed can be replayed.
    """
    app.run(_each(app, names, "enable"))


@click.command(
    cls=Command,
    examples="""
        inferq webhooks disable ops
        inferq webhooks disable ops --reason "the receiver moves"
    """,
    exits=_FOUND,
    fields=WEBHOOK_FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Kept and shown with the webhook.")
@output_options()
@click.pass_obj
def disable(app: App, names: tuple[str, ...], reason: str) -> None:
    """Tell webhooks nothing more.

    Waiting messages fail, and can be replayed.
    """
    app.run(_each(app, names, "disable", reason=reason))


@click.command(
    cls=Command,
    examples="""
        inferq webhooks remove ops
        inferq webhooks rm ops billing
    """,
    exits=_FOUND,
    fields=("name",),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@output_options()
@click.pass_obj
def remove(app: App, names: tuple[str, ...]) -> None:
    """Remove webhooks; their waiting messages fail."""
    app.run(_each(app, names, "remove"))


@click.command(
    cls=Command,
    examples="""
        inferq webhooks test ops
        inferq webhooks test ops --timeout 30s
    """,
    exits=(Exit.FAILED, Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE, Exit.TIMEOUT),
    fields=DELIVERY_FIELDS,
)
@click.argument("name")
@click.option("--timeout", type=DURATION, default=15.0, help="How long to wait for the answer (default: 15s).")
@output_options()
@click.pass_obj
def test(app: App, name: str, timeout: float) -> None:
    """Send a test message and say what the receiver answered.

    It is of type webhook.test. A process that works on the queue delivers it.
    """
    app.run(_test(app, name, timeout))


async def _test(app: App, name: str, timeout: float) -> None:
    from inferq.errors import WaitTimeout

    async with app.queue() as queue:
        sent = await queue.webhooks.test(name)
        try:
            await queue.wait(sent.id, timeout=timeout)
        except WaitTimeout:
            say(f"the message was not delivered within {timeout:g} s; does any process work on the queue (`inferq work`)?")
        found = await queue.webhooks.delivery(sent.id)
    app.out.record(delivery_record(found), _DELIVERY_COLUMNS)
    app.end({"completed": Exit.OK, "failed": Exit.FAILED}.get(found.state, Exit.TIMEOUT))


@click.command(
    cls=Command,
    examples="""
        inferq webhooks replay ops
        inferq webhooks replay ops 019ab3c4-d5e6-7f01-8aaa-0123456789ab
    """,
    exits=(Exit.NOT_FOUND, Exit.CONFLICT, Exit.UNREACHABLE),
    fields=DELIVERY_FIELDS,
)
@click.argument("name")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@output_options()
@click.pass_obj
def replay(app: App, name: str, ids: tuple[str, ...]) -> None:
    """Deliver messages once more.

    Those with these ids; without any, all that have failed. The receiver knows each by its webhook-id, which stays.
    """
    app.run(_replay(app, name, ids))


async def _replay(app: App, name: str, ids: tuple[str, ...]) -> None:
    async with app.queue() as queue:
        again = await queue.webhooks.replay(name, *ids)
    app.out.records([delivery_record(one) for one in again], _DELIVERY_COLUMNS[:3])
    if not again:
        say("no message has failed")


@click.command(
    "list",
    cls=Command,
    examples="""
        inferq webhooks list
        inferq webhooks list -o json
    """,
    exits=(Exit.UNREACHABLE,),
    fields=WEBHOOK_FIELDS,
)
@output_options()
@click.pass_obj
def list_(app: App) -> None:
    """List webhooks by name."""
    app.run(_list(app))


async def _list(app: App) -> None:
    async with app.queue() as queue:
        found = await queue.webhooks.list()
    app.out.records([webhook_record(hook) for hook in found], _COLUMNS, key="name")


@click.command(
    cls=Command,
    examples="""
        inferq webhooks show ops
        inferq webhooks show ops -o json
    """,
    exits=_FOUND,
    fields=WEBHOOK_FIELDS,
)
@click.argument("name")
@output_options()
@click.pass_obj
def show(app: App, name: str) -> None:
    """Show everything about one webhook.

    Everything but its secret.
    """
    app.run(_show(app, name))


async def _show(app: App, name: str) -> None:
    async with app.queue() as queue:
        found = await queue.webhooks.get(name)
    app.out.record(webhook_record(found), [column._replace(wide=False) for column in _COLUMNS], key="name")


@click.command(
    cls=Command,
    examples="""
        inferq webhooks deliveries ops
        inferq webhooks deliveries ops --failed -q
    """,
    exits=_FOUND,
    fields=DELIVERY_FIELDS,
)
@click.argument("name")
@click.option("--failed", is_flag=True, help="Only those that were given up.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, help="At most so many (default: 50).")
@output_options()
@click.pass_obj
def deliveries(app: App, name: str, failed: bool, limit: int) -> None:
    """List messages to a receiver, newest first.

    The state of each, its attempts, and what the receiver answered last.
    """
    app.run(_deliveries(app, name, failed, limit))


async def _deliveries(app: App, name: str, failed: bool, limit: int) -> None:
    async with app.queue() as queue:
        found = await _pages(queue, name, failed, limit)
    app.out.records([delivery_record(one) for one in found], _DELIVERY_COLUMNS)


async def _pages(queue: AsyncDoor, name: str, failed: bool, limit: int) -> list[Delivery]:
    found: list[Delivery] = []
    after: Any = None
    while len(found) < limit:
        page = await queue.webhooks.deliveries(name, failed=failed, limit=min(1000, limit - len(found)), after=after)
        found += page.deliveries
        after = page.after
        if after is None:
            break
    return found
