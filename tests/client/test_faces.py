"""A queue here and a queue behind a server are one interface: what works embedded works remotely with only the address changed."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from inferq import AsyncClient, AsyncQueue, Client, Handle, Queue
from inferq.door import AsyncDoor

ENGINE = {
    "check_over_http", "discover", "places", "reconfigure", "retry_after", "run_until_stopped",
    "settings", "start_work", "stop", "store",
}  # fmt: skip
"""What only a queue has that runs tasks in this process."""
CARRIER = {"transport", "asynchronous", "begin", "call", "tell"}
"""How a face is built, not what it offers."""
GROUPS = {"schedules", "batches", "webhooks", "keys", "backends", "operations", "archive"}
"""Methods in groups, which are compared as groups."""
PAIRS = [pytest.param(AsyncQueue, AsyncClient, id="async"), pytest.param(Queue, Client, id="blocking")]


def offered(face: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cls in reversed(face.__mro__):
        if cls.__module__.startswith("inferq."):
            found |= {name: value for name, value in vars(cls).items() if not name.startswith("_")}
    return {name: value for name, value in found.items() if name not in ENGINE | CARRIER | GROUPS}


def shape(method: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    """Name, kind, default and type of each parameter, and the type of the answer."""
    hints = typing.get_type_hints(method)
    made = [(p.name, p.kind, p.default, hints.get(p.name)) for p in inspect.signature(method).parameters.values()]
    return [*made, ("return", None, None, _plain(hints.get("return")))]


def _plain(answer: Any) -> Any:
    """An asynchronous generator is an iterator to whoever reads it."""
    origin = typing.get_origin(answer)
    return (AsyncIterator, typing.get_args(answer)[0]) if isinstance(origin, type) and issubclass(origin, AsyncIterator) else answer


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_both_have_the_same_methods(here: type, there: type) -> None:
    assert sorted(offered(here)) == sorted(offered(there))


METHODS = [
    pytest.param(getattr(here, name), getattr(there, name), id=f"{there.__name__}.{name}")
    for here, there in ((AsyncQueue, AsyncClient), (Queue, Client))
    for name in sorted(set(offered(here)) & set(offered(there)))
    if inspect.isfunction(getattr(here, name))
]


@pytest.mark.parametrize(("here", "there"), METHODS)
def test_a_method_takes_and_gives_the_same_types(here: Callable[..., Any], there: Callable[..., Any]) -> None:
    assert shape(here) == shape(there)
    assert inspect.iscoroutinefunction(here) == inspect.iscoroutinefunction(there)


def test_a_task_in_the_hand_works_with_either() -> None:
    assert issubclass(AsyncQueue, AsyncDoor)
    assert issubclass(AsyncClient, AsyncDoor)
    assert inspect.signature(Handle.__init__).parameters["queue"].annotation == "Submitting[Any]"


def methods(face: type) -> dict[str, Any]:
    return {name: value for name, value in offered(face).items() if inspect.isfunction(value)}


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize("group", sorted(GROUPS))
async def test_each_group_of_methods_is_the_same_here_there_and_blocking(group: str) -> None:
    async with AsyncQueue("sqlite://:memory:", work=False) as here, AsyncClient("http://127.0.0.1:1") as there:
        near, far = type(getattr(here, group)), type(getattr(there, group))
    (door,) = {cls for cls in near.__mro__ if cls.__module__ == f"inferq.door.{group}"} & set(far.__mro__)
    wanted = methods(door)
    assert wanted
    for face in (near, far):
        assert set(wanted) <= set(methods(face))
        for name, method in wanted.items():
            taken, asked = parameters(methods(face)[name]), parameters(method)
            # What a server tells its own queue besides is nothing that a caller needs to give.
            assert [one for one in taken if one in asked] == asked
            assert all(default is not inspect.Parameter.empty for _, _, default in taken[len(asked) :])

    def blocking() -> tuple[type, type]:
        with Queue("sqlite://:memory:", work=False) as queue, Client("http://127.0.0.1:1") as client:
            return type(getattr(queue, group)), type(getattr(client, group))

    plain, plain_client = await asyncio.to_thread(blocking)
    assert plain is plain_client
    # What takes an asynchronous iterator is of no use to a program without an event loop.
    usable = {name: parameters(method) for name, method in wanted.items() if "AsyncI" not in str(method.__annotations__)}
    assert {name: parameters(value) for name, value in methods(plain).items()} == usable
