"""A real model in a managed child process: it answers, dies, comes back and never outlives its parent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import math
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from inferq.errors import ConfigError, InferqError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Chunk
from inferq.executors import models, produce
from inferq.executors.llamacpp import LlamaCppExecutor, models_dir, pull

SMOL = "smollm2-135m-instruct"
HELLO = {"messages": [{"role": "user", "content": "Say hello."}]}


def absent(reason: str) -> None:
    """What is needed is not here: a loud skip, or a failure where the real thing is required."""
    if os.environ.get("INFERQ_E2E") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def model() -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        absent("xllamacpp is not installed (extra: local)")
    try:
        return pull("smollm2")
    except InferqError as error:
        absent(str(error))
        raise


Make = Callable[..., LlamaCppExecutor]


@pytest.fixture
async def make(model: Path) -> AsyncIterator[Make]:
    made: list[LlamaCppExecutor] = []

    def one(**settings: Any) -> LlamaCppExecutor:
        made.append(LlamaCppExecutor("local", {"threads": 1, **settings}))
        return made[-1]

    yield one
    for executor in made:
        await executor.close()


def call(payload: dict[str, Any] = HELLO, action: str = "chat", model: str = "smollm2", **more: Any) -> Call:
    return Call("t1", action, model, payload, **{"options": {"max_tokens": 8, "temperature": 0}, **more})


async def answer_of(executor: LlamaCppExecutor, asked: Call) -> Answer:
    items = [item async for item in produce(executor, asked)]
    assert isinstance(items[-1], Answer)
    return items[-1]


def children(pid: int | str = "self") -> set[int]:
    """The model servers that a process runs now."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in found if b"llamacpp_server" in _command(child)}


def _command(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


async def until(condition: Callable[[], bool], within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# ── with the real model ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.e2e
async def test_a_chat_streams_from_the_real_model(make: Make) -> None:
    items = [item async for item in produce(make(), call())]
    answer = items[-1]
    assert isinstance(answer, Answer)
    texts = [item.text for item in items if isinstance(item, Chunk) and item.kind == "text"]
    assert len(texts) > 1
    assert "".join(texts) == answer.text
    assert answer.message is not None
    assert answer.message["role"] == "assistant"
    assert answer.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 1 <= (answer.usage.output_tokens or 0) <= 8


@pytest.mark.e2e
async def test_generate_and_embed_work_on_the_same_server(make: Make) -> None:
    executor = make()
    written = await answer_of(executor, call({"prompt": "Once upon a time"}, "generate"))
    assert written.text
    vectors = (await answer_of(executor, call({"input": ["cat", "dog", "cat"]}, "embed", options={}))).embeddings
    assert vectors is not None
    assert [len(vector) for vector in vectors] == [576] * 3
    assert all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(vectors[0], vectors[2], strict=True))
    assert len(children()) == 1


@pytest.mark.e2e
async def test_calls_share_one_server_and_closing_ends_it(make: Make) -> None:
    executor = make(slots=2)
    await asyncio.gather(*(answer_of(executor, call()) for _ in range(4)))
    (pid,) = children()
    await executor.close()
    assert gone(pid)
    assert (await answer_of(executor, call())).text  # and a later call would start a new one


@pytest.mark.e2e
async def test_a_server_that_is_killed_fails_its_calls_and_is_started_again(make: Make) -> None:
    executor = make()
    long = call({"messages": [{"role": "user", "content": "Count to a thousand."}]}, options={"max_tokens": 2000})
    async with aclosing(produce(executor, long)) as items:
        assert isinstance(await anext(items), Chunk)
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="was killed by SIGKILL; the next call starts it again") as caught:
            [item async for item in items]
    assert caught.value.sent
    assert (await answer_of(executor, call())).text
    assert children() != {pid}


@pytest.mark.e2e
async def test_a_server_that_died_between_calls_is_not_noticed_by_the_next(make: Make) -> None:
    executor = make()
    await answer_of(executor, call())
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert (await answer_of(executor, call())).text


