"""Waiting for a condition in a test: as short as the condition allows, and loud when it never comes true."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(condition: Callable[[], T | Awaitable[T]], *, timeout: float = 10.0, every: float = 0.005, what: str = "") -> T:
    """Ask `condition` (sync or async) until it is true and return what it gave; `timeout` and `every` are seconds.

    Raises AssertionError, so that the test fails, when it is still false at the end; `what` says what was waited for. The condition
    is asked once more after the time is up: a machine that was busy for all of it fails no test whose condition holds.
    """
    until = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= until
        found = condition()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if late:
            raise AssertionError(f"expected {what or 'the condition to come true'} within {timeout} s; last seen: {value!r}")
        await asyncio.sleep(every)
