"""The HTTP face: an ASGI application over a queue, to be served by `inferq serve` or mounted into another application."""

from __future__ import annotations

from inferq.access import Principal, Role
from inferq.server.app import create_app
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Lines, Route, Sse, route

__all__ = ["Call", "Lines", "Principal", "Reply", "Role", "Route", "Sse", "Streamed", "create_app", "route"]
