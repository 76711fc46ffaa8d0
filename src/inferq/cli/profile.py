"""`inferq profile`: names for servers and stores, with their keys, and which one is used where none is named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command, LazyGroup, Verb
from inferq.cli.output import Column, field, output_options, say

if TYPE_CHECKING:
    from inferq.config.profiles import Profiles

profile = LazyGroup(
    "profile",
    verbs={
        "list": Verb("inferq.cli.profile:list_", "List profiles, and which one is used."),
        "add": Verb("inferq.cli.profile:add", "Make a profile, or make the one of that name anew."),
        "use": Verb("inferq.cli.profile:use", "Use a profile from now on, where none is named."),
        "remove": Verb("inferq.cli.profile:remove", "Forget a profile and its key."),
    },
    aliases={"ls": "list", "rm": "remove"},
    help="Name servers and stores, and choose among them.",
    examples="""
        inferq profile add lab --server http://queue.lan:7125 --key-stdin < key.txt
        inferq profile use lab
        inferq -P lab list
    """,
    no_args_is_help=True,
)

_FIELDS = ("name", "url", "api_key", "used")
_COLUMNS = [
    Column("NAME", field("name")),
    Column("URL", field("url")),
    Column("KEY", lambda record: record["api_key"] or "none"),
    Column("USED", lambda record: "*" if record["used"] else ""),
]


def _records(found: Profiles) -> list[dict[str, Any]]:
    return [
        {"name": name, "url": one.url, "api_key": one.api_key, "used": name == found.use} for name, one in sorted(found.profiles.items())
    ]


def _print_one(app: App, found: Profiles, name: str) -> None:
    (record,) = [record for record in _records(found) if record["name"] == name]
    app.out.record(record, _COLUMNS, key="name")


@click.command(
    cls=Command,
    examples="""
        inferq profile list
        inferq profile list -o json
    """,
    exits=(Exit.USAGE,),
    fields=_FIELDS,
)
@output_options()
@click.pass_obj
def list_(app: App) -> None:
    """List profiles, and which one is used.

    A key is shown as the reference it is kept under, never as itself.
    """
    from inferq.config import Places, profiles

    app.out.records(_records(profiles.read(Places.here().user)), _COLUMNS, key="name")


@click.command(
    cls=Command,
    examples="""
        inferq profile add lab --server http://queue.lan:7125 --key '${LAB_KEY}'
        inferq profile add lab --server http://queue.lan:7125 --key-stdin < key.txt
        inferq profile add project --server sqlite:////srv/project/inferq.db
    """,
    exits=(Exit.USAGE,),
    fields=_FIELDS,
)
@click.argument("name")
@click.option("--server", required=True, metavar="URL", help="The server, or a store's URL.")
@click.option("--key", default="", metavar="REFERENCE", help="Its key: ${NAME}, file:PATH, or written out.")
@click.option("--key-stdin", is_flag=True, help="Read the key from standard input, so that it stands in no history.")
@click.option("--use", "used", is_flag=True, help="Use it from now on.")
@output_options()
@click.pass_obj
def add(app: App, name: str, server: str, key: str, key_stdin: bool, used: bool) -> None:
    """Make a profile, or make the one of that name anew.

    The first profile is used from now on. A key that is written out is kept in a file that only you can read.
    """
    from inferq.config import Places, profiles
    from inferq.config.address import is_server

    if key and key_stdin:
        raise click.UsageError("give the key by --key or by --key-stdin, not by both")
    directory = Places.here().user
    made = profiles.add(directory, name, _checked(server), sys.stdin.readline().strip() if key_stdin else key)
    if used:
        made = profiles.use(directory, name)
    if (key or key_stdin) and not is_server(server):
        say(f"{name} is a store, which needs no key")
    say(f"{name} is kept in {profiles.path_of(directory)}" + ("; it is used from now on" if made.use == name else ""))
    _print_one(app, made, name)


def _checked(url: str) -> str:
    """An address that leads somewhere, whatever directory it is used from. Raises ConfigError."""
    from inferq.config.address import is_server

    if is_server(url):
        from inferq.client.link import checked_url

        return checked_url(url)
    from pathlib import Path

    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else url
    if "://" in path:
        raise click.UsageError(f"expected a server's address or a store such as sqlite:////srv/inferq.db, got {url!r}")
    return f"sqlite:///{Path(path).expanduser().absolute()}"


@click.command(
    cls=Command,
    examples="""
        inferq profile use lab
        inferq profile use --none
    """,
    exits=(Exit.USAGE,),
    fields=_FIELDS,
)
@click.argument("name", required=False, default="")
@click.option("--none", "nobody", is_flag=True, help="Use none: the configured store, or a server on this machine.")
@output_options()
@click.pass_obj
def use(app: App, name: str, nobody: bool) -> None:
    """Use a profile from now on, where none is named."""
    from inferq.config import Places, profiles

    if bool(name) == nobody:
        raise click.UsageError("give the name of a profile, or --none")
    made = profiles.use(Places.here().user, name)
    say(f"{name} is used from now on" if name else "no profile is used from now on")
    if name:
        _print_one(app, made, name)


@click.command(
    cls=Command,
    examples="""
        inferq profile remove lab
        inferq profile rm lab
    """,
    exits=(Exit.USAGE,),
    fields=_FIELDS,
)
@click.argument("name")
@output_options()
@click.pass_obj
def remove(app: App, name: str) -> None:
    """Forget a profile and its key.

    The server and its queue stay as they are.
    """
    from inferq.config import Places, profiles

    directory = Places.here().user
    before = profiles.read(directory)
    profiles.remove(directory, name)
    say(f"{name} is forgotten")
    _print_one(app, before, name)
