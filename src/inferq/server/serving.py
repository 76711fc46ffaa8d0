"""Runs the application under uvicorn, and ends it in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import uvicorn

from inferq.config import ServerSettings
from inferq.errors import ConfigError
from inferq.server.connection import Socket, http_of
from inferq.server.listening import BACKLOG

if TYPE_CHECKING:
    from inferq.queue import AsyncQueue
    from inferq.server.app import App

_LARGEST_MESSAGE = 65_536
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


def _prefix(root: str) -> str:
    """The prefix without a slash at its end. Raises ConfigError for one that no address could begin with."""
    if not _PREFIX.fullmatch(root):
        raise ConfigError(f"server.root_path: expected a prefix such as /inferq, of letters, digits and . _ ~ -, got {root!r}")
    return root.rstrip("/")


class Server(uvicorn.Server):
    """One listening server. `await serve()` runs it until `stop()`; `port` is the real one once it has started."""

    def __init__(self, app: App, *, host: str | None = None, port: int | None = None) -> None:
        settings: ServerSettings = app.settings
        # Its lines about single connections are of no use to who runs a queue; ours say what matters.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host if host is None else host,
                port=settings.port if port is None else port,
                http=http_of(settings),
                ws=Socket,
                ws_max_size=_LARGEST_MESSAGE,
                # A compressing socket holds some 300 KB; a thousand of them would be the server's memory.
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                root_path=_prefix(settings.root_path or ""),
                timeout_keep_alive=round(settings.keep_alive),
                timeout_graceful_shutdown=5,
                backlog=BACKLOG,
            )
        )
        self.app = app
        self.listening = asyncio.Event()
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays: the collector need not walk it again at each of its rounds, which requests would wait for.
        gc.collect()
        gc.freeze()
        self.listening.set()

    async def main_loop(self) -> None:
        """uvicorn's own looks ten times a second whether it should end; this one is told."""
        clock = asyncio.get_running_loop().time
        while not await self.on_tick(0):
            began = clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ending.wait()
            self.app.lag = max(0.0, clock() - began - 1.0)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listening_at()[1])

    @property
    def url(self) -> str:
        """Where this machine's programs reach it."""
        host = self._listening_at()[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.config.root_path}"

    def _listening_at(self) -> Any:
        return self.servers[0].sockets[0].getsockname()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the command's: it knows the order of a stop."""
        yield

    def stop(self) -> None:
        """End streams, then connections, then `serve`."""
        self.app.draining = True
        self.app.stopping.set()
        self.should_exit = True
        self._ending.set()


async def run_until_stopped(server: Server, queue: AsyncQueue, listening: socket.socket, *, ready: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM. The first: not ready any more, no new claims, running tasks finish within their grace, streams end,
    connections close. The second: now. `ready` is called when requests are answered."""
    loop = asyncio.get_running_loop()
    asked, now = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(server.serve(sockets=[listening]))

    def ask() -> None:
        (now if asked.is_set() else asked).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        await _first(serving, server.listening)
        if not serving.done():
            ready()
            notify("READY=1")
            await _first(serving, asked)
        notify("STOPPING=1")
        server.app.draining = True
        stopping = asyncio.create_task(queue.stop())
        await _first(stopping, now)
        if now.is_set():
            await queue.stop(0)
        await stopping
        server.stop()
        await _first(serving, now)
        server.force_exit = now.is_set()
        await serving
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def notify(state: str) -> None:
    """Tell systemd, where it started us with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling, contextlib.suppress(OSError):
            telling.connect("\0" + address[1:] if address.startswith("@") else address)
            telling.sendall(state.encode())
