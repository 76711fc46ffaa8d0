"""Guide 7: the whole queue inside a program without an event loop, in five lines."""

from __future__ import annotations

from pathlib import Path

import inferq
from inferq.testing import EchoExecutor


def test_five_lines_are_a_durable_queue(tmp_path: Path) -> None:
    with inferq.connect(f"sqlite:///{tmp_path / 'inferq.db'}") as queue:
        task = queue.chat("my-model", "Why is the sky blue?", executor="echo")
        for word in task.text_stream():
            print(word, end="")
        print(task.result().usage)
    assert task.id


def test_everything_else_is_called_as_in_the_asynchronous_queue(tmp_path: Path) -> None:
    with inferq.Queue(f"sqlite:///{tmp_path / 'inferq.db'}", backends=[EchoExecutor("echo")]) as queue:
        handles = [queue.chat("my-model", text, executor="echo", priority="high") for text in ("one", "two")]
        assert [handle.result(timeout="1m").text for handle in handles] == ["one", "two"]
        assert queue.stats().states["completed"] == 2
