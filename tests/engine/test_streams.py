"""The chunk log: whoever attaches, whenever and wherever, reads every chunk of it once and in order, and then its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from places import Does, Gated

from inferq import Answer, Call, Chunk, LoggedChunk, Position, TaskNotFound, Unavailable
from inferq.errors import StoreClosed
from inferq.testing import wait_until

END = Chunk("end", "completed")


class Talker(Does):
    """Says its words, one more each time the test lets it; `said` words are out at once."""

    def __init__(self, *words: str, said: int = 0) -> None:
        super().__init__(self._talk, "talker")
        self.words = words
        self.turn = asyncio.Semaphore(said)
        self.spoken = 0

    def go_on(self, words: int = 1000) -> None:
        for _ in range(words):
            self.turn.release()

    async def _talk(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        for word in self.words:
            await self.turn.acquire()
            yield Chunk("text", word)
            self.spoken += 1
        await self.turn.acquire()
        yield Answer(text="".join(self.words))


async def read(stream: AsyncIterator[LoggedChunk]) -> list[Chunk]:
    return [logged.chunk async for logged in stream]


def texts(*words: str) -> list[Chunk]:
    return [*(Chunk("text", word) for word in words), END]


async def test_a_follower_that_attaches_before_the_start_reads_everything(opened: Any) -> None:
    talker = Talker("a", "b", "c")
    queue = await opened(talker)
    await queue.pause()
    handle = await queue.submit("talker", "work", stream=True)
    reading = asyncio.create_task(read(handle.stream()))
    talker.go_on()
    await queue.resume()
    assert await reading == texts("a", "b", "c")


async def test_a_follower_that_attaches_in_the_middle_reads_everything(opened: Any) -> None:
    talker = Talker("a", "b", "c", said=2)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    await wait_until(lambda: talker.spoken == 2)
    reading = asyncio.create_task(read(handle.stream()))
    talker.go_on()
    assert await reading == texts("a", "b", "c")


async def test_a_follower_that_attaches_after_the_end_reads_everything(opened: Any) -> None:
    talker = Talker("a", "b", "c", said=1000)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    await handle.result()
    assert await read(handle.stream()) == texts("a", "b", "c")
    assert await read(handle.stream()) == texts("a", "b", "c"), "reading takes nothing away"


async def test_chunks_arrive_while_the_task_runs(opened: Any) -> None:
    talker = Talker("a", "b")
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    stream = handle.stream()
    for word in "ab":
        talker.go_on(1)
        assert (await anext(stream)).chunk == Chunk("text", word)
    talker.go_on(1)
    assert (await anext(stream)).chunk == END
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_any_number_of_followers_read_the_same(opened: Any) -> None:
    words = [f"{number} " for number in range(300)]
    talker = Talker(*words)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    readers = [asyncio.create_task(read(handle.stream())) for _ in range(20)]
    talker.go_on()
    for chunks in await asyncio.gather(*readers):
        assert chunks == texts(*words)


async def test_reading_can_be_resumed_after_every_position(opened: Any) -> None:
    words = [f"{number} " for number in range(12)]
    talker = Talker(*words, said=1000)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    await handle.result()
    whole = [logged async for logged in handle.stream()]
    assert [logged.position for logged in whole] == sorted({logged.position for logged in whole})
    for number, logged in enumerate(whole[:-1]):
        assert [entry async for entry in handle.stream(after=logged.position)] == whole[number + 1 :]


async def test_reading_after_the_end_of_an_ended_task_ends_at_once(opened: Any) -> None:
    talker = Talker("a", said=1000)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    whole = [logged async for logged in handle.stream()]
    assert await asyncio.wait_for(read(handle.stream(after=whole[-1].position)), 5) == []


async def test_reading_can_be_resumed_while_the_task_runs(opened: Any) -> None:
    talker = Talker("a", "b", "c", said=2)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    first = await anext(handle.stream())
    assert first.chunk == Chunk("text", "a")
    reading = asyncio.create_task(read(handle.stream(after=first.position)))
    talker.go_on()
    assert await reading == texts("b", "c")


async def test_a_slow_reader_holds_nobody_up_and_loses_nothing(opened: Any) -> None:
    words = [f"{number} " for number in range(6000)]  # more than a follower keeps in memory
    talker = Talker(*words)
    talker.go_on(7000)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    stream = handle.stream()
    seen = [(await anext(stream)).chunk]
    await handle.result(timeout=30)
    seen += await read(stream)
    assert seen == texts(*words)


async def test_a_new_attempt_begins_with_a_reset_and_the_text_is_the_last_attempts(opened: Any) -> None:
    async def second_time(call: Call) -> AsyncIterator[Chunk | Answer]:
        yield Chunk("text", f"try {call.attempt}")
        if call.attempt == 1:
            raise Unavailable("cut", failure="server_error")
        yield Answer(text=f"try {call.attempt}")

    does = Does(second_time)
    queue = await opened(does)
    handle = await queue.submit("does", "work", stream=True)
    chunks = await read(handle.stream())
    assert [(chunk.kind, chunk.text) for chunk in chunks] == [("text", "try 1"), ("reset", ""), ("text", "try 2"), ("end", "completed")]
    assert chunks[1].data["attempt"] == 2
    assert (await handle.result()).text == "try 2"


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_the_end_says_how_it_ended(opened: Any, how: str) -> None:
    gated = Gated()
    queue = await opened(gated)
    handle = await queue.submit("gated", "work", stream=True, timeout=0.05 if how == "failed" else None, max_retries=0)
    await wait_until(lambda: gated.running == 1 or gated.cancelled)
    if how == "cancelled":
        await handle.cancel()
    assert await read(handle.stream()) == [Chunk("end", how)]


async def test_every_kind_of_chunk_is_kept_as_it_was_said(opened: Any) -> None:
    said = [
        Chunk("thinking", "hm"),
        Chunk("text", "zwölf 🦆\n"),
        Chunk("tool_calls", data=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]),
        Chunk("stdout", "out"),
        Chunk("stderr", "err"),
        Chunk("data", data={"n": [1, None, 2.5]}),
    ]

    async def says(call: Call) -> AsyncIterator[Chunk | Answer]:
        for chunk in said:
            yield chunk
        yield Answer(text="done")

    does = Does(says)
    queue = await opened(does)
    handle = await queue.submit("does", "work", stream=True)
    assert await read(handle.stream()) == [*said, END]


async def test_a_task_that_nobody_watches_keeps_no_chunks(opened: Any) -> None:
    talker = Talker("a", "b", said=1000)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=False)
    assert (await handle.result()).text == "ab"
    assert await read(handle.stream()) == [END]


async def test_text_stream_gives_the_answers_text_only(opened: Any) -> None:
    async def says(call: Call) -> AsyncIterator[Chunk | Answer]:
        yield Chunk("thinking", "hm")
        yield Chunk("text", "yes")
        yield Answer(text="yes")

    does = Does(says)
    queue = await opened(does)
    handle = await queue.submit("does", "work", stream=True)
    assert [text async for text in handle.text_stream()] == ["yes"]


async def test_a_stream_that_another_queue_writes_is_followed_here(opened: Any, tmp_path: Any) -> None:
    words = [f"{number} " for number in range(200)]
    talker = Talker(*words)
    await opened(talker, url=tmp_path / "q.db")
    reader = await opened(talker, url=tmp_path / "q.db", work=False)
    handle = await reader.submit("talker", "work", stream=True)
    stream = handle.stream()
    talker.go_on(100)
    seen = [(await anext(stream)).chunk for _ in range(100)]
    talker.go_on(1000)
    seen += await read(stream)
    assert seen == texts(*words)


async def test_a_log_outlives_the_queue_that_wrote_it(opened: Any, tmp_path: Any) -> None:
    talker = Talker("a", "b", said=1000)
    queue = await opened(talker, url=tmp_path / "q.db")
    handle = await queue.submit("talker", "work", stream=True)
    await handle.result()
    await queue.close()
    again = await opened(talker, url=tmp_path / "q.db", work=False)
    assert await read(again.handle(handle.id).stream()) == texts("a", "b")


async def test_an_unknown_task_has_no_stream(opened: Any) -> None:
    queue = await opened(Gated())
    with pytest.raises(TaskNotFound):
        await anext(queue.stream("nobody", after=Position()))


async def test_a_follower_is_told_when_the_queue_closes_before_the_end(opened: Any) -> None:
    talker = Talker("a", "b", said=1)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    stream = handle.stream()
    assert (await anext(stream)).chunk == Chunk("text", "a")
    reading = asyncio.create_task(read(stream))
    await wait_until(lambda: queue._hub._streams.get(handle.id))
    await queue.close(0)
    with pytest.raises(StoreClosed):
        await reading


async def test_a_reader_that_leaves_early_leaves_nothing_behind(opened: Any) -> None:
    talker = Talker("a", "b", said=1)
    queue = await opened(talker)
    handle = await queue.submit("talker", "work", stream=True)
    async for _ in (stream := handle.stream()):
        break
    await stream.aclose()
    await wait_until(lambda: queue._hub._streams == {})
