"""Models into memory and out of it: as Ollama and llama.cpp's router do it, and refused in clear words by those that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from doubles import ollama
from doubles.server import Double, says

from inferq import AsyncQueue, Settings
from inferq.config import BackendSettings
from inferq.errors import Conflict, RecordNotFound, Reject
from inferq.executors.llamacpp import LlamaCppExecutor, installed
from inferq.executors.ollama import OllamaExecutor
from inferq.executors.openai import OpenAIExecutor
from inferq.testing import EchoExecutor


class Router:
    """What llama.cpp's router answers: one model that is there at the second look, one that never is."""

    def __init__(self) -> None:
        self.states = {"good": "unloaded", "bad": "unloaded"}
        self.ordered: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            data = [{"id": name, "object": "model", "status": {"value": value, "args": []}} for name, value in self.states.items()]
            for name, value in self.states.items():
                if value == "loading":
                    self.states[name] = "loaded" if name == "good" else "unloaded"
            return web.json_response({"object": "list", "data": data})
        self.ordered.append(request.path)
        model = (await request.json())["model"]
        self.states[model] = "loading" if request.path == "/models/load" else "unloaded"
        return web.json_response({"success": True})


async def test_a_llama_cpp_router_loads_waits_until_it_is_there_and_unloads(double: Double) -> None:
    router = Router()
    double.says(router)
    executor = OpenAIExecutor("router", {"base_url": f"{double.url}/v1"})
    assert await executor.loaded() == []
    await executor.load_model("good")
    await executor.load_model("good")
    assert await executor.loaded() == ["good"]
    with pytest.raises(Reject, match="could not load bad: its log says why"):
        await executor.load_model("bad")
    with pytest.raises(Reject, match="has no model 'other'; it has bad, good"):
        await executor.load_model("other")
    with pytest.raises(Reject, match="takes no time"):
        await executor.load_model("good", keep=3)
    await executor.unload_model("good")
    await executor.unload_model("good")
    assert await executor.loaded() == []
    assert router.ordered == ["/models/load", "/models/load", "/models/unload"]
    await executor.close()


async def test_a_server_that_is_no_router_says_that_it_cannot(double: Double) -> None:
    double.says(says({"object": "list", "data": [{"id": "m-1", "object": "model"}]}))
    executor = OpenAIExecutor("plain", {"base_url": double.url})
    assert await executor.loaded() is None
    for change in (executor.load_model, executor.unload_model):
        with pytest.raises(Reject, match=r"cannot load or unload: it is no llama\.cpp router"):
            await change("m-1")
    await executor.close()


async def test_the_real_llama_cpp_server_with_one_model_is_no_router_or_has_it_loaded(llm_url: str) -> None:
    executor = OpenAIExecutor("real", {"base_url": llm_url})
    (model,) = await executor.models()
    loaded = await executor.loaded()
    if loaded is None:
        with pytest.raises(Reject, match=r"it is no llama\.cpp router"):
            await executor.load_model(model)
    else:
        assert loaded == [model]
    await executor.close()


async def test_ollama_is_asked_as_its_own_command_asks(double: Double) -> None:
    double.says(says({"model": "m-1", "response": "", "done": True, "done_reason": "load"}))
    executor = OllamaExecutor("ollama", {"base_url": double.url})
    await executor.load_model("m-1")
    await executor.load_model("m-1", keep=7200.0)
    await executor.unload_model("m-1")
    assert [seen.path for seen in double.seen] == ["/api/generate"] * 3
    assert [seen.json for seen in double.seen] == [
        {"model": "m-1", "stream": False},
        {"model": "m-1", "stream": False, "keep_alive": 7200.0},
        {"model": "m-1", "stream": False, "keep_alive": 0},
    ]
    double.says(says({"error": '"nomic" does not support generate'}, status=400), says({"model": "nomic", "embeddings": []}))
    await executor.load_model("nomic")
    assert (double.seen[-1].path, double.seen[-1].json["input"]) == ("/api/embed", [])
    double.says(says({"error": "model 'gone' not found"}, status=404))
    with pytest.raises(Reject, match="gone"):
        await executor.load_model("gone")
    await executor.close()


async def test_a_queue_loads_by_the_name_of_a_backend_and_names_the_reason_where_it_cannot(double: Double, tmp_path: Path) -> None:
    seen: list[Any] = []

    async def server(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/ps":
            return web.json_response(ollama.tags("m-1"))
        seen.append(json.loads(await request.read()))
        return web.json_response({"done": True, "done_reason": "load"})

    double.says(server)
    backends = (
        BackendSettings("gpu", executor="ollama", settings={"base_url": double.url}),
        BackendSettings("echo", executor="echo"),
        BackendSettings("local", executor="llamacpp"),
    )
    async with AsyncQueue(f"sqlite:///{tmp_path / 'q.db'}", settings=Settings(backends=backends), work=False) as queue:
        held = await queue.backends.load("gpu", "m-1", keep="2h")
        assert (held.name, held.model, held.loaded) == ("gpu", "m-1", ("m-1",))
        assert seen == [{"model": "m-1", "stream": False, "keep_alive": 7200.0}]
        with pytest.raises(Conflict, match="echo: its executor cannot load models"):
            await queue.backends.load("echo", "m")
        with pytest.raises(Conflict, match="keeps its models in the process that runs its tasks"):
            await queue.backends.unload("local", "m")
        with pytest.raises(RecordNotFound):
            await queue.backends.load("nobody", "m")


async def test_an_executor_that_has_no_notion_of_it_refuses() -> None:
    with pytest.raises(Reject, match="cannot unload models"):
        await EchoExecutor("echo").unload_model("m")


async def test_a_model_inside_inferq_is_started_before_its_first_task_and_ended(llm_url: str) -> None:
    assert llm_url  # there is a model on this machine
    name = next(iter(installed()), None)
    if name is None:
        pytest.skip("the model of this machine is a file only")
    executor = LlamaCppExecutor("here")
    try:
        assert await executor.loaded() == []
        await executor.load_model(name)
        assert len(await executor.loaded() or []) == 1
        await executor.unload_model(name)
        assert await executor.loaded() == []
    finally:
        await executor.close()
