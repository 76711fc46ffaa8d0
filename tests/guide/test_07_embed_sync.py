"""Guide 7: the whole queue inside a program without an event loop, in five lines."""

from __future__ import annotations

import inferq


def test_five_lines_are_a_durable_queue(url: str) -> None:
    with inferq.connect(url) as queue:
        task = queue.chat("my-model", "Why is the sky blue?", executor="echo")
        for word in task.text_stream():
            print(word, end="")
        print(task.result().usage)
    assert task.id


def test_everything_else_is_called_as_in_the_asynchronous_queue(url: str) -> None:
    with inferq.connect(url) as queue:
        handles = [queue.chat("my-model", text, executor="echo", priority="high") for text in ("one", "two")]
        assert [handle.result(timeout="1m").text for handle in handles] == ["one", "two"]
        assert queue.stats().states["completed"] == 2
