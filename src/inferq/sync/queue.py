"""A queue in this program, for programs without an event loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from inferq.clock import Clock
from inferq.config import BackendSettings, Changes, Settings
from inferq.executor import Executor
from inferq.handle import Duration
from inferq.queue import AsyncQueue
from inferq.sync.door import Door

if TYPE_CHECKING:
    from inferq.engine import Backend
    from inferq.executors.discovery import Discovered


class Queue(Door[AsyncQueue]):
    """A durable queue in this program; the same methods as AsyncQueue, blocking.

    with inferq.Queue("sqlite:///inferq.db") as queue:
        print(queue.chat("smollm2", "Why is the sky blue?", executor="llamacpp").result().text)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backends: Sequence[Backend | BackendSettings | Executor] | None = None,
        settings: Settings | None = None,
        work: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {"url": url, "backends": backends, "settings": settings, "work": work, "clock": clock}

    def _make(self) -> AsyncQueue:
        return AsyncQueue(**self._arguments)

    def start(self) -> None:
        """Open the store and, with `work`, begin to run tasks. Raises StoreError, ConfigError or PluginError."""
        super().start()

    def close(self, grace: Duration | None = None) -> None:
        """`stop`, then close the store. Idempotent."""
        super().close(grace)

    def start_work(self) -> None:
        """Begin to run tasks in this process, where it was opened with `work=False`. Idempotent. Raises ConfigError or PluginError."""
        self.call(self.asynchronous.start_work())

    def stop(self, grace: Duration | None = None) -> None:
        """Stop working; running tasks finish within the grace or are handed back unburnt."""
        self.call(self.asynchronous.stop(grace))

    def reconfigure(self, settings: Settings) -> Changes:
        """Go on under these settings, as far as a running process can: the answer says what was applied and what needs a new start."""
        return self.call(self.asynchronous.reconfigure(settings))

    def run_until_stopped(self, *, ready: Callable[[], object] | None = None) -> None:
        """Work until SIGINT or SIGTERM: the first stops gracefully, a second hands back at once. `ready` is called when they are heeded.

        Call it from the main thread.
        """
        asked = threading.Event()
        again = threading.Event()

        def ask(*_: object) -> None:
            again.set() if asked.is_set() else asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if ready is not None:
                ready()
            # Signals are handled between waits of the main thread; the wait itself returns at the signal.
            while not asked.wait(timeout=1.0):
                pass
            stopping = self.begin(self.asynchronous.stop())
            while not stopping.done():
                if again.wait(timeout=0.1):
                    self.stop(0)
                    break
            stopping.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def settings(self) -> Settings:
        """What this queue goes by; `reconfigure` changes it."""
        return self.asynchronous.settings

    def discover(self) -> list[Discovered]:
        """Look for model servers of this machine; one of a kind that nobody has configured is a backend of this process from now on."""
        return self.call(self.asynchronous.discover())

    def retry_after(self, lane: str | None = None) -> float:
        """Seconds after which a caller that was refused for want of room should come again, by measured service times."""
        return self.call(self.asynchronous.retry_after(lane))

    def places(self) -> list[Backend]:
        """Where tasks can run in this process, as configured."""
        return self.asynchronous.places()
