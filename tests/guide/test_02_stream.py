"""Guide 2: read an answer while it is written, from the start, from the middle, or again."""

from __future__ import annotations

from inferq import AsyncQueue


async def test_read_the_words_as_they_come(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "one two three", executor="echo")
    words = [word async for word in task.text_stream()]
    assert words == ["one ", "two ", "three"]


async def test_a_stream_can_be_read_again_after_the_end(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "one two three", executor="echo")
    await task.result()
    assert "".join([word async for word in task.text_stream()]) == "one two three"


async def test_every_stream_ends_with_one_record_that_says_how(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "one", executor="echo")
    chunks = [entry.chunk async for entry in task.stream()]
    assert [(chunk.kind, chunk.text) for chunk in chunks] == [("text", "one"), ("end", "completed")]


async def test_a_reader_that_was_cut_off_goes_on_where_it_was(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "one two three", executor="echo")
    async for entry in task.stream():
        place = entry.position  # keep it, anywhere: it is two numbers
        break
    rest = [entry.chunk.text async for entry in task.stream(after=place) if entry.chunk.kind == "text"]
    assert rest == ["two ", "three"]


async def test_a_new_attempt_takes_back_what_the_failed_one_said(queue: AsyncQueue) -> None:
    task = await queue.chat("my-model", "one two", executor="echo", payload={"fail": [{"cut_after": 1}]})
    kinds = [(entry.chunk.kind, entry.chunk.text) async for entry in task.stream()]
    assert kinds == [("text", "one "), ("reset", ""), ("text", "one "), ("text", "two"), ("end", "completed")]
    assert (await task.result()).text == "one two"
