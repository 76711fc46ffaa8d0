"""Runs executors: the two shapes of `run` made one, all hooks called, and a registry for use without the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from inferq.errors import Conflict, ExecutorError, InvalidTask, PluginError, Unavailable, UnknownAction, WrongState
from inferq.executor import Answer, Call, Chunk, Executor
from inferq.executors import loader
from inferq.task import new_id


async def produce(executor: Executor, call: Call) -> AsyncGenerator[Chunk | Answer]:
    """One call of `run`, whichever of its two shapes it has: chunks, then exactly one Answer.

    Raises what `run` raises; `Unavailable(failure="server_error")` when a stream ends without its Answer; `PluginError`
    when the executor breaks its contract. Close the generator (`contextlib.aclosing`) to close the backend call.
    """
    made: Any = executor.run(call)  # typed as Produced, but a plugin may return anything
    if isinstance(made, Awaitable):
        yield _answer(executor, await made)
        return
    if not isinstance(made, AsyncIterator):
        kind = type(made).__name__
        raise PluginError(f"{_name(executor)}.run must be a coroutine or an async generator, it returned {kind}")
    answer: Answer | None = None
    try:
        async for item in made:
            if answer is not None:
                kind = type(item).__name__
                raise PluginError(f"{_name(executor)}.run yielded {kind} after its Answer, which must be the last")
            if isinstance(item, Answer):
                answer = item
            elif isinstance(item, Chunk) and item.kind not in ("reset", "end"):
                yield item
            else:
                raise PluginError(f"{_name(executor)}.run must yield Chunks and last an Answer, it yielded {item!r}")
    finally:
        if isinstance(made, AsyncGenerator):
            await made.aclose()
    if answer is None:
        raise Unavailable(f"{executor.name}: the stream ended without its end mark", failure="server_error")
    yield answer


def _answer(executor: Executor, value: object) -> Answer:
    if isinstance(value, Answer):
        return value
    try:
        return Answer(data=msgspec.to_builtins(value))
    except TypeError as error:
        raise PluginError(f"{_name(executor)}.run must return an Answer or a JSON value: {error}") from None


def _name(executor: Executor) -> str:
    return type(executor).__name__


async def perform(executor: Executor, call: Call) -> AsyncGenerator[Chunk | Answer]:
    """`produce` with the executor's hooks around it; `classify` is asked about what is no `ExecutorError`."""
    call = await executor.preprocess(call)
    try:
        async with aclosing(produce(executor, call)) as items:
            async for item in items:
                yield await executor.postprocess(call, item) if isinstance(item, Answer) else item
    except (ExecutorError, PluginError):
        raise
    except Exception as error:
        verdict = executor.classify(error)
        if verdict is None:
            raise
        if isinstance(verdict, ExecutorError):
            raise verdict from error
        yield verdict


class _Place:
    """One registered executor and whether it was opened."""

    __slots__ = ("executor", "gate", "opened")

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.gate = asyncio.Lock()
        self.opened = False

    async def ready(self) -> Executor:
        if not self.opened:
            async with self.gate:
                if not self.opened:
                    await self.executor.open()
                    self.opened = True
        return self.executor


