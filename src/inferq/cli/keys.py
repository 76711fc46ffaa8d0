"""`inferq keys` and `inferq audit`: who may use a server, what tenants may have at a time, and who changed what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, Record, field, output_options, say
from inferq.cli.params import NAMES, PRIORITY, UNTIL, Parsed, joined
from inferq.cli.records import ago, iso

if TYPE_CHECKING:
    from inferq.access import AuditEntry, Key

keys = LazyGroup(
    "keys",
    verbs={
        "create": Verb("inferq.cli.keys:create", "Make a key; its secret is printed this once."),
        "list": Verb("inferq.cli.keys:list_", "List keys, oldest first."),
        "show": Verb("inferq.cli.keys:show", "Show one key."),
        "revoke": Verb("inferq.cli.keys:revoke", "End keys at once, in every process."),
        "limit": Verb("inferq.cli.keys:limit", "Bound what a tenant may have running and waiting."),
        "limits": Verb("inferq.cli.keys:limits", "List the tenants that have limits."),
    },
    aliases={"ls": "list", "add": "create", "remove": "revoke"},
    help="Keys of a server, and limits of tenants.",
    examples="""
        inferq keys create team-a --max-priority high --model "qwen3*" --expires 90d
        inferq keys list
        inferq keys revoke team-a
    """,
    no_args_is_help=True,
)

KEY_FIELDS = ("id", "name", "role", "tenant", "max_priority", "models", "executors", "state", "created", "expires", "revoked", "last_used")
AUDIT_FIELDS = ("number", "at", "who", "key", "tenant", "method", "route", "targets", "status", "code", "request")


def key_record(key: Key) -> dict[str, Any]:
    """A key with every field of `KEY_FIELDS`, set or not."""
    now = round(time.time() * 1000)
    return {name: key.state(now) if name == "state" else getattr(key, name) for name in KEY_FIELDS}


def _bound(name: str) -> Any:
    def shown(record: Record) -> str:
        return ", ".join(record[name]) or "any"

    return shown


def _ceiling(record: Record) -> str:
    from inferq.task import priority_name

    return "any" if record["max_priority"] is None else priority_name(record["max_priority"])


def _iso(name: str) -> Any:
    return lambda record: iso(record.get(name))


def _moment(name: str) -> Any:
    return lambda record: ago(record[name])


_COLUMNS = [
    Column("NAME", field("name")),
    Column("ROLE", field("role")),
    Column("TENANT", lambda record: record["tenant"] or "all"),
    Column("PRIORITY", _ceiling),
    Column("STATE", field("state")),
    Column("EXPIRES", _iso("expires"), _moment("expires")),
    Column("CREATED", _iso("created"), _moment("created")),
    Column("LAST USED", _iso("last_used"), lambda record: "never" if record["last_used"] is None else ago(record["last_used"])),
    Column("ID", field("id")),
    Column("MODELS", _bound("models"), wide=True),
    Column("EXECUTORS", _bound("executors"), wide=True),
]


@click.command(
    cls=Command,
    examples="""
        inferq keys create team-a
        inferq keys create ci --role submit --tenant ci --max-priority low --expires 90d
        inferq keys create grafana --role read
        export INFERQ_API_KEY="$(inferq keys create me --role admin -q)"
    """,
    exits=(Exit.PERMISSION, Exit.CONFLICT, Exit.UNREACHABLE),
    fields=("secret", *KEY_FIELDS),
)
@click.argument("name")
@click.option("--role", default="submit", type=click.Choice(["read", "submit", "operator", "admin"]), help="What it may (default: submit).")
@click.option("--tenant", help="On whose account it works and whose tasks it sees; a submit key has its NAME otherwise.")
@click.option("--max-priority", type=PRIORITY, help="Higher priorities are refused.")
@click.option("--model", "models", multiple=True, type=NAMES, help="Only these models; a * at the end stands for any rest.")
@click.option("--executor", "executors", multiple=True, type=NAMES, help="Only these executors.")
@click.option("--concurrency", type=click.IntRange(1), help="Tasks of its tenant that run at a time, over all keys and processes.")
@click.option("--max-queued", type=click.IntRange(0), help="Tasks of its tenant that wait at a time.")
@click.option("--expires", type=UNTIL, help="When it ends: a duration such as 90d, or a time.")
@output_options()
@click.pass_obj
def create(app: App, /, name: str, concurrency: int | None, max_queued: int | None, **asked: Any) -> None:
    """Make a key; its secret is printed this once.

    Only a hash of it is kept. `-q` prints the secret alone. From a store's first key on its servers want one from everybody.
    """
    app.run(_create(app, name, concurrency, max_queued, asked))


async def _create(app: App, name: str, concurrency: int | None, max_queued: int | None, asked: dict[str, Any]) -> None:
    asked |= {"models": joined(asked["models"]), "executors": joined(asked["executors"])}
    limited = concurrency is not None or max_queued is not None
    if limited and asked["tenant"] is None and asked["role"] != "submit":
        raise click.UsageError(f"limits are a tenant's, and a {asked['role']} key without --tenant has none: give --tenant")
    async with app.queue() as queue:
        made = await queue.keys.create(name, **asked)
        if limited:
            await queue.keys.set_limits(made.key.tenant or name, concurrency=concurrency, max_queued=max_queued)
    record = {"secret": made.secret, **key_record(made.key)}
    app.out.record(record, [Column("KEY", field("secret")), *_COLUMNS], key="secret")
    say("keep the key now: it is not shown again")


@click.command("list", cls=Command, examples="inferq keys list\ninferq keys list -o json", exits=(Exit.UNREACHABLE,), fields=KEY_FIELDS)
@output_options()
@click.pass_obj
def list_(app: App) -> None:
    """List keys, oldest first.

    Revoked and expired ones too.
    """
    app.run(_list(app))


async def _list(app: App) -> None:
    async with app.queue() as queue:
        found = await queue.keys.list()
    app.out.records([key_record(key) for key in found], _COLUMNS)


@click.command(
    cls=Command,
    examples="""
        inferq keys show team-a
        inferq keys show team-a -o json
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=KEY_FIELDS,
)
@click.argument("key", metavar="NAME|ID")
@output_options()
@click.pass_obj
def show(app: App, key: str) -> None:
    """Show one key.

    Everything but its secret, which nobody has.
    """
    app.run(_show(app, key))


