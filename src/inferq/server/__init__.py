"""The HTTP face: an ASGI application over a queue, to be served by `inferq serve` or mounted into another application.

A request's way: `serving.py` and `connection.py` (uvicorn, with bounds that it lacks); `app.py`, which checks Host, route, Origin and key
(`guard.py`) and reads query and body as the route's own types (`body.py`); a handler of an area's file, which knows the queue only; its
`Reply`, or an error of ours that `problems.py` turns into an RFC 9457 problem. Streams go through `stream.py`, events through
`broadcast.py`, the WebSocket through `socket.py`.
"""

from __future__ import annotations

from inferq.access import Principal, Role
from inferq.server.app import create_app
from inferq.server.call import Call, Reply, Streamed
from inferq.server.route import Lines, Route, Sse, route

__all__ = ["Call", "Lines", "Principal", "Reply", "Role", "Route", "Sse", "Streamed", "create_app", "route"]