class Executors:
    """Executors by name, for direct use: no queue, no store, no retries.

        async with Executors() as executors:
            executors.register("echo")
            answer = await executors.execute("echo", "chat", payload={"messages": [{"role": "user", "content": "hi"}]})

    Registering, looking up and listing are safe from any thread; executing and closing belong to one event loop.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._closed = False

    async def __aenter__(self) -> Executors:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def register(self, executor: Executor | str, *, name: str | None = None, settings: Mapping[str, Any] | None = None) -> Executor:
        """Add an executor, or the installed one of that name made with `settings`, under `name` (default: its own).

        Raises `PluginError` when it is no executor, `Conflict` when the name is taken, `WrongState` after `close`.
        """
        made: object = loader.load(executor)(name or executor, settings) if isinstance(executor, str) else executor
        if not isinstance(made, Executor):
            raise PluginError(f"expected an Executor or the name of an installed one, got {made!r}")
        loader.checked(type(made), where=f"executor {made.name!r}")
        with self._lock:
            self._alive()
            key = name or made.name
            if key in self._places:
                raise Conflict(f"an executor called {key!r} is already registered; unregister it first")
            self._places[key] = _Place(made)
        return made

    async def unregister(self, name: str) -> None:
        """Take it out and close it. Raises `UnknownExecutor`."""
        with self._lock:
            place = self._place(name)
            del self._places[name]
        await place.executor.close()

    def get(self, name: str) -> Executor:
        """The executor of that name. Raises `UnknownExecutor`, or `WrongState` after `close`."""
        with self._lock:
            return self._place(name).executor

    def list(self) -> dict[str, tuple[str, ...]]:
        """The actions of every registered executor, by name."""
        with self._lock:
            return {name: tuple(place.executor.actions) for name, place in sorted(self._places.items())}

    def can_execute(self, name: str, action: str) -> bool:
        """Whether `execute(name, action)` would find both."""
        with self._lock:
            place = self._places.get(name)
            return place is not None and action in place.executor.actions

    def validate(self, name: str, action: str, *, payload: dict[str, Any] | None = None, model: str = "") -> Executor:
        """The checks before a run, in their order: executor, action, model, required fields, the executor's own.

        Raises `UnknownExecutor`, `UnknownAction` or `InvalidTask` with the field's path.
        """
        executor = self.get(name)
        payload = payload or {}
        if action not in executor.actions:
            known = ", ".join(executor.actions)
            raise UnknownAction(f"{name} does not know {action!r}; it knows {known}", field="action")
        if executor.needs_model and not model:
            raise InvalidTask(f"{name} needs the name of a model", field="model")
        for field in executor.required.get(action, ()):
            if payload.get(field) is None:
                raise InvalidTask(f"{name} {action} needs this field", field=f"payload.{field}")
        executor.validate(action, model, payload)
        return executor

    async def execute(
        self,
        name: str,
        action: str,
        *,
        payload: dict[str, Any] | None = None,
        model: str = "",
        options: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Run one action and wait for its answer. `timeout` is in seconds.

        Raises what `validate` raises before anything runs, then `ExecutorError`s; when the time is up it is
        `Unavailable(failure="timeout")`.
        """
        executor = self.validate(name, action, payload=payload, model=model)
        call = _call(action, model, payload, options=options, timeout=timeout, stream=False)
        try:
            async with asyncio.timeout(timeout):
                async with aclosing(perform(await self._ready(name), call)) as items:
                    async for item in items:
                        if isinstance(item, Answer):
                            return item
        except TimeoutError as error:
            raise Unavailable(f"{name} {action} took longer than {timeout} s", failure="timeout") from error
        raise Unavailable(f"{executor.name}: the stream ended without its end mark", failure="server_error")

    async def stream(
        self,
        name: str,
        action: str,
        *,
        payload: dict[str, Any] | None = None,
        model: str = "",
        options: dict[str, Any] | None = None,
    ) -> AsyncGenerator[Chunk | Answer]:
        """Run one action and yield its chunks as they come, then its answer. Raises as `execute`."""
        self.validate(name, action, payload=payload, model=model)
        call = _call(action, model, payload, options=options, timeout=None, stream=True)
        async with aclosing(perform(await self._ready(name), call)) as items:
            async for item in items:
                yield item

    async def close(self) -> None:
        """Close every executor, each even if another fails to; from then on everything raises `WrongState`."""
        with self._lock:
            self._closed = True
            places, self._places = list(self._places.values()), {}
        results = await asyncio.gather(*(place.executor.close() for place in places), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]

    async def _ready(self, name: str) -> Executor:
        with self._lock:
            place = self._place(name)
        return await place.ready()

    def _alive(self) -> None:
        if self._closed:
            raise WrongState("these executors are closed")

    def _place(self, name: str) -> _Place:
        self._alive()
        place = self._places.get(name)
        if place is None:
            raise loader.unknown(name, sorted(self._places))
        return place


def _call(
    action: str,
    model: str,
    payload: dict[str, Any] | None,
    *,
    options: dict[str, Any] | None,
    timeout: float | None,
    stream: bool,
) -> Call:
    return Call(new_id(), action, model, payload or {}, options or {}, timeout=timeout, stream=stream)
