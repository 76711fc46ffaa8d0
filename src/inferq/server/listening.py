"""Where the server listens: an address that strangers may not reach without keys, a socket with clear errors, descriptors enough."""

from __future__ import annotations

import errno
import resource
import socket
from typing import TYPE_CHECKING

from inferq.errors import ConfigError
from inferq.server.guard import is_loopback

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue

BACKLOG = 2048
"""Connections that the system keeps until they are taken."""
_OTHER_DESCRIPTORS = 256


async def check_public(queue: AsyncQueue) -> None:
    """Refuse to listen for others while everybody would be an admin. Raises ConfigError."""
    settings = queue.settings.server
    if is_loopback(settings.host) or settings.insecure or await queue.keys.configured():
        return
    raise ConfigError(
        f"expected keys before listening on {settings.host}, where other machines can reach it: make one with `inferq keys create NAME`, "
        "or say --insecure (server.insecure) where something else keeps strangers out"
    )


def allow_descriptors(connections: int) -> None:
    """Let this process open a descriptor for each connection: many shells start with 1,024, which a thousand browsers use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError when the address is taken or is not this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"server.host: expected an address of this machine, got {host!r}: {error.strerror or error}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"server.port: expected a free port, got {port}: something listens on {host}:{port} already (another `inferq serve`?); "
                "choose another with --port"
            ) from None
        raise ConfigError(f"server: cannot listen on {host}:{port}: {error.strerror}") from None
    return made