@pytest.mark.e2e
async def test_the_server_dies_with_its_parent_even_when_that_is_killed(model: Path) -> None:
    program = (
        "import asyncio\nfrom inferq.executor import Call\nfrom inferq.executors import produce\n"
        "from inferq.executors.llamacpp import LlamaCppExecutor\n"
        "async def main():\n"
        "    asked = Call('t', 'chat', 'smollm2', {'messages': [{'role': 'user', 'content': 'hi'}]}, {'max_tokens': 2})\n"
        "    async for item in produce(LlamaCppExecutor('local'), asked): pass\n"
        "    print('ready', flush=True)\n    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    assert await asyncio.wait_for(parent.stdout.readline(), 60) == b"ready\n"
    (pid,) = children(parent.pid)
    assert not gone(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: gone(pid))


@pytest.mark.e2e
async def test_cancelling_while_it_starts_leaves_no_server(make: Make) -> None:
    task = asyncio.create_task(answer_of(make(), call()))
    await until(lambda: bool(children()))
    (pid,) = children()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: gone(pid))


@pytest.mark.e2e
async def test_another_model_takes_the_place_of_an_idle_one_and_waits_for_a_busy_one(
    make: Make, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        shutil.copy(model, tmp_path / f"{name}.gguf")
    monkeypatch.setenv("INFERQ_MODELS_DIR", str(tmp_path))
    executor = make()
    async with aclosing(produce(executor, call(model="one", options={"max_tokens": 2000}))) as items:
        await anext(items)
        with pytest.raises(RetryLater, match="two waits until one is done") as caught:
            await answer_of(executor, call(model="two"))
        assert caught.value.failure == "overloaded"
    (first,) = children()
    assert (await answer_of(executor, call(model="two"))).text
    assert children() != {first}
    assert len(children()) == 1
    assert await executor.models() == ["one", "two"]


@pytest.mark.e2e
async def test_a_prompt_longer_than_the_context_is_told_as_such(make: Make) -> None:
    words = {"messages": [{"role": "user", "content": "word " * 600}]}
    with pytest.raises(Reject) as caught:
        await answer_of(make(context=256), call(words))
    assert caught.value.failure == "context_length"


@pytest.mark.e2e
async def test_a_file_that_is_no_model_is_refused_with_the_servers_words(make: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Reject, match=r"(?s)broken exited with code 4 while it started: .*load") as caught:
        await answer_of(make(model=str(tmp_path / "broken.gguf")), call(model="broken"))
    assert caught.value.failure == "internal"
    assert children() == set()


@pytest.mark.e2e
async def test_health_names_what_can_be_served_without_starting_it(make: Make) -> None:
    health = await make().health()
    assert health.ok
    assert SMOL in health.detail
    assert SMOL in await make().models()
    assert children() == set()


# ── refusals that need no model ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERQ_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


async def test_a_model_that_is_not_here_says_how_to_get_it(empty: Path) -> None:
    executor = LlamaCppExecutor("local")
    with pytest.raises(Reject, match="inferq models pull smollm2") as caught:
        await answer_of(executor, call())
    assert caught.value.failure == "model_not_found"
    with pytest.raises(Reject, match=f"put its GGUF file into {empty}"):
        await answer_of(executor, call(model="llama"))
    health = await executor.health()
    assert (health.ok, "inferq models pull smollm2" in health.detail) == (False, True)


async def test_a_task_may_not_name_a_file(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(Reject, match="expected a model's name, got the path"):
        await answer_of(LlamaCppExecutor("local"), call(model=str(tmp_path / "x.gguf")))


async def test_a_backend_with_one_model_refuses_others(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    executor = LlamaCppExecutor("local", {"model": str(tmp_path / "mine.gguf")})
    with pytest.raises(Reject, match=r"mine\.gguf only, not 'other'"):
        await answer_of(executor, call(model="other"))


async def test_without_the_extra_the_reader_is_told_what_to_install(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Reject, match=r"pip install 'inferq\[local\]'"):
        await answer_of(LlamaCppExecutor("local"), call())


def test_the_payload_is_checked_at_submit() -> None:
    with pytest.raises(InvalidTask) as caught:
        LlamaCppExecutor("local").validate("chat", "smollm2", {"messages": "hi"})
    assert caught.value.field == "payload.messages"


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="slot"):
        LlamaCppExecutor("local", {"slot": 2})


@pytest.mark.e2e
def test_the_pinned_model_is_what_its_package_holds(model: Path) -> None:
    entry = models.CATALOG[SMOL]
    assert model == models_dir() / f"{SMOL}.gguf"
    assert model.stat().st_size == 98_362_432
    assert hashlib.sha256(model.read_bytes()).hexdigest() == entry.sha256
