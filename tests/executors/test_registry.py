"""Both shapes of `run`, every hook, and executors used without the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferq.errors import (
    Conflict,
    InvalidTask,
    PluginError,
    Reject,
    Unavailable,
    UnknownAction,
    UnknownExecutor,
    WrongState,
)
from inferq.executor import Answer, Call, Chunk, Executor
from inferq.executors import Executors, produce
from inferq.executors.echo import EchoExecutor

PLUGIN = Path(__file__).parent.parent / "plugin_package"


def asked(action: str = "go") -> Call:
    return Call("t1", action, "", {})


class Shout(Executor):
    actions = ("shout", "fail")
    required = {"shout": ("text",)}  # noqa: RUF012 - written as the documentation shows it

    def __init__(self, name: str = "shout", settings: dict[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        self.log: list[str] = []

    async def open(self) -> None:
        self.log.append("open")
        await asyncio.sleep(0)

    async def close(self) -> None:
        self.log.append("close")

    async def preprocess(self, call: Call) -> Call:
        self.log.append("preprocess")
        return call

    async def postprocess(self, call: Call, answer: Answer) -> Answer:
        self.log.append("postprocess")
        return answer

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        if payload.get("text") == "":
            raise InvalidTask("say something", field="payload.text")

    def classify(self, error: Exception) -> Reject | Answer | None:
        if isinstance(error, KeyError):
            return Reject("no such key", failure="not_found")
        return Answer(data="instead") if isinstance(error, ZeroDivisionError) else None

    async def run(self, call: Call) -> object:
        if call.action == "fail":
            raise call.payload["with"]
        return {"text": call.payload["text"].upper()}


# ── the shapes of run ───────────────────────────────────────────────────────────────────────────────────────────────


def executor_that(behaves: Any) -> Executor:
    return type("Made", (Executor,), {"actions": ("go",), "run": lambda self, call: behaves()})("made")


@pytest.mark.parametrize("value", [None, 3, "text", [1, {"a": None}], {"b": 1.5}])
async def test_a_coroutines_json_value_becomes_the_answers_data(value: object) -> None:
    async def run() -> object:
        return value

    assert [item async for item in produce(executor_that(run), asked())] == [Answer(data=value)]


async def test_a_coroutines_answer_stays_what_it_is() -> None:
    answer = Answer(text="done", finish_reason="stop")

    async def run() -> Answer:
        return answer

    assert [item async for item in produce(executor_that(run), asked())] == [answer]


async def test_a_stream_without_end_mark_is_a_failure() -> None:
    async def run() -> AsyncIterator[Chunk]:
        yield Chunk("text", "half")

    with pytest.raises(Unavailable, match="without its end mark") as caught:
        [item async for item in produce(executor_that(run), asked())]
    assert caught.value.failure == "server_error"


async def _two_answers() -> AsyncIterator[object]:
    yield Answer(text="one")
    yield Answer(text="two")


async def _late_chunk() -> AsyncIterator[object]:
    yield Answer(text="one")
    yield Chunk("text", "late")


async def _raw_text() -> AsyncIterator[object]:
    yield "text"


async def _forged_end() -> AsyncIterator[object]:
    yield Chunk("end", "completed")


async def _no_json() -> object:
    return object()


@pytest.mark.parametrize("run", [_two_answers, _late_chunk, _raw_text, _forged_end, _no_json, lambda: {"not": "async"}])
async def test_a_run_that_breaks_the_contract_is_a_plugin_error(run: Any) -> None:
    with pytest.raises(PluginError, match=r"Made\.run"):
        [item async for item in produce(executor_that(run), asked())]


async def test_closing_the_stream_closes_the_executors_generator() -> None:
    closed = []

    async def run() -> AsyncIterator[Chunk]:
        try:
            yield Chunk("text", "first")
            yield Chunk("text", "second")
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    items = produce(executor_that(run), asked())
    assert await anext(items) == Chunk("text", "first")
    await items.aclose()
    assert closed == [True]


# ── the registry ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_installed_executors_run_without_the_queue() -> None:
    async with Executors() as executors:
        executors.register("echo")
        payload = {"messages": [{"role": "user", "content": "good day"}]}
        answer = await executors.execute("echo", "chat", payload=payload)
        assert answer.text == "good day"
        streamed = [item async for item in executors.stream("echo", "chat", payload=payload)]
    assert [item.text for item in streamed] == ["good ", "day", "good day"]


async def test_one_kind_can_be_registered_under_several_names_with_its_own_settings() -> None:
    async with Executors() as executors:
        executors.register("echo", name="yes", settings={"text": "yes"})
        executors.register("echo", name="no", settings={"text": "no"})
        answers = [await executors.execute(name, "generate", payload={"prompt": "?"}) for name in ("yes", "no")]
        assert [answer.text for answer in answers] == ["yes", "no"]
        assert executors.list() == {"no": EchoExecutor.actions, "yes": EchoExecutor.actions}


async def test_every_hook_is_called_and_open_only_once() -> None:
    shout = Shout()
    async with Executors() as executors:
        executors.register(shout)
        answers = await asyncio.gather(*(executors.execute("shout", "shout", payload={"text": t}) for t in "ab"))
    assert [answer.data for answer in answers] == [{"text": "A"}, {"text": "B"}]
    assert shout.log[0] == "open"
    assert sorted(shout.log) == ["close", "open", "postprocess", "postprocess", "preprocess", "preprocess"]
    assert shout.log[-1] == "close"


async def test_checks_come_in_order_before_anything_runs() -> None:
    shout = Shout()
    async with Executors() as executors:
        executors.register(shout)
        with pytest.raises(UnknownExecutor, match="did you mean shout"):
            await executors.execute("shuot", "shout")
        with pytest.raises(UnknownAction, match="it knows shout, fail"):
            await executors.execute("shout", "whisper")
        with pytest.raises(InvalidTask) as missing:
            await executors.execute("shout", "shout", payload={"txt": "a"})
        assert missing.value.field == "payload.text"
        with pytest.raises(InvalidTask, match="say something"):
            await executors.execute("shout", "shout", payload={"text": ""})
        assert shout.log == []


async def test_foreign_exceptions_go_through_classify() -> None:
    async with Executors() as executors:
        executors.register(Shout())
        with pytest.raises(Reject) as caught:
            await executors.execute("shout", "fail", payload={"with": KeyError("x")})
        assert caught.value.failure == "not_found"
        answer = await executors.execute("shout", "fail", payload={"with": ZeroDivisionError()})
        assert answer.data == "instead"
        with pytest.raises(LookupError):
            await executors.execute("shout", "fail", payload={"with": LookupError("not classified")})


async def test_a_call_that_takes_too_long_is_ended() -> None:
    async with Executors() as executors:
        executors.register("echo")
        with pytest.raises(Unavailable) as caught:
            await executors.execute("echo", "echo", payload={"fail": ["hang"]}, timeout=0.02)
    assert caught.value.failure == "timeout"


async def test_names_are_taken_freed_and_gone_after_close() -> None:
    executors, shout = Executors(), Shout()
    executors.register(shout)
    with pytest.raises(Conflict, match="already registered"):
        executors.register(Shout())
    assert executors.can_execute("shout", "shout")
    assert not executors.can_execute("shout", "whisper")
    await executors.unregister("shout")
    assert shout.log == ["close"]
    assert not executors.can_execute("shout", "shout")
    with pytest.raises(UnknownExecutor):
        await executors.unregister("shout")
    await executors.close()
    for use in (lambda: executors.get("shout"), lambda: executors.register(Shout())):
        with pytest.raises(WrongState, match="closed"):
            use()


@pytest.mark.parametrize("thing", [None, 3, Executor("bare")])
def test_what_is_no_executor_cannot_be_registered(thing: Any) -> None:
    with pytest.raises(PluginError):
        Executors().register(thing)


async def test_closing_closes_every_executor_even_if_one_fails_to() -> None:
    class Stuck(Shout):
        async def close(self) -> None:
            raise OSError("stuck")

    executors, fine = Executors(), Shout()
    executors.register(Stuck("a"))
    executors.register(fine, name="b")
    with pytest.raises(OSError, match="stuck"):
        await executors.close()
    assert fine.log == ["close"]


async def test_threads_may_register_and_list_at_once() -> None:
    executors = Executors()
    failures: list[Exception] = []

    def work(which: int) -> None:
        try:
            for number in range(50):
                executors.register(Shout(f"{which}-{number}"))
                executors.list()
        except Exception as error:  # noqa: BLE001 - anything at all is the failure looked for
            failures.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(executors.list()) == 200
