"""Measures a peer: its worker in one process, its sender in another, its server beside them; the handlers note the clock themselves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import Bench
from measure import Missing, Sample
from processes import HERE, ChildFailed, cpu_seconds, measured, running

# The peers' programs run as scripts and know each other by plain names.
sys.path.append(str(HERE / "peers"))
from board import Board

ON_POSTGRES = frozenset({"pgqueuer"})
_WARM = 100
_LIMIT = 120.0


class Rival:
    """A peer that is set up. Making it raises Missing when it cannot be."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.name = name
        self._bench = bench
        self._redis = None if name in ON_POSTGRES else bench.redis()
        self._command = [bench.python(name), str(HERE / "peers" / f"with_{name}.py")]
        self._board = bench.data / f"board-{name}"
        self._env = {"BENCH_BOARD": str(self._board), "BENCH_URL": bench.postgres() if self._redis is None else self._redis.url}

    def _run(self, *arguments: str) -> Sample:
        return measured([*self._command, *arguments], env=self._env, timeout=_LIMIT)

    def _prepare(self) -> Board:
        if self._redis is not None:
            self._redis.flush()
        else:
            measured([*self._command, "prepare"], env=self._env, timeout=_LIMIT)
        board = Board(self._board)
        board.clear()
        return board

    @contextmanager
    def _or_missing(self) -> Iterator[None]:
        """A peer that breaks is out of the comparison; inferq's own figures are still wanted."""
        try:
            yield
        except ChildFailed as error:
            raise Missing(f"{self.name} failed: {error}") from None

    @contextmanager
    def _working(self, slots: int) -> Iterator[tuple[Board, subprocess.Popen[bytes]]]:
        """A worker that has shown that it works."""
        board = self._prepare()
        log = Path(f"{self._board}.log")
        with running([*self._command, "work", str(slots)], env=self._env, log=log) as worker:
            self._run("produce", str(_WARM), "20")
            self._await(board, _WARM, worker, log)
            board.clear()
            yield board, worker

    def _await(self, board: Board, count: int, worker: subprocess.Popen[bytes], log: Path) -> None:
        end = time.monotonic() + _LIMIT
        while board.done < count:
            if worker.poll() is not None or time.monotonic() > end:
                tail = (log.read_text().strip().splitlines() or ["no output"])[-1]
                raise ChildFailed(f"{self.name}: {board.done} of {count} tasks, then: {tail}")
            time.sleep(0.002)

    def life(self, count: int, size: int, slots: int) -> Sample:
        """From the first send to the start of the last handler; CPU of the worker process alone. Raises Missing."""
        with self._or_missing(), self._working(slots) as (board, worker):
            before = cpu_seconds(worker.pid)
            sent = self._run("produce", str(count), str(size))
            self._await(board, count, worker, Path(f"{self._board}.log"))
            spent = cpu_seconds(worker.pid) - before
        return {"per_second": count / board.seconds, "worker_cpu_us": spent / count * 1e6, **sent}

    def submit(self, count: int, size: int) -> Sample:
        """Sending only, no worker: its bulk call if it has one, else 100 coroutines (huey: one caller). Raises Missing."""
        with self._or_missing():
            self._prepare()
            return self._run("produce", str(count), str(size))

    def idle(self, count: int, slots: int) -> list[float]:
        """Milliseconds from send to start of each probe, one at a time with pauses. Raises Missing."""
        with self._or_missing(), self._working(slots) as (board, worker):
            self._run("probe", str(count))
            self._await(board, count, worker, Path(f"{self._board}.log"))
            return board.probes(count)
