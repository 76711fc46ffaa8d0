"""One claim from its start to its outcome, as a list of small steps. Knows no loop and no other attempt."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Literal

import msgspec

from inferq.clock import Clock
from inferq.config import RetrySettings, WorkerSettings
from inferq.engine.backend import Backend
from inferq.engine.handed import checked, sound
from inferq.engine.verdict import code_of, may_pass_on, text_of, verdict_on
from inferq.errors import ExecutorError, PluginError, Reject, Unavailable
from inferq.executor import Answer, Call, Chunk, Executor
from inferq.retry import RetryPolicy, decide
from inferq.task import Claim, Outcome, Tried

log: Final = logging.getLogger("inferq.attempt")

_OURS: Final = ("reset", "end")
"""Kinds of chunks that only the queue writes."""

_PATIENCE: Final = 5.0
"""Seconds that an interrupted call may take to close before its attempt is ended without it."""

Stop = Literal["timeout", "idle", "cancelled", "lost", "stopping"]


class AttemptRules(msgspec.Struct, frozen=True):
    """What the settings say about every attempt. Seconds."""

    timeout: float | None
    idle_timeout: float | None
    retry: RetryPolicy

    @classmethod
    def from_settings(cls, worker: WorkerSettings, retry: RetrySettings) -> AttemptRules:
        policy = RetryPolicy(retry.max_retries, retry.initial_delay, retry.max_delay, retry.backoff_factor)
        return cls(worker.timeout, worker.idle_timeout, policy)


class Attempt:
    """Runs a claim on a backend. `emit` takes each chunk to the log; `interrupt` stops it from outside."""

    __slots__ = (
        "_begun",
        "_clock",
        "_deadline",
        "_emit",
        "_ended",
        "_entered",
        "_first",
        "_heard",
        "_loop",
        "_on_deaf",
        "_on_refused",
        "_rng",
        "_rules",
        "_silence",
        "_stop",
        "abandoned",
        "backend",
        "claim",
        "refusal",
        "task",
        "tried",
    )

    def __init__(
        self,
        claim: Claim,
        backend: Backend,
        *,
        rules: AttemptRules,
        clock: Clock,
        rng: random.Random,
        emit: Callable[[Chunk], None],
        loop: asyncio.AbstractEventLoop,
        on_deaf: Callable[[Attempt, Outcome | None], None],
        on_refused: Callable[[Attempt, ExecutorError], Backend | None],
    ) -> None:
        self.claim = claim
        self.backend = backend
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._emit = emit
        self._loop = loop
        self.task: asyncio.Task[Any] | None = None
        """The task that runs this attempt; set by who creates it."""
        self._stop: Stop | None = None
        self._heard: float | None = None
        self._first: int | None = None
        """When the first chunk came, in Unix milliseconds."""
        self._begun = False
        self._entered = False
        self._ended = False
        self._on_deaf = on_deaf
        self._on_refused = on_refused
        self.tried: tuple[Tried, ...] = ()
        """Backends that refused it before its first chunk."""
        self.refusal: ExecutorError | None = None
        """Why its last backend refused it before its first chunk, where another might not have."""
        self.abandoned = False
        """Its outcome was reported although the call still runs."""
        self._deadline: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None

    @property
    def set_its_own_clock(self) -> bool:
        """Whether it ran out of a time that the task itself had set: that says nothing of the backend."""
        spec = self.claim.task.spec
        return (self._stop == "timeout" and spec.timeout is not None) or (self._stop == "idle" and spec.idle_timeout is not None)

    def interrupt(self, why: Stop) -> None:
        """Cancel the running call; the first reason counts."""
        if self._stop is None and not self._ended:
            self._stop = why
            # A task that is cancelled before its first step never runs it, nor what must be put right at its end.
            if self._entered and self.task is not None:
                self.task.cancel()
            self._loop.call_later(_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        """The call swallowed its cancellation: the attempt ends without it, although its slot stays taken."""
        if not self._ended:
            self.abandoned = True
            self._on_deaf(self, self._interrupted())

    async def run(self) -> Outcome | None:
        """The outcome; None when the claim is void (cancelled or lost) and there is nothing to write."""
        self._entered = True
        try:
            if self._stop is not None:
                raise asyncio.CancelledError
            late = self._too_late()
            if late is not None:
                return late
            self._arm()
            try:
                answer = await self._perform()
            except Exception as error:  # noqa: BLE001 - what no other backend takes over is raised again
                answer = await self._perform_elsewhere(error)
            backend = self.backend
            return Outcome.completed(answer, backend=backend.name, remote=backend.remote, tried=self.tried, first=self._first)
        except asyncio.CancelledError:
            if self._stop is not None:
                return self._interrupted()
            if self.task is not None and self.task.cancelling():
                raise
            return self._failed(RuntimeError("the executor was cancelled from inside"))
        except BaseException as error:  # noqa: BLE001 - an attempt turns every exception into an outcome, a plugin's sys.exit() too
            return self._failed(error)
        finally:
            self._ended = True
            if self._deadline is not None:
                self._deadline.cancel()
            if self._silence is not None:
                self._silence.cancel()

    # steps -----------------------------------------------------------------------------------------------------------

    def _too_late(self) -> Outcome | None:
        spec, now = self.claim.task.spec, self._clock.read().wall
        if spec.start_deadline is not None and self.claim.attempt == 1 and now > spec.start_deadline:
            return Outcome.failed("expired", "its start_deadline passed before a slot was free", backend=self.backend.name)
        if spec.deadline is not None and now > spec.deadline:
            return Outcome.failed("expired", "its deadline passed before this attempt", backend=self.backend.name)
        return None

    async def _perform_elsewhere(self, error: Exception) -> Answer:
        """On other backends, one after the other, while each fails before its first chunk. Raises the last one's error."""
        while self._heard is None and self._goes_on(error):
            try:
                return await self._perform()
            except Exception as failure:  # noqa: BLE001 - as in `run`
                error = failure
        raise error

    def _goes_on(self, error: Exception) -> bool:
        """Whether another backend takes it over; `backend` is that one then."""
        verdict = verdict_on(error)
        if self._stop is not None or not may_pass_on(verdict, at_most_once=self.claim.task.spec.at_most_once):
            return False
        refused, self.refusal = self.backend, verdict
        other = self._on_refused(self, verdict)
        if other is None:
            return False
        self.tried += (Tried(refused.name, code_of(verdict), text_of(verdict)),)
        self.backend, self.refusal = other, None
        return True

    async def _perform(self) -> Answer:
        executor = await self.backend.ready()
        if self.backend.kind != self.claim.task.spec.executor:
            executor = self.backend.speaking(self.claim.task.spec.executor)
        call = self._call()
        kind = type(executor)
        if kind.preprocess is not Executor.preprocess:
            call = await executor.preprocess(call)
        try:
            answer = await self._stream(executor, call)
        except ExecutorError:
            raise
        except Exception as error:
            verdict = executor.classify(error)
            if isinstance(verdict, ExecutorError):
                raise verdict from error
            if verdict is None:
                raise
            answer = verdict
        if kind.postprocess is not Executor.postprocess:
            answer = await executor.postprocess(call, answer)
        return answer

    def _call(self) -> Call:
        task = self.claim.task
        spec = task.spec
        return Call(
            task_id=task.id,
            action=spec.action,
            model=spec.model,
            payload=spec.payload,
            options=spec.options,
            attempt=self.claim.attempt,
            timeout=self._timeout(),
            idle_timeout=self._idle_timeout(),
            stream=spec.stream,
            metadata=spec.metadata,
        )

    async def _stream(self, executor: Executor, call: Call) -> Answer:
        self._begun = True
        made: Any = executor.run(call)
        if isinstance(made, Awaitable):
            value = await made
            return checked(value, executor) if isinstance(value, Answer) else Answer(data=value)
        answer: Answer | None = None
        keep = call.stream
        if not isinstance(made, AsyncGenerator):
            kind = type(made).__name__
            raise PluginError(f"executor {executor.name} must run as a coroutine or an async generator; run returned {kind}")
        stream: AsyncGenerator[Any] = made
        async with aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Chunk) and answer is None and item.kind not in _OURS:
                    self._hear()
                    if keep:
                        self._emit(sound(item, executor))
                elif isinstance(item, Answer) and answer is None:
                    answer = item
                else:
                    raise PluginError(f"executor {executor.name} must yield Chunks and, last, one Answer; it yielded {item!r}")
        if answer is None:
            raise Unavailable(f"{executor.name}: the stream ended without its end mark", failure="server_error")
        return checked(answer, executor)

    # clocks ----------------------------------------------------------------------------------------------------------

    def _timeout(self) -> float | None:
        """Seconds this attempt may take: its own limit or the worker's, and never past the task's deadline."""
        spec = self.claim.task.spec
        limit = spec.timeout if spec.timeout is not None else self._rules.timeout
        if spec.deadline is not None:
            left = max(0.0, (spec.deadline - self._clock.read().wall) / 1000)
            limit = left if limit is None else min(limit, left)
        return limit

    def _arm(self) -> None:
        limit = self._timeout()
        if limit is not None:
            self._deadline = self._loop.call_later(limit, self.interrupt, "timeout")

    def _idle_timeout(self) -> float | None:
        spec = self.claim.task.spec
        return spec.idle_timeout if spec.idle_timeout is not None else self._rules.idle_timeout

    def _hear(self) -> None:
        """A chunk came; from the first one on, silence is watched."""
        first = self._heard is None
        self._heard = self._loop.time()
        if first:
            self._first = self._clock.read().wall
            if (idle := self._idle_timeout()) is not None:
                self._watch_silence(idle, self._heard)

    def _watch_silence(self, idle: float, heard: float) -> None:
        """One timer a length of silence, not one a chunk: it looks back and arms itself again."""
        heard = self._heard or heard
        silent = self._loop.time() - heard
        if silent >= idle:
            self.interrupt("idle")
            return
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._loop.call_later(max(idle - silent, 0.001), self._watch_silence, idle, heard)

    # endings ---------------------------------------------------------------------------------------------------------

    def _interrupted(self) -> Outcome | None:
        spec = self.claim.task.spec
        match self._stop:
            case "timeout":
                if spec.deadline is not None and self._clock.read().wall >= spec.deadline:
                    return Outcome.failed("expired", "its deadline passed while it ran", backend=self.backend.name)
                return self._decide(Unavailable(f"no end within the attempt's timeout of {self._timeout():g} s", failure="timeout"))
            case "idle":
                limit = self._idle_timeout()
                return self._decide(Unavailable(f"no chunk for the idle timeout of {limit:g} s", failure="timeout"))
            case "stopping" if spec.at_most_once and self._begun:
                error = "the worker stopped while it ran; at_most_once forbids another attempt"
                return Outcome.failed("lost", error, backend=self.backend.name)
            case "stopping":
                return Outcome.released(error="the worker stopped", backend=self.backend.name)
            case _:
                return None

    def _failed(self, error: BaseException) -> Outcome:
        try:
            return self._judged(error)
        except Exception as broken:  # noqa: BLE001 - a plugin's hook may raise anything
            log.error("attempt.error_without_sense", extra=self._about(error))  # noqa: TRY400 - its text may quote the prompt
            text = f"{type(error).__name__}, which could not be judged: {broken}"
            return Outcome.failed("internal", text_of(text), backend=self.backend.name)

    def _judged(self, error: BaseException) -> Outcome:
        if not isinstance(error, Exception):
            log.error("attempt.left_by_exit", extra=self._about(error))
            return self._decide(Reject(f"the executor left by {type(error).__name__}: {error}", failure="internal"))
        verdict = verdict_on(error)
        if verdict.failure == "internal" and not isinstance(error, ExecutorError | PluginError):
            log.warning("attempt.unexpected_error", extra=self._about(error))
        return self._decide(verdict)

    def _about(self, error: BaseException) -> dict[str, Any]:
        """For the log: which task, and where in the code it went wrong. The error's text may quote the prompt: the task keeps that."""
        where = "".join(traceback.format_tb(error.__traceback__))
        return {
            "task_id": self.claim.task.id,
            "attempt": self.claim.attempt,
            "backend": self.backend.name,
            "error": type(error).__name__,
            "traceback": where,
        }

    def _decide(self, error: ExecutorError) -> Outcome:
        task = self.claim.task
        text, code = text_of(error), code_of(error)
        error.args = (text if code == error.failure else f"{text} (failure {error.failure!r} is not a code)",)
        error.failure = code
        return decide(
            error,
            attempt=self.claim.attempt,
            failures=task.failures,
            max_retries=task.spec.max_retries,
            at_most_once=task.spec.at_most_once,
            now=self._clock.read().wall,
            policy=self._rules.retry,
            rng=self._rng,
            backend=self.backend.name,
        )


__all__ = ["Attempt", "AttemptRules", "Stop"]
