"""An executor of one dialect that runs tasks submitted for another: Ollama's on a server that speaks OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from inferq.errors import ExecutorError
from inferq.executor import Answer, Call, Chunk, Executor
from inferq.executors.loader import load
from inferq.executors.registry import perform
from inferq.wire import bridge


class OllamaOnOpenAI(Executor):
    """Takes what an Ollama backend takes and answers in its shape; `executor` speaks OpenAI's API and does the work."""

    dialect = "ollama"

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor.name, executor.settings)
        self._executor = executor
        self._native = load("ollama")(executor.name, {})
        self.address = executor.address
        # What may be submitted is decided by the task's own dialect.
        self.actions = self._native.actions  # type: ignore[misc]
        self.required = self._native.required  # type: ignore[misc]
        self.needs_model = self._native.needs_model  # type: ignore[misc]

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        self._native.validate(action, model, payload)

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        """Raises Untranslatable before anything is sent."""
        async with aclosing(perform(self._executor, bridge.to_openai(call))) as items:
            async for item in items:
                if isinstance(item, Answer):
                    answer = bridge.to_ollama(item, call.action)
                    if (calls := bridge.tool_calls_of(answer)) is not None:
                        yield calls
                    yield answer
                elif item.kind != "tool_calls":
                    # They come in pieces; Ollama tells them whole.
                    yield item

    def classify(self, error: Exception) -> ExecutorError | Answer | None:
        return self._executor.classify(error)


def speaking(executor: Executor, kind: str) -> Executor:
    """The executor, or a bridge to it where it does not speak the dialect of tasks for executor `kind`."""
    if executor.dialect == "openai" and kind == "ollama":
        return OllamaOnOpenAI(executor)
    return executor
