"""`inferq open` and `inferq openapi`: what a server shows to people and to tools."""

from __future__ import annotations

import click

from inferq.cli.app import App
from inferq.cli.exits import Exit
from inferq.cli.groups import Command
from inferq.cli.output import Column, field, output_options


@click.command(
    "open",
    cls=Command,
    examples="""
        inferq open
        inferq --url http://queue.lan:7125 open --print
    """,
    exits=(Exit.UNREACHABLE,),
    fields=("url",),
)
@click.option("--print", "only_print", is_flag=True, help="Only print the address; open nothing.")
@output_options()
@click.pass_obj
def open_(app: App, only_print: bool) -> None:
    """Open the server's page in the browser.

    Prints its address too, for where there is no browser.
    """
    from inferq.errors import ConnectFailed

    address = app.address()
    if not address.is_server:
        raise ConnectFailed(f"the queue is the store {address.url}, which has no page. Start a server with `inferq serve`, or give --url")
    app.out.record({"url": f"{address.url}/"}, [Column("URL", field("url"))], key="url")
    if not only_print:
        import webbrowser

        webbrowser.open(f"{address.url}/")


@click.command(
    cls=Command,
    examples="""
        inferq openapi > openapi.json
        inferq openapi | jq '.paths | keys'
    """,
)
@click.pass_obj
def openapi(app: App) -> None:
    """Print the API of the server as OpenAPI 3.1.

    It is the document of this version, the same as a server gives at /openapi.json; no server is asked.
    """
    from inferq.cli.serve import check_extra

    check_extra()
    from inferq.server.openapi import openapi as document
    from inferq.server.routes import ROUTES

    app.out.json(document(ROUTES))
