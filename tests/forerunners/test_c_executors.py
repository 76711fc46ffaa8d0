"""Gaps of the second forerunner (a library of executors without a queue), each shown not to be ours."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from doubles import openai
from doubles.server import Double, never, says, streams

import inferq
from inferq import AsyncHandle, AsyncQueue, BackendSettings, Filter, Handle, InvalidTask, Queue, State, TaskFailed
from inferq.executors import Executors
from inferq.testing import EchoExecutor

Opener = Callable[..., Awaitable[AsyncQueue]]
ROOT = Path(__file__).parents[2]


def scripts(tmp_path: Path, **settings: Any) -> BackendSettings:
    return BackendSettings("script", "script", settings={"working_dir": str(tmp_path), **settings})


def server(double: Double, **settings: Any) -> BackendSettings:
    return BackendSettings("openai", "openai", settings={"base_url": f"{double.url}/v1", **settings})


async def run(queue: AsyncQueue, **payload: Any) -> Any:
    fields = {name: payload.pop(name) for name in ("max_retries", "stream", "timeout", "priority", "delay") if name in payload}
    return await queue.submit("script", "execute", payload=payload, **fields)


async def test_c01_executors_run_through_the_queue_with_priority_time_retry_and_persistence(opened: Opener, tmp_path: Path) -> None:
    queue = await opened(scripts(tmp_path), EchoExecutor("echo"), slots=1)
    await queue.pause()
    low = await run(queue, argv=["sh", "-c", "echo low >> order"], priority="low")
    high = await run(queue, argv=["sh", "-c", "echo high >> order"], priority="high")
    later = await run(queue, argv=["true"], delay="1h")
    await queue.resume()
    await asyncio.gather(low.result(), high.result())
    assert (tmp_path / "order").read_text().split() == ["high", "low"]
    again = await queue.chat("m", "hi", executor="echo", payload={"fail": ["server_error"]})
    assert (await again.result()).attempts == 2
    await queue.close()
    reopened = await opened(scripts(tmp_path), EchoExecutor("echo"))
    assert (await reopened.get(later.id)).state is State.SCHEDULED
    assert (await reopened.result(low.id)).data["exit_code"] == 0


async def test_c02_there_is_an_http_executor_and_it_makes_requests(opened: Opener, double: Double) -> None:
    double.says(says({"answer": 42}))
    queue = await opened(BackendSettings("http", "http", settings={"allow_private": True}))
    handle = await queue.submit("http", "request", payload={"url": f"{double.url}/ask", "method": "POST", "json": {"q": 1}})
    assert (await handle.result()).data["json"] == {"answer": 42}
    assert [(seen.method, seen.path, seen.json) for seen in double.seen] == [("POST", "/ask", {"q": 1})]


def _examples() -> Iterator[Any]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1):
            yield pytest.param(code, id=f"{page.name}-{number}")


@pytest.mark.parametrize("code", [*_examples(), pytest.param("import inferq\nqueue = inferq.connect()\nqueue.chat", id="smallest")])
def test_c03_documented_examples_compile_and_name_only_what_exists(code: str) -> None:
    tree = ast.parse(code)
    faces = {"queue": (Queue, AsyncQueue), "task": (Handle, AsyncHandle), "handle": (Handle, AsyncHandle), "inferq": (inferq,)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "inferq":
            assert all(hasattr(inferq, name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in faces:
            assert any(hasattr(face, node.attr) for face in faces[node.value.id]), f"{node.value.id}.{node.attr} does not exist"


async def test_c04_args_and_env_of_a_script_are_passed_as_shown(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("import os, sys, json; print(json.dumps([sys.argv[1:], os.environ['LEVEL'], os.environ['RATE']]))")
    queue = await opened(scripts(tmp_path))
    handle = await run(queue, script="show.py", args=["--month", "11", "a b"], env={"LEVEL": "3", "RATE": 0.5})
    assert (await handle.result()).text == '[["--month", "11", "a b"], "3", "0.5"]\n'


async def test_c05_no_line_of_a_streaming_script_is_lost(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text("import sys\nfor n in range(5000):\n    print(n)\n    print(-n, file=sys.stderr)\n")
    queue = await opened(scripts(tmp_path))
    handle = await run(queue, script="talk.py", stream=True)
    out: dict[str, str] = {"stdout": "", "stderr": "", "end": ""}
    async for logged in handle.stream():
        out[logged.chunk.kind] += logged.chunk.text
    assert out["stdout"].split() == [str(n) for n in range(5000)]
    assert out["stderr"].split() == [str(-n) for n in range(5000)]
    assert out["end"] == "completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_c06_a_scripts_time_limit_holds_streamed_or_not(opened: Opener, tmp_path: Path, stream: bool) -> None:
    queue = await opened(scripts(tmp_path))
    handle = await run(queue, argv=["sleep", "1000"], timeout=0.1, max_retries=0, stream=stream)
    with pytest.raises(TaskFailed) as caught:
        await handle.result()
    assert caught.value.failure == "timeout"


async def test_c07_what_may_run_is_decided_by_the_settings_and_no_command_gets_around_them(opened: Opener, tmp_path: Path) -> None:
    queue = await opened(scripts(tmp_path, scripts_only=True, allowed_extensions=(".py",)))
    for payload in ({"command": "echo hi"}, {"argv": ["ls"]}, {"script": "run.sh"}, {"script": "../out.py"}, {"script": "/bin/x.py"}):
        with pytest.raises(InvalidTask):
            await run(queue, **payload)
    (tmp_path / "ok.py").write_text("print('ok')")
    assert (await (await run(queue, script="ok.py")).result()).text == "ok\n"
    shell_off = await opened(scripts(tmp_path), name="other.db")
    with pytest.raises(InvalidTask, match="allow_shell"):
        await run(shell_off, command="echo hi")


async def test_c08_no_key_is_needed_and_system_and_all_options_are_sent_also_when_streaming(opened: Opener, double: Double) -> None:
    double.says(streams(openai.chat_stream(["Hel", "lo"]), content_type=openai.EVENTS))
    queue = await opened(server(double))
    options = {"temperature": 0.1, "max_tokens": 9, "top_p": 0.5, "seed": 7, "stop": ["."]}
    handle = await queue.chat("m", "hi", executor="openai", system="Be brief.", options=options, payload={"user": "me"})
    assert (await handle.result()).text == "Hello"
    (seen,) = double.seen
    assert "Authorization" not in seen.headers
    assert seen.json["messages"][0] == {"role": "system", "content": "Be brief."}
    assert seen.json["stream"] is True
    assert {name: seen.json[name] for name in (*options, "user")} == {**options, "user": "me"}


async def test_c08_there_are_embeddings(opened: Opener, double: Double) -> None:
    double.says(says(openai.embeddings([1.0, 0.0], [0.0, 1.0])))
    queue = await opened(server(double))
    assert (await (await queue.embed("m", ["a", "b"], executor="openai")).result()).embeddings == [[1.0, 0.0], [0.0, 1.0]]


async def test_c08_a_very_long_line_is_read_whole(opened: Opener, double: Double) -> None:
    long = "x" * 3_000_000
    double.says(streams(openai.chat_stream([long]), content_type=openai.EVENTS))
    queue = await opened(server(double))
    assert (await (await queue.chat("m", "hi", executor="openai")).result()).text == long


async def test_c08_a_stream_without_its_end_mark_is_a_failure_and_not_an_answer(opened: Opener, double: Double) -> None:
    double.says(streams([openai.piece({"content": "half"})], content_type=openai.EVENTS))
    queue = await opened(server(double))
    handle = await queue.chat("m", "hi", executor="openai", max_retries=1)
    with pytest.raises(TaskFailed, match=r"end mark|finish reason"):
        await handle.result()
    assert len(double.seen) == 2


async def test_c08_no_hidden_limit_of_half_a_minute_cuts_a_stream(
    opened: Opener, double: Double, jump: Callable[[float], Awaitable[None]]
) -> None:
    double.says(never)
    queue = await opened(server(double), timeout=600.0)
    handle = await queue.chat("m", "hi", executor="openai", max_retries=0)
    await double.reached.wait()
    await jump(500)
    assert (await handle.refresh()).state is State.RUNNING
    assert not double.hung_up.is_set()


def test_c09_every_library_that_is_imported_is_declared() -> None:
    declared = {re.split(r"[ <>=!;\[]", line, maxsplit=1)[0].lower() for line in metadata.requires("inferq") or []}
    own_names = {"yaml": "pyyaml", "prometheus_client": "prometheus-client"}
    imported = set()
    for file in (ROOT / "src" / "inferq").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            imported |= {name.split(".")[0] for name in names}
    foreign = {own_names.get(name, name) for name in imported - sys.stdlib_module_names - {"inferq"}}
    testing_only = {"pytest"}
    assert foreign - testing_only <= declared


async def test_c10_states_follow_the_run_and_a_scripts_exit_code_is_kept(opened: Opener, tmp_path: Path) -> None:
    queue = await opened(scripts(tmp_path))
    handle = await run(queue, argv=["sh", "-c", "echo so; exit 3"], check=False)
    result = await handle.result()
    assert (result.data["exit_code"], result.data["status"], result.text) == (3, "failed", "so\n")
    task = await handle.refresh()
    assert task.state is State.COMPLETED
    assert task.started is not None
    assert task.finished is not None
    failing = await run(queue, argv=["sh", "-c", "exit 3"])
    assert (await failing.wait()).code == "script_failed"


def test_c10_executors_can_be_registered_and_listed_from_many_threads() -> None:
    executors = Executors()
    threads = [threading.Thread(target=executors.register, args=(EchoExecutor(f"echo-{n}"),)) for n in range(50)]
    for thread in threads:
        thread.start()
        executors.list()
    for thread in threads:
        thread.join()
    assert len(executors.list()) == 50


async def test_c11_a_generic_task_is_executed_and_listed_with_its_executor(opened: Opener, tmp_path: Path) -> None:
    queue = await opened(scripts(tmp_path), EchoExecutor("echo"))
    script = await run(queue, argv=["echo", "hi"])
    echo = await queue.submit("echo", "echo", payload={"a": 1})
    await asyncio.gather(script.result(), echo.result())
    (found,) = (await queue.list(Filter(executors=("script",)))).tasks
    assert (found.id, found.executor, found.action, found.state) == (script.id, "script", "execute", State.COMPLETED)
    assert (await queue.stats()).states["completed"] == 2


def test_c11_a_generic_task_goes_through_the_command_line(inferq: Any) -> None:
    (inferq.home / "task.json").write_text('{"executor": "echo", "action": "echo", "payload": {"a": 1}, "priority": "high"}')
    id = inferq("submit", "raw", "--file", "task.json", "-q").strip()
    worker = inferq.start("work")
    inferq("wait", id)
    worker.terminate()
    worker.communicate(timeout=30)
    assert '"a"' in inferq("result", id)
