"""One store under test with its logs, and the settings that every process on it uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faultkit.clock import SteppedClock
from faultkit.recorder import Recorder
from inferq import AsyncQueue
from inferq.clock import Clock, SystemClock
from inferq.config import RetrySettings, Settings, StoreSettings, WorkerSettings


@dataclass(frozen=True)
class Place:
    """Times are seconds. `folder` keeps the store and the logs; `clock` is the file of a SteppedClock, or empty."""

    folder: str
    store: str = ""
    lease: float = 10.0
    rescue_interval: float = 0.2
    slots: int = 6
    grace: float = 10.0
    lost_limit: int = 4
    clock: str = ""

    @property
    def path(self) -> Path:
        return Path(self.store) if self.store else Path(self.folder) / "queue.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def runs(self) -> Path:
        return Path(self.folder) / "runs.jsonl"

    @property
    def acks(self) -> Path:
        return Path(self.folder) / "acks.jsonl"

    @property
    def changes(self) -> Path:
        return Path(self.folder) / "changes.jsonl"

    def as_arguments(self) -> dict[str, Any]:
        return asdict(self)

    def settings(self) -> Settings:
        return Settings(
            store=StoreSettings(url=self.url),
            worker=WorkerSettings(
                slots=self.slots,
                lease=self.lease,
                shutdown_grace=self.grace,
                rescue_interval=self.rescue_interval,
                lost_limit=self.lost_limit,
                poll_interval=0.5,
            ),
            retry=RetrySettings(max_retries=3, initial_delay=0.02, max_delay=0.2),
        )

    def queue(self, *, work: bool) -> AsyncQueue:
        """The queue as every process of the harness opens it."""
        clock: Clock = SteppedClock(self.clock) if self.clock else SystemClock()
        return AsyncQueue(self.url, settings=self.settings(), backends=[Recorder(self.runs)], work=work, clock=clock)
