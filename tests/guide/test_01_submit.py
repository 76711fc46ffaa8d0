"""Guide 1: submit a task and get its result."""

from __future__ import annotations

import pytest

import inferq
from inferq import AsyncQueue, InvalidTask, State


async def test_ask_a_model_and_wait_for_its_answer(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "Why is the sky blue?", executor="echo")
    result = await task.result()
    assert result.text == "Why is the sky blue?"


async def test_a_chat_may_have_many_messages_and_a_system(queue: AsyncQueue) -> None:
    said = [
        {"role": "user", "content": "Hello, how are you?"},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "Good."},
    ]
    task = await queue.chat("my-model", said, system="Be brief.", executor="echo", options={"temperature": 0})
    assert (await task.result()).message == {"role": "assistant", "content": "Good."}


async def test_generate_completes_a_prompt(queue: AsyncQueue) -> None:
    task = await queue.generate("my-model", "Once upon a time", executor="echo", max_retries=0)
    assert (await task.result()).text == "Once upon a time"


async def test_embed_gives_one_vector_a_text(queue: AsyncQueue) -> None:
    result = await (await queue.embed("my-model", ["one", "two", "one"], executor="echo")).result()
    assert result.embeddings is not None
    assert result.embeddings[0] == result.embeddings[2] != result.embeddings[1]


async def test_any_executors_action_goes_through_the_same_door(queue: AsyncQueue) -> None:
    task = await queue.submit("echo", "echo", payload={"anything": [1, 2, 3]})
    assert (await task.result()).data == {"anything": [1, 2, 3]}


async def test_awaiting_a_handle_is_awaiting_its_result(queue: AsyncQueue) -> None:
    result = await (await queue.chat("my-model", "hi", executor="echo"))
    assert (result.text, result.attempts, result.finish_reason) == ("hi", 1, "stop")
    assert result.usage is not None
    assert result.usage.total_tokens == 2


async def test_a_submitted_task_is_on_disk_and_survives_the_program(url: str) -> None:
    async with inferq.aconnect(url, work=False) as door:
        id = (await door.chat("my-model", "Are you still there?", executor="echo")).id
    later = await inferq.aconnect(url)
    assert (await later.handle(id).result()).text == "Are you still there?"
    await later.close()


async def test_a_task_tells_how_it_stands(queue: AsyncQueue) -> None:
    handle = await queue.chat("my-model", "hi", executor="echo", tags=["demo"], metadata={"user": 7})
    await handle.wait()
    task = await handle.refresh()
    assert task.state is State.COMPLETED
    assert (task.executor, task.action, task.model, task.spec.tags) == ("echo", "chat", "my-model", ["demo"])


async def test_a_mistake_is_refused_at_once_and_says_where_it_is(queue: AsyncQueue) -> None:
    with pytest.raises(InvalidTask) as caught:
        await queue.chat("my-model", "hi", executor="echo", priority="urgent")
    assert caught.value.field == "priority"
    assert "low, normal, high, critical" in str(caught.value)