async def _show(app: App, key: str) -> None:
    async with app.queue() as queue:
        found = await queue.keys.get(key)
    app.out.record(key_record(found), [column._replace(wide=False) for column in _COLUMNS])


@click.command(
    cls=Command,
    examples="""
        inferq keys revoke team-a
        inferq keys revoke team-a --forget
    """,
    exits=(Exit.NOT_FOUND, Exit.UNREACHABLE),
    fields=KEY_FIELDS,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID...")
@click.option("--forget", is_flag=True, help="Also take it off the list. A store without any listed key is open to its own machine.")
@output_options()
@click.pass_obj
def revoke(app: App, names: tuple[str, ...], forget: bool) -> None:
    """End keys at once, in every process."""
    app.run(_revoke(app, names, forget))


async def _revoke(app: App, names: tuple[str, ...], forget: bool) -> None:
    async with app.queue() as queue:
        # All names are looked up before the first is ended: a typing error ends none.
        ids = [(await queue.keys.get(name)).id for name in names]
        ended = [await queue.keys.revoke(id, forget=forget) for id in ids]
    app.out.records([key_record(key) for key in ended], _COLUMNS)


def _number_or_none(text: str) -> int:
    if text.lower() in ("none", "any"):
        return -1
    if text.isascii() and text.isdecimal():
        return int(text)
    raise ValueError(f"expected a number of tasks, or none for any number, got {text!r}")


_BOUND = Parsed("number|none", _number_or_none)
_LIMIT_COLUMNS = [
    Column("TENANT", lambda record: record["tenant"] or "(default)"),
    Column("CONCURRENCY", lambda record: "any" if record["concurrency"] is None else record["concurrency"]),
    Column("MAX QUEUED", lambda record: "any" if record["max_queued"] is None else record["max_queued"]),
]


@click.command(
    cls=Command,
    examples="""
        inferq keys limit team-a --concurrency 4 --max-queued 1000
        inferq keys limit team-a --concurrency none
        inferq keys limit --default --max-queued 10000
    """,
    exits=(Exit.UNREACHABLE,),
    fields=("tenant", "concurrency", "max_queued"),
)
@click.argument("tenant", required=False)
@click.option("--default", "default", is_flag=True, help="The default account: tasks without a tenant.")
@click.option("--concurrency", type=_BOUND, help="Tasks that run at a time, over all keys and processes; none: any number.")
@click.option("--max-queued", type=_BOUND, help="Tasks that wait at a time; more are refused (429). none: any number.")
@output_options()
@click.pass_obj
def limit(app: App, tenant: str | None, default: bool, concurrency: int | None, max_queued: int | None) -> None:
    """Bound what a tenant may have running and waiting.

    It holds at once, in every process. A bound that is not given stays as it is.
    """
    if default == (tenant is not None):
        raise click.UsageError("expected the name of a tenant, or --default for tasks without one")
    app.run(_limit(app, tenant or "", concurrency, max_queued))


async def _limit(app: App, tenant: str, concurrency: int | None, max_queued: int | None) -> None:
    from inferq.access import TenantLimits

    async with app.queue() as queue:
        before = (await queue.keys.limits()).get(tenant, TenantLimits())
        made = await queue.keys.set_limits(
            tenant, concurrency=_settled(concurrency, before.concurrency), max_queued=_settled(max_queued, before.max_queued)
        )
    record = {"tenant": tenant, "concurrency": made.concurrency, "max_queued": made.max_queued}
    app.out.record(record, _LIMIT_COLUMNS, key="tenant")


def _settled(asked: int | None, before: int | None) -> int | None:
    if asked is None:
        return before
    return None if asked == -1 else asked


@click.command(
    cls=Command,
    examples="""
        inferq keys limits
        inferq keys limits -o json
    """,
    exits=(Exit.UNREACHABLE,),
    fields=("tenant", "concurrency", "max_queued"),
)
@output_options()
@click.pass_obj
def limits(app: App) -> None:
    """List the tenants that have limits."""
    app.run(_limits(app))


async def _limits(app: App) -> None:
    async with app.queue() as queue:
        found = await queue.keys.limits()
    records = [{"tenant": name, "concurrency": has.concurrency, "max_queued": has.max_queued} for name, has in found.items()]
    app.out.records(records, _LIMIT_COLUMNS, key="tenant")


@click.command(
    cls=Command,
    examples="""
        inferq audit
        inferq audit --limit 1000 -o csv
        inferq audit -o jsonl --json=at,who,route,targets
    """,
    exits=(Exit.UNREACHABLE,),
    fields=AUDIT_FIELDS,
)
@click.option("--limit", default=50, type=click.IntRange(1, 100_000), help="At most so many (default: 50).")
@output_options()
@click.pass_obj
def audit(app: App, limit: int) -> None:
    """List state-changing calls of servers, newest first.

    Who, what, on which things, how it ended; never payloads. What is kept: store.retention.audit_age and audit_count.
    """
    app.run(_audit(app, limit))


async def _audit(app: App, limit: int) -> None:
    found: list[AuditEntry] = []
    async with app.queue() as queue:
        while len(found) < limit:
            page = await queue.keys.audit(before=found[-1].number if found else None, limit=min(1000, limit - len(found)))
            found += page
            if not page:
                break
    records = [{name: getattr(entry, name) for name in AUDIT_FIELDS} for entry in found]
    columns = [
        Column("NUMBER", field("number"), wide=True),
        Column("AT", _iso("at"), _moment("at")),
        Column("WHO", field("who")),
        Column("CALL", lambda record: f"{record['method']} {record['route']}"),
        Column("STATUS", lambda record: f"{record['status']} {record['code'] or ''}".strip()),
        Column("TARGETS", lambda record: " ".join(record["targets"])),
        Column("REQUEST", field("request"), wide=True),
    ]
    app.out.records(records, columns, key="number")
