"""Tasks for Ollama on a server that speaks OpenAI's API: every word translated, refused or named as left out; one shape of result."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from doubles import ollama, openai
from doubles.server import Double, says, streams
from hypothesis import given
from hypothesis import strategies as st

from inferq import AsyncQueue, BackendSettings, Settings
from inferq.config import RetrySettings
from inferq.errors import TaskFailed, Untranslatable
from inferq.executor import Answer, Call
from inferq.wire import bridge
from inferq.wire.openai import request_of

PNG = "iVBORw0KGgo="


def sent(action: str, payload: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The body that reaches the server."""
    call = bridge.to_openai(Call("t", action, "m", payload, options))
    return request_of(call, chat=bool(call.payload.get("as_chat") or call.payload.get("system")))[1]


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_b14_options_are_translated_and_the_system_prompt_is_kept() -> None:
    options = {"num_predict": 7, "temperature": 0.2, "top_p": 0.9, "seed": 3, "stop": ["x"], "num_ctx": 8192, "top_k": 5}
    body = sent("chat", {"messages": [{"role": "user", "content": "hi"}], "system": "be brief"}, **options)
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert {name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop")} == {
        "max_tokens": 7,
        "temperature": 0.2,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["x"],
    }
    assert bridge.LEFT_OUT.isdisjoint(body)


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("json", {"type": "json_object"}),
        ({"type": "object"}, {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}),
    ],
)
def test_a_format_becomes_a_response_format(format: Any, expected: Any) -> None:
    assert sent("chat", {"messages": [{"role": "user", "content": "hi"}], "format": format})["response_format"] == expected
    assert sent("generate", {"prompt": "hi"}, format=format)["response_format"] == expected


def test_images_become_parts() -> None:
    parts = sent("chat", {"messages": [{"role": "user", "content": "what?", "images": [PNG]}]})["messages"][0]["content"]
    assert parts == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    assert sent("generate", {"prompt": "what?", "images": [PNG]})["messages"][0]["content"] == parts


def test_tool_calls_get_ids_and_their_answers_the_same() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Bern"}}}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    body = sent("chat", {"messages": messages, "tools": tools})
    assert body["tools"] == tools
    made = body["messages"][1]["tool_calls"][0]
    assert (made["type"], made["function"]) == ("function", {"name": "weather", "arguments": '{"city": "Bern"}'})
    assert body["messages"][2] == {"role": "tool", "content": "rain", "tool_call_id": made["id"]}


def test_a_prompt_is_made_as_a_chat_as_ollamas_template_would_unless_it_is_raw() -> None:
    assert sent("generate", {"prompt": "hi", "system": "s"})["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "hi"},
    ]
    assert sent("generate", {"prompt": "hi", "raw": True})["prompt"] == "hi"
    assert sent("generate", {"prompt": "def f(", "suffix": "return"})["suffix"] == "return"


@pytest.mark.parametrize("field", ["template", "context"])
def test_what_would_change_the_answer_and_has_no_word_is_refused_by_name(field: str) -> None:
    with pytest.raises(Untranslatable, match=f"payload.{field}"):
        bridge.to_openai(Call("t", "generate", "m", {"prompt": "x", field: [1]}))


@given(st.dictionaries(st.sampled_from(sorted(bridge.LEFT_OUT)), st.integers() | st.booleans(), max_size=8))
def test_what_the_page_lists_as_left_out_never_reaches_the_server(options: dict[str, Any]) -> None:
    assert bridge.LEFT_OUT.isdisjoint(sent("generate", {"prompt": "x"}, **options))


def test_the_page_lists_what_is_left_out() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    assert [name for name in sorted(bridge.LEFT_OUT) if f"`{name}`" not in page] == []


def test_an_answers_message_is_in_ollamas_words() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    message = {"role": "assistant", "content": "hi", "reasoning_content": "hm", "tool_calls": calls, "refusal": None}
    made = bridge.to_ollama(Answer(text="hi", message=message), "chat")
    assert made.message == {
        "role": "assistant",
        "content": "hi",
        "thinking": "hm",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
    }


# ── through the queue ───────────────────────────────────────────────────────────────────────────────────────────────

Opener = Callable[..., Any]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    async with AsyncExitStack() as stack:

        async def make(*backends: BackendSettings) -> AsyncQueue:
            settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
            return await stack.enter_async_context(AsyncQueue(str(tmp_path / "q.db"), backends=backends, settings=settings))

        yield make


@pytest.fixture
async def second() -> AsyncIterator[Double]:
    made = Double()
    await made.start()
    yield made
    await made.stop()


def near(url: str, **more: Any) -> BackendSettings:
    return BackendSettings("ollama", "ollama", settings={"base_url": url}, **more)


def far(url: str, **more: Any) -> BackendSettings:
    return BackendSettings("cloud", "openai", settings={"base_url": f"{url}/v1"}, serves=("ollama",), remote=True, **more)


def filled(result: Any) -> set[str]:
    return {name for name in result.__struct_fields__ if getattr(result, name) not in (None, ())} - {"remote"}


