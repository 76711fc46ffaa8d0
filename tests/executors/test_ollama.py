"""The Ollama executor against scripted doubles that the official SDK's types and client keep honest.

No real Ollama server can be had from a package registry; `docs/executors.md` says so too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import ollama as sdk
import pytest
from doubles import ollama as wire
from doubles.asking import ask
from doubles.server import Double, never, says, says_text, streams

from inferq.errors import ConfigError, InvalidTask, Reject, RetryLater, Unavailable
from inferq.executor import Chunk, Usage
from inferq.executors.ollama import OllamaExecutor

HI = {"messages": [{"role": "user", "content": "hi"}]}
Make = Callable[..., OllamaExecutor]


@pytest.fixture
async def make(double: Double) -> AsyncIterator[Make]:
    """Makes executors that speak to the double, and closes them."""
    made: list[OllamaExecutor] = []

    def _make(**settings: Any) -> OllamaExecutor:
        executor = OllamaExecutor("box", {"base_url": double.url, **settings})
        made.append(executor)
        return executor

    yield _make
    for executor in made:
        await executor.close()


# ── what it answers ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_chat_streams_its_words_and_ends_with_the_whole_answer(double: Double, make: Make) -> None:
    double.says(streams(wire.chat_stream(["Hel", "lo", " you"], reason="length"), content_type=wire.LINES))
    chunks, answer = await ask(make(), "chat", {**HI, "system": "Be short."}, options={"temperature": 0})
    assert chunks == [Chunk("text", "Hel"), Chunk("text", "lo"), Chunk("text", " you")]
    assert (answer.text, answer.finish_reason, answer.model) == ("Hello you", "length", "m-1")
    assert answer.message == {"role": "assistant", "content": "Hello you"}
    assert answer.usage == Usage(input_tokens=9, output_tokens=3)
    assert answer.raw["total_duration"] == 5_000_000
    [seen] = double.seen
    assert (seen.method, seen.path) == ("POST", "/api/chat")
    assert seen.json == {
        "model": "m-1",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}],
        "options": {"temperature": 0},
        "stream": True,
    }


async def test_thinking_and_tool_calls_are_told_apart_from_the_answer(double: Double, make: Make) -> None:
    tool = {"function": {"name": "weather", "arguments": {"city": "Bern"}}}
    lines = [
        wire.chat_line({"content": "", "thinking": "hm"}),
        wire.chat_line({"content": "Looking."}),
        wire.chat_line({"content": "", "tool_calls": [tool]}),
        wire.chat_end(),
    ]
    double.says(streams(lines, content_type=wire.LINES))
    chunks, answer = await ask(make(), "chat", {**HI, "think": True, "tools": [{"type": "function"}]})
    assert chunks == [Chunk("thinking", "hm"), Chunk("text", "Looking."), Chunk("tool_calls", data=[tool])]
    assert answer.message == {"role": "assistant", "content": "Looking.", "thinking": "hm", "tool_calls": [tool]}
    assert answer.finish_reason == "tool_calls"
    assert double.seen[0].json["think"] is True


async def test_generate_streams_and_keeps_the_context(double: Double, make: Make) -> None:
    double.says(streams(wire.generate_stream(["a", "b"]), content_type=wire.LINES))
    chunks, answer = await ask(make(), "generate", {"prompt": "x", "system": "s", "raw": True, "template": "t"})
    assert chunks == [Chunk("text", "a"), Chunk("text", "b")]
    assert (answer.text, answer.message, answer.finish_reason) == ("ab", None, "length")
    assert answer.raw["context"] == [1, 2, 3]
    assert answer.raw["response"] == "ab"
    asked = double.seen[0].json
    assert (asked["system"], asked["raw"], asked["template"], asked["prompt"]) == ("s", True, "t", "x")


async def test_an_unstreamed_chat_gives_its_text_as_one_chunk(double: Double, make: Make) -> None:
    double.says(says(wire.chat("Hello there")))
    chunks, answer = await ask(make(), "chat", {**HI, "stream": False})
    assert (chunks, answer.text) == ([Chunk("text", "Hello there")], "Hello there")
    assert answer.raw == wire.chat("Hello there")
    assert double.seen[0].json["stream"] is False


async def test_models_in_memory_are_told_apart_from_those_on_disk(double: Double) -> None:
    double.says(says(wire.tags("hot:latest")))
    executor = OllamaExecutor("ollama", {"base_url": double.url})
    assert await executor.loaded() == ["hot:latest"]
    assert [seen.path for seen in double.seen] == ["/api/ps"]
    await executor.close()


async def test_embeddings_come_as_lists(double: Double, make: Make) -> None:
    double.says(says(wire.embeddings([0.5, -1], [1.0, 2.0])))
    chunks, answer = await ask(make(), "embed", {"input": ["a", "b"], "truncate": False}, options={"num_ctx": 64})
    assert (chunks, answer.embeddings) == ([], [[0.5, -1.0], [1.0, 2.0]])
    assert answer.usage == Usage(input_tokens=8)
    assert "embeddings" not in answer.raw
    asked = {"model": "m-1", "input": ["a", "b"], "truncate": False, "options": {"num_ctx": 64}}
    assert double.seen[0].json == asked


async def test_lines_may_be_cut_anywhere_and_megabytes_long(double: Double, make: Make) -> None:
    whole = b"".join(wire.chat_stream(["Grüße", "x" * 3_000_000]))
    double.says(streams([whole[:20], whole[20:21], whole[21:70], whole[70:]], content_type=wire.LINES))
    _, answer = await ask(make(), "chat", HI)
    assert answer.text == "Grüße" + "x" * 3_000_000


async def test_a_last_line_without_its_line_end_counts(double: Double, make: Make) -> None:
    lines = wire.chat_stream(["a"])
    double.says(streams([*lines[:-1], lines[-1].rstrip()], content_type=wire.LINES))
    _, answer = await ask(make(), "chat", HI)
    assert answer.text == "a"


# ── ends that are none ──────────────────────────────────────────────────────────────────────────────────────────────

START = wire.chat_stream(["half an", " answer"])[:2]


@pytest.mark.parametrize("end", ["clean", "cut"])
async def test_a_stream_without_done_true_is_a_failure(double: Double, make: Make, end: str) -> None:
    double.says(streams(START, content_type=wire.LINES, end=end))
    with pytest.raises(Unavailable) as caught:
        await ask(make(), "chat", HI)
    assert (caught.value.failure, caught.value.sent) == ("connect", True)


@pytest.mark.parametrize(
    ("error", "kind", "failure"),
    [
        ("an error was encountered while running the model: CUDA error", Unavailable, "server_error"),
        ("server busy, please try again.  maximum pending requests exceeded", RetryLater, "overloaded"),
        ("the input length exceeds the context length", Reject, "context_length"),
    ],
)
async def test_an_error_line_is_a_failure(double: Double, make: Make, error: str, kind: type[Exception], failure: str) -> None:
    double.says(streams([*START, wire.line({"error": error})], content_type=wire.LINES))
    with pytest.raises(kind, match=error[:20]) as caught:
        await ask(make(), "chat", HI)
    assert caught.value.failure == failure  # type: ignore[attr-defined] # all three are ExecutorErrors


@pytest.mark.parametrize("garbage", [b"{oops\n", b"5\n", b"<html>\n", b'{"message": {"content": "\xff"}}\n'])
async def test_garbage_within_a_stream_is_a_server_error(double: Double, make: Make, garbage: bytes) -> None:
    double.says(streams([*START, garbage], content_type=wire.LINES))
    with pytest.raises(Unavailable) as caught:
        await ask(make(), "chat", HI)
    assert caught.value.failure == "server_error"


@pytest.mark.parametrize("body", ["<html>hello</html>", "Ollama is running", '{"embeddings": 5}', "[]", ""])
async def test_an_answer_that_is_no_embedding_is_a_server_error(double: Double, make: Make, body: str) -> None:
    double.says(says_text(body))
    with pytest.raises(Unavailable) as caught:
        await ask(make(), "embed", {"input": "x"})
    assert caught.value.failure == "server_error"


@pytest.mark.parametrize("how", ["before the answer", "in the answer"])
async def test_a_cancelled_call_hangs_up_at_once(double: Double, make: Make, how: str) -> None:
    double.says(never if how == "before the answer" else streams(START, content_type=wire.LINES, end="hang"))
    task = asyncio.create_task(ask(make(), "chat", HI))
    await double.reached.wait()
    task.cancel()
    async with asyncio.timeout(2):
        await double.hung_up.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "error", "kind", "failure"),
    [
        (404, 'model "m-1" not found, try pulling it first', Reject, "model_not_found"),
        (503, "server busy, please try again.  maximum pending requests exceeded", RetryLater, "overloaded"),
        (400, "invalid message content type: float64", Reject, "bad_request"),
        (500, "model requires more system memory (9 GiB) than is available (2 GiB)", Unavailable, "server_error"),
        (429, "you have reached your hourly usage limit", RetryLater, "rate_limited"),
    ],
)
async def test_a_refusal_gets_its_class_and_code(
    double: Double, make: Make, status: int, error: str, kind: type[Exception], failure: str
) -> None:
    double.says(says({"error": error}, status=status))
    with pytest.raises(kind, match=rf"box \(http://127.0.0.1:\d+\) answered {status}: ") as caught:
        await ask(make(), "chat", HI)
    assert error.split("  ")[0] in str(caught.value)
    assert caught.value.failure == failure  # type: ignore[attr-defined] # all of them are ExecutorErrors


async def test_what_a_configured_header_holds_is_not_shown(double: Double, make: Make) -> None:
    double.says(says({"error": "token hush-hush-hush is not valid"}, status=403))
    with pytest.raises(Reject, match=r"token \*\*\* is not valid"):
        await ask(make(headers={"Authorization": "Bearer hush-hush-hush"}), "chat", HI)
    assert double.seen[0].headers["Authorization"] == "Bearer hush-hush-hush"


# ── where it is ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_calls_the_server_it_is_configured_for(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    double.says(says({"version": "0.12.3"}))
    for settings in ({"base_url": double.url}, {"host": f"127.0.0.1:{double.port}"}, {"host": f"0.0.0.0:{double.port}"}):
        executor = OllamaExecutor("box", settings)
        assert (await executor.health()).detail == "Ollama 0.12.3"
        await executor.close()
    assert [seen.path for seen in double.seen] == ["/api/version"] * 3


def test_without_settings_the_environment_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OllamaExecutor("ollama").client.base_url == "http://127.0.0.1:11434"
    monkeypatch.setenv("OLLAMA_HOST", "models.example:1234")
    assert OllamaExecutor("ollama").client.base_url == "http://models.example:1234"
    monkeypatch.setenv("OLLAMA_HOST", "ftp://models.example")
    with pytest.raises(ConfigError, match="environment variable OLLAMA_HOST: expected an address"):
        OllamaExecutor("ollama")


@pytest.mark.parametrize(
    ("settings", "message"), [({"base_url": "http://x:port"}, "setting 'base_url'"), ({"hots": "x"}, "unknown setting 'hots'")]
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OllamaExecutor("box", settings)


async def test_health_and_models_tell_what_the_server_says(double: Double, make: Make) -> None:
    double.says(says(wire.tags("smollm2:135m", "llama3:8b")), says_text("Not Ollama", content_type="text/plain"))
    executor = make()
    assert await executor.models() == ["smollm2:135m", "llama3:8b"]
    health = await executor.health()
    assert not health.ok
    assert "did not answer as its API says" in health.detail


async def test_nobody_listening_is_unavailable_and_surely_not_sent(make: Make, free_port: int) -> None:
    executor = make(base_url=f"127.0.0.1:{free_port}")
    with pytest.raises(Unavailable, match="cannot connect") as caught:
        await ask(executor, "chat", HI)
    assert caught.value.sent is False
    assert not (await executor.health()).ok


@pytest.mark.parametrize(
    ("action", "payload", "field"),
    [
        ("chat", {"messages": []}, "payload.messages"),
        ("chat", {"messages": [{"role": "developer", "content": "x"}]}, "payload.messages[0].role"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["?"]}]}, "payload.messages[0].images[0]"),
        ("chat", {**HI, "system": ["x"]}, "payload.system"),
        ("chat", {**HI, "options": []}, "payload.options"),
        ("chat", {**HI, "format": 5}, "payload.format"),
        ("generate", {"prompt": ["x"]}, "payload.prompt"),
        ("generate", {"prompt": "x", "raw": "yes"}, "payload.raw"),
        ("generate", {"prompt": "x", "images": "x"}, "payload.images"),
        ("embed", {"input": [1]}, "payload.input[0]"),
        ("embed", {"input": "x", "truncate": 1}, "payload.truncate"),
    ],
)
def test_a_wrong_payload_is_refused_by_its_field(action: str, payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        OllamaExecutor("box").validate(action, "m-1", payload)
    assert caught.value.field == field


# ── the official SDK as judge ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_client_reads_the_doubles_as_we_do(double: Double, make: Make) -> None:
    chat = streams(wire.chat_stream(["Hel", "lo"]), content_type=wire.LINES)
    generate = streams(wire.generate_stream(["a", "b"]), content_type=wire.LINES)
    double.says(chat, generate, says(wire.embeddings([0.5, 1.0])), says(wire.tags("m-1")), says(wire.chat()))
    client = sdk.AsyncClient(host=double.url)
    try:
        said = [part async for part in await client.chat("m-1", HI["messages"], stream=True)]
        made = [part async for part in await client.generate("m-1", "x", stream=True)]
        vectors = await client.embed("m-1", "x")
        models = await client.list()
        whole = await client.chat("m-1", HI["messages"])
    finally:
        await client._client.aclose()
    double.says(chat, generate)
    _, our_chat = await ask(make(), "chat", HI)
    _, our_text = await ask(make(), "generate", {"prompt": "x"})
    assert "".join(part.message.content or "" for part in said) == our_chat.text
    assert (said[-1].done_reason, said[-1].eval_count) == (our_chat.finish_reason, our_chat.usage and our_chat.usage.output_tokens)
    assert "".join(part.response or "" for part in made) == our_text.text
    assert list(made[-1].context or []) == our_text.raw["context"]
    assert sdk.ChatResponse.model_validate(our_chat.raw).message.content == our_chat.text
    assert sdk.GenerateResponse.model_validate(our_text.raw).response == our_text.text
    assert vectors.embeddings == [[0.5, 1.0]]
    assert [model.model for model in models.models] == ["m-1"]
    assert whole.message.content == "Hello there"


async def test_we_ask_what_the_official_client_asks(double: Double, make: Make) -> None:
    double.says(
        *[streams(wire.chat_stream(["a"]), content_type=wire.LINES)] * 2,
        *[streams(wire.generate_stream(["a"]), content_type=wire.LINES)] * 2,
        *[says(wire.embeddings([1.0]))] * 2,
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    chat: dict[str, Any] = {"tools": [tool], "format": "json", "keep_alive": "5m", "think": True, "options": {"seed": 1}}
    generate: dict[str, Any] = {"suffix": "y", "system": "s", "template": "t", "raw": True, "context": [1], "images": ["aGk="]}
    embed: dict[str, Any] = {"truncate": True, "dimensions": 4, "keep_alive": -1, "options": {"num_ctx": 8}}
    client = sdk.AsyncClient(host=double.url)
    try:
        assert [part async for part in await client.chat("m-1", HI["messages"], stream=True, **chat)]
        await ask(make(), "chat", {**HI, **chat})
        assert [part async for part in await client.generate("m-1", "x", stream=True, **generate)]
        await ask(make(), "generate", {"prompt": "x", **generate})
        assert await client.embed("m-1", ["a"], **embed)
        await ask(make(), "embed", {"input": ["a"], **embed})
    finally:
        await client._client.aclose()
    theirs, ours = double.seen[::2], double.seen[1::2]
    for judge, mine in zip(theirs, ours, strict=True):
        assert (judge.method, judge.path) == (mine.method, mine.path)
        # The official client fills in what a tool leaves out; what we were given we pass on as it is.
        assert {**judge.json, "tools": 0} == {**mine.json, "tools": 0} if "tools" in mine.json else judge.json == mine.json
