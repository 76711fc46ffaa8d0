"""The driver: rounds of random SIGKILLs on submitters, workers and a meddler of one file, each judged when the queue has drained."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faultkit.checker import complaints
from faultkit.children import Child
from faultkit.history import Contents, read_contents, read_history
from faultkit.place import Place
from inferq import AsyncQueue
from inferq.testing import wait_until

ROUNDS_A_FILE = 5
"""A file lives for so many rounds, so that each is judged with what earlier kills left behind."""
_TASKS = 50
"""Tasks of each of two submitters in a round."""


@dataclass
class Told:
    """What one round came to."""

    number: int
    kills: dict[str, int]
    tasks: int
    contents: Contents
    complaints: list[str]
    seconds: float

    def line(self) -> str:
        states = Counter(str(task.state) for task in self.contents.tasks.values())
        outcomes = Counter(record.outcome for records in self.contents.attempts.values() for record in records)
        killed = " ".join(f"{role} {count}" for role, count in sorted(self.kills.items()))
        return (
            f"round {self.number:3}: {self.seconds:4.1f} s, killed {killed}; tasks {dict(sorted(states.items()))}, "
            f"attempts {dict(sorted(outcomes.items()))}; complaints {len(self.complaints)}"
        )


@dataclass
class Campaign:
    """Rounds with one seed. What is random is drawn from it; when a signal lands is the machine's own affair."""

    folder: Path
    seed: int
    place: Place = field(init=False)
    _rng: random.Random = field(init=False)
    _killed: set[int] = field(default_factory=set)
    _children: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    async def round(self, number: int) -> Told:
        """One round: work under fire, drain, stop, judge."""
        began = time.monotonic()
        if number % ROUNDS_A_FILE == 0:
            folder = self.folder / f"file-{number // ROUNDS_A_FILE}"
            folder.mkdir()
            self.place, self._killed = Place(str(folder)), set()
        async with self.place.queue(work=False) as door:
            try:
                kills = await self._fire(number)
                await self._drain(door)
            finally:
                for child in self._children.values():
                    child.kill()
                self._children.clear()
            contents = await read_contents(door)
        found = complaints(read_history(self.place, self._killed), contents)
        return Told(number, kills, len(contents.tasks), contents, found, time.monotonic() - began)

    # one round -------------------------------------------------------------------------------------------------------

    def _start(self, role: str, number: int) -> None:
        program = role.split("-")[0]
        more: dict[str, Any] = {"name": f"r{number}{role}", "count": _TASKS, "seed": self.seed} if program == "submitter" else {}
        self._children[role] = Child(program, self.place, **more)

    async def _fire(self, number: int) -> dict[str, int]:
        roles = ["worker-a", "worker-b", "submitter-a", "submitter-b", "meddler"]
        for role in roles:
            self._start(role, number)
        kills: Counter[str] = Counter()
        for _ in range(self._rng.randint(4, 8)):
            await self._progress(self._rng.randint(1, 5000))
            role = self._rng.choice(roles)
            child = self._children[role]
            if child.ended() is not None:
                continue
            kills[role.split("-")[0]] += 1
            if role.startswith("worker"):
                self._killed.add(child.pid)
            child.kill()
            self._start(role, number)
        for role in ("submitter-a", "submitter-b"):
            await _ended(self._children[role], 0)
        self._children["meddler"].kill()
        return dict(kills)

    async def _progress(self, amount: int) -> None:
        """Until the history has grown by so many bytes, or all is submitted: kills fall into the work however fast the machine is."""
        goal = self._written() + amount
        submitters = [self._children[role] for role in ("submitter-a", "submitter-b")]
        await wait_until(
            lambda: self._written() >= goal or all(child.ended() is not None for child in submitters),
            timeout=30,
            every=0.001,
            what="work to go on",
        )

    def _written(self) -> int:
        return sum(log.stat().st_size for log in (self.place.acks, self.place.runs) if log.exists())

    async def _drain(self, door: AsyncQueue) -> None:
        for role in ("worker-a", "worker-b"):
            self._children[role].ready()

        async def drained() -> bool:
            states = (await door.stats()).states
            return not states["scheduled"] + states["pending"] + states["running"]

        # A queue that does not drain is judged as it stands: the checker names the stuck tasks.
        try:
            await wait_until(drained, timeout=20, every=0.02)
        except AssertionError:
            return
        for role in ("worker-a", "worker-b"):
            self._children[role].send(signal.SIGTERM)
        for role in ("worker-a", "worker-b"):
            await _ended(self._children[role], 0)


async def _ended(child: Child, code: int) -> None:
    await wait_until(lambda: child.ended() is not None, timeout=30, what=f"{child.program} to end")
    if child.ended() != code:
        raise AssertionError(f"expected {child.program} to end with {code}, got {child.ended()}; its log: {child.errors}")


async def campaign(folder: Path, *, rounds: int, seed: int, tell: Callable[[str], None]) -> list[Told]:
    """So many rounds; stops after the first that is not clean."""
    made = Campaign(folder, seed)
    told: list[Told] = []
    tell(f"seed {seed}, {rounds} rounds")
    for number in range(rounds):
        told.append(await made.round(number))
        tell(told[-1].line())
        if told[-1].complaints:
            for line in told[-1].complaints[:40]:
                tell(f"  {line}")
            break
    tell(_summary(told))
    return told


def _summary(told: list[Told]) -> str:
    kills: Counter[str] = Counter()
    for one in told:
        kills.update(one.kills)
    tasks = sum(one.tasks for place, one in enumerate(told) if place + 1 == len(told) or one.number % ROUNDS_A_FILE == ROUNDS_A_FILE - 1)
    bad, seconds = sum(len(one.complaints) for one in told), sum(one.seconds for one in told)
    total, by_role = sum(kills.values()), dict(sorted(kills.items()))
    return f"{len(told)} rounds in {seconds:.0f} s: {total} kills {by_role}, {tasks} tasks, {bad} complaints"