@pytest.mark.parametrize("action", ["chat", "generate", "embed"])
async def test_b14_the_same_task_gives_the_same_fields_here_and_on_a_remote_endpoint(
    opened: Opener, double: Double, second: Double, action: str
) -> None:
    payloads = {"chat": {"messages": [{"role": "user", "content": "hi"}]}, "generate": {"prompt": "hi"}, "embed": {"input": ["hi"]}}
    local = {
        "chat": streams(ollama.chat_stream(["Hel", "lo"]), content_type=ollama.LINES),
        "generate": streams(ollama.generate_stream(["Hel", "lo"]), content_type=ollama.LINES),
        "embed": says(ollama.embeddings([0.5, 0.25])),
    }
    remote = {
        "chat": streams(openai.chat_stream(["Hel", "lo"]), content_type=openai.EVENTS),
        "generate": streams(openai.chat_stream(["Hel", "lo"], finish="length"), content_type=openai.EVENTS),
        "embed": says(openai.embeddings([0.5, 0.25])),
    }
    double.says(local[action])
    second.says(remote[action])
    queue = await opened(near(double.url), far(second.url))
    results = []
    for wish in (False, True):
        task = await queue.submit("ollama", action, model="m-1", payload=payloads[action], remote=wish)
        results.append(await task.result())
    here, there = results
    assert (here.executed_on, there.executed_on) == ("local", "cloud")
    assert filled(here) == filled(there)
    assert (here.text, here.embeddings, here.finish_reason) == (there.text, there.embeddings, there.finish_reason)
    assert set(here.message or ()) == set(there.message or ())
    posted = [seen.path for seen in second.seen if seen.method == "POST"]
    assert posted == ["/v1/embeddings" if action == "embed" else "/v1/chat/completions"]


async def test_b14_chunks_of_a_remote_answer_come_as_they_do_from_ollama(opened: Opener, double: Double) -> None:
    double.says(streams(openai.tool_stream(), content_type=openai.EVENTS))
    queue = await opened(far(double.url))
    task = await queue.chat("m-1", "weather?", payload={"tools": []})
    chunks = [logged.chunk async for logged in task.stream()]
    assert [chunk.kind for chunk in chunks] == ["tool_calls", "end"]
    assert chunks[0].data == [
        {"function": {"name": "weather", "arguments": {"city": "Bern"}}},
        {"function": {"name": "time", "arguments": {}}},
    ]


async def test_what_only_ollama_can_do_goes_back_to_it_and_costs_no_retry(opened: Opener, double: Double, second: Double) -> None:
    double.says(streams(ollama.generate_stream(["x"]), content_type=ollama.LINES))
    queue = await opened(near(double.url, priority=0), far(second.url))
    task = await queue.submit("ollama", "generate", model="m-1", payload={"prompt": "x", "template": "{{ .Prompt }}"}, remote=True)
    result = await task.result()
    assert (result.backend, result.text) == ("ollama", "x")
    assert (await task.refresh()).failures == 0
    assert [seen.path for seen in second.seen if seen.method == "POST"] == []


async def test_what_nobody_here_can_do_is_refused_with_the_field(opened: Opener, double: Double) -> None:
    queue = await opened(far(double.url))
    task = await queue.submit("ollama", "generate", model="m-1", payload={"prompt": "x", "template": "t"})
    with pytest.raises(TaskFailed, match=r"payload\.template") as caught:
        await task.result()
    assert caught.value.failure == "bad_request"


async def test_a_submission_is_checked_by_its_own_executors_rules(opened: Opener, double: Double) -> None:
    from inferq.errors import InvalidTask

    queue = await opened(far(double.url))
    with pytest.raises(InvalidTask, match=r"payload\.messages"):
        await queue.submit("ollama", "chat", model="m", payload={"messages": []})
    with pytest.raises(InvalidTask, match="model"):
        await queue.submit("ollama", "chat", payload={"messages": [{"role": "user", "content": "x"}]})


@pytest.mark.e2e
async def test_a_real_model_behind_openais_api_runs_tasks_for_ollama(opened: Opener, llm_url: str) -> None:
    queue = await opened(BackendSettings("llm", "openai", settings={"base_url": llm_url}, serves=("ollama",), remote=True))
    options = {"num_predict": 8, "temperature": 0, "num_ctx": 512, "repeat_penalty": 1.1}
    task = await queue.chat("smollm2-135m-instruct", "Say hello.", system="You are brief.", options=options)
    result = await task.result(timeout=100)
    assert result.text
    assert result.message is not None
    assert set(result.message) == {"role", "content"}
    assert result.usage is not None
    assert result.usage.output_tokens is not None
    assert result.usage.output_tokens <= 8
    assert (result.backend, result.executed_on) == ("llm", "llm")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    shaped = await queue.generate("smollm2-135m-instruct", "Is it fine?", payload={"format": schema}, options={"num_predict": 40})
    answer = await shaped.result(timeout=100)
    assert answer.message is None
    assert isinstance(json.loads(answer.text or ""), dict)
