"""What an attempt's end means for its backend and for the task's next one: gates, breakers, where a refused task goes, where it waits."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from inferq.clock import Clock
from inferq.engine.attempt import Attempt
from inferq.engine.backend import Backend, model_of
from inferq.engine.backends import Backends
from inferq.errors import ExecutorError, RetryLater, Unavailable, Untranslatable
from inferq.retry import RetryPolicy, patience
from inferq.task import Claim, Outcome, lane_of, lane_parts

_FULL_GATE: Final = frozenset({"rate_limited", "overloaded", "quota_exhausted"})
_REMEMBERED: Final = 1000
"""Tasks whose broken attempts' backends are remembered, the newest."""
_PATIENCE: Final = RetryPolicy(initial_delay=1.0, max_delay=10.0)
"""How long a task waits for others that are open but busy, and a refused lane without a hint."""


log: Final = logging.getLogger("inferq.backends")


class Aftermath:
    """Knows the backends; the worker tells it of every refusal and every end."""

    def __init__(
        self, backends: Backends, *, loop: asyncio.AbstractEventLoop, clock: Clock, rng: random.Random, changed: Callable[[], None]
    ) -> None:
        self._backends = backends
        self._loop = loop
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._broke_at: dict[str, str] = {}
        """By task, where its last attempt broke off."""

    def rather(self, claim: Claim, backend: Backend) -> Backend:
        """Where to make an attempt that was claimed for that backend: where the last one broke off only if no other is open and free."""
        if self._broke_at.pop(claim.task.id, None) != backend.name:
            return backend
        near = not backend.remote or self._backends.rules.fallback_to_local
        flow = claim.task.flow
        other, _ = self._backends.elsewhere(flow.lane, flow.priority, tried=(backend.name,), near=near, now=self._loop.time())
        return other or backend

    def sent_on(self, attempt: Attempt, error: ExecutorError) -> Backend | None:
        """Another open backend with a free slot, which it takes; None when there is none, and the attempt ends here."""
        lane = attempt.claim.task.flow.lane
        if len(self._backends.serving(lane)) < 2:
            return None
        refused, now = attempt.backend, self._loop.time()
        # What it was refused with counts now: `settled` hears of the last one only.
        near = self._may_run_near(attempt)
        tried = (refused.name, *(one.backend for one in attempt.tried))
        other, _ = self._backends.elsewhere(lane, attempt.claim.task.flow.priority, tried=tried, near=near, now=now)
        if other is None:
            return None
        self._note(refused, attempt, error)
        refused.leave()
        other.began(lane)
        return other

    def settled(self, attempt: Attempt, outcome: Outcome | None) -> Outcome | None:
        """Tell the backend how the attempt ended; the outcome as it is to be written."""
        backend, lane = attempt.backend, attempt.claim.task.flow.lane
        if outcome is not None and outcome.kind == "completed":
            if backend.breakers or backend.down:
                self._works_again(backend, lane)
            backend.heard = self._loop.time()
            return outcome
        self._learn(backend, lane, attempt.claim.task.id, None if attempt.set_its_own_clock else outcome)
        if outcome is None:
            return None
        if outcome.kind == "retry":
            self._broke(attempt)
        if backend.remote or attempt.tried:
            outcome = msgspec.structs.replace(outcome, remote=backend.remote, tried=attempt.tried)
        return self._kept_waiting(attempt, outcome)

    def _broke(self, attempt: Attempt) -> None:
        if len(self._backends.serving(attempt.claim.task.flow.lane)) > 1:
            if len(self._broke_at) >= _REMEMBERED:
                del self._broke_at[next(iter(self._broke_at))]
            self._broke_at[attempt.claim.task.id] = attempt.backend.name

    def _learn(self, backend: Backend, lane: str, task: str, outcome: Outcome | None) -> None:
        now = self._loop.time()
        if outcome is not None and outcome.kind == "released" and outcome.code in _FULL_GATE and outcome.delay is not None:
            backend.shut(lane, now + outcome.delay / 1000)
            self._changed()
        if outcome is None or outcome.code is None or outcome.code in ("expired", "lost", "internal"):
            if breaker := backend.breakers.get(model_of(lane)):
                breaker.withdraw()
            return
        if outcome.code == "model_not_found" and backend.forget(model_of(lane)):
            self._backends.changed()
            self._changed()
        code = None if outcome.kind == "released" else outcome.code
        # A server's own words may quote the prompt, and everybody who waits is told the reason.
        reason = outcome.error if code == "connect" else str(code)
        if backend.failed(lane, code, now, self._rng, task=task, reason=reason):
            self._changed()
            _tell_opened(backend, model_of(lane))

    def _works_again(self, backend: Backend, lane: str) -> None:
        breaker = backend.breakers.get(model_of(lane))
        if backend.succeeded(lane, self._loop.time()):
            self._changed()
        if breaker is not None and breaker.opened:
            _tell(logging.INFO, backend, model_of(lane), "backend.breaker_closed", "works again")

    def _note(self, backend: Backend, attempt: Attempt, error: ExecutorError) -> None:
        """As `_learn`, of a refusal after which the attempt goes on elsewhere."""
        lane = attempt.claim.task.flow.lane
        if isinstance(error, Untranslatable):
            return
        if isinstance(error, RetryLater):
            delay = round(patience(1, error.after, _PATIENCE, self._rng) * 1000)
            self._learn(backend, lane, attempt.claim.task.id, Outcome.released(code=error.failure, delay=delay))
        else:
            self._learn(backend, lane, attempt.claim.task.id, Outcome.failed(error.failure, str(error)))

    def _may_run_near(self, attempt: Attempt) -> bool:
        """Whether local backends may have a task that went to remote ones."""
        went_far = attempt.backend.remote or any(self._is_remote(one.backend) for one in attempt.tried)
        return not went_far or self._backends.rules.fallback_to_local

    def _is_remote(self, name: str) -> bool:
        backend = self._backends.get(name)
        return backend is not None and backend.remote

    def _kept_waiting(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """A task that waits again: without a burnt retry while others are open but busy; in a lane that keeps it where it belongs."""
        lane = attempt.claim.task.flow.lane
        if len(self._backends.serving(lane)) > 1 and outcome.kind in ("retry", "failed") and self._others_are_busy(attempt):
            delay = round(patience(1, None, _PATIENCE, self._rng) * 1000)
            released = Outcome.released(at=self._clock.read().wall + delay, delay=delay, code=outcome.code, error=outcome.error)
            outcome = msgspec.structs.replace(released, backend=outcome.backend, remote=outcome.remote, tried=outcome.tried)
        if outcome.kind in ("retry", "released") and (moved := self._lane_after(attempt, outcome)) != lane:
            outcome = msgspec.structs.replace(outcome, lane=moved)
        return outcome

    def _others_are_busy(self, attempt: Attempt) -> bool:
        error = attempt.refusal
        if isinstance(error, Untranslatable):
            return self._native(attempt.claim.task.flow.lane, attempt.claim.task.executor) is not None
        if not isinstance(error, Unavailable):
            return False
        tried = (attempt.backend.name, *(one.backend for one in attempt.tried))
        flow = attempt.claim.task.flow
        near = self._may_run_near(attempt)
        return self._backends.elsewhere(flow.lane, flow.priority, tried=tried, near=near, now=self._loop.time())[1]

    def _native(self, lane: str, executor: str) -> str | None:
        """A backend that speaks the task's own dialect, local ones first."""
        native = [backend for backend in self._backends.serving(lane) if backend.kind == executor]
        return min(native, key=lambda backend: (backend.remote, -backend.priority)).name if native else None

    def _lane_after(self, attempt: Attempt, outcome: Outcome) -> str:
        lane = attempt.claim.task.flow.lane
        executor, model, backend = lane_parts(lane)
        if backend is not None or (outcome.code is None and not attempt.tried):
            return lane
        if isinstance(attempt.refusal, Untranslatable) and (native := self._native(lane, executor)):
            return lane_of(executor, model, native)
        if not self._may_run_near(attempt):
            return lane_of(executor, model, remote=True)
        return lane


def _tell_opened(backend: Backend, model: str) -> None:
    """Once, not for every probe that fails."""
    breaker = backend.breakers.get(model)
    if breaker is not None and breaker.opened == 1:
        said = f"failed {breaker.failures} times ({breaker.reason}); its tasks wait or go elsewhere, one at a time finds out"
        _tell(logging.WARNING, backend, model, "backend.breaker_opened", said)


def _tell(level: int, backend: Backend, model: str, event: str, said: str) -> None:
    at = f" at {model}" if model else ""
    log.log(level, "backend %s%s %s", backend.name, at, said, extra={"event": event, "backend": backend.name, "model": model})
