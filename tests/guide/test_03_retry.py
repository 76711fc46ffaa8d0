"""Guide 3: what happens when a backend fails. The `fail` list scripts the pretended model: one entry an attempt."""

from __future__ import annotations

import pytest

from inferq import AsyncQueue, State, TaskFailed


async def test_a_failure_that_may_pass_is_tried_again(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["connect", "server_error"]})
    result = await task.result()
    assert (result.text, result.attempts) == ("hi", 3)
    outcomes = [(record.outcome, record.code) for record in await queue.attempts(task.id)]
    assert outcomes == [("retry", "connect"), ("retry", "server_error"), ("completed", None)]


async def test_a_failure_that_cannot_pass_ends_the_task_at_once(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["context_length"]})
    with pytest.raises(TaskFailed) as caught:
        await task.result()
    assert (caught.value.failure, caught.value.attempts) == ("context_length", 1)


async def test_a_full_backend_costs_no_attempt(queue: AsyncQueue) -> None:
    full = {"code": "rate_limited", "after": 0.01}
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": [full, full]}, max_retries=0)
    assert (await task.result()).text == "hi"
    assert (await task.refresh()).failures == 0


async def test_max_retries_0_means_one_attempt(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["server_error"]}, max_retries=0)
    ended = await task.wait()
    assert (ended.state, ended.code, ended.attempt) == (State.FAILED, "server_error", 1)


async def test_a_failed_task_can_be_made_again_by_hand(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["server_error"]}, max_retries=0)
    await task.wait()
    await task.retry()
    assert (await task.result()).attempts == 2


async def test_a_task_that_must_not_run_twice_says_so(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "hi", executor="echo", payload={"fail": ["connect"]}, at_most_once=True)
    ended = await task.wait()
    assert (ended.state, ended.code) == (State.FAILED, "lost")
