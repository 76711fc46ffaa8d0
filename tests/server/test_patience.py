"""One time limit for many waits."""

from __future__ import annotations

import asyncio

import pytest

from inferq.server.patience import Patience
from inferq.testing import wait_until


async def test_what_takes_too_long_is_cancelled_and_named_so() -> None:
    patience = Patience(0.01)
    with pytest.raises(TimeoutError):
        await patience.wait(asyncio.Event().wait())
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_what_is_quick_gives_its_value_however_many_wait() -> None:
    patience = Patience(30)

    async def one(number: int) -> int:
        await asyncio.sleep(0)
        return await patience.wait(asyncio.sleep(0, number))

    assert await asyncio.gather(*(one(number) for number in range(1000))) == list(range(1000))


async def test_only_those_who_waited_too_long_are_ended() -> None:
    patience = Patience(0.05)
    done = asyncio.Event()
    late = [asyncio.create_task(patience.wait(asyncio.Event().wait())) for _ in range(10)]
    quick = [asyncio.create_task(patience.wait(done.wait())) for _ in range(10)]
    await asyncio.sleep(0)
    done.set()
    found = await asyncio.gather(*late, *quick, return_exceptions=True)

    assert [type(value) for value in found] == [TimeoutError] * 10 + [bool] * 10


async def test_a_cancel_from_outside_is_a_cancel() -> None:
    patience = Patience(30)
    task = asyncio.create_task(patience.wait(asyncio.Event().wait()))
    await wait_until(lambda: bool(patience._waiting))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not patience._waiting
