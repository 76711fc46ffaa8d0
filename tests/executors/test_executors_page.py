"""The documentation of the executors says what is so: its programs run, its tasks are valid, its tables name every setting."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from inferq.executor import Answer, Call, Chunk, Executor
from inferq.executors import echo, found, http, llamacpp, load, ollama, openai, produce, script
from inferq.task import Submission

HERE = Path(__file__).parent.parent
PAGE = (HERE.parent / "docs" / "executors.md").read_text()


def blocks(language: str) -> list[str]:
    return [code for _, code in re.findall(rf"```{language}( title=[^\n]*)?\n(.*?)```", PAGE, flags=re.DOTALL)]


def section(name: str) -> str:
    return PAGE.split(f"\n### {name}\n")[1].split("\n### ")[0]


@pytest.mark.parametrize("file", ["inferq_shout.py", "pyproject.toml"])
def test_the_plugin_shown_is_the_package_that_is_tested(file: str) -> None:
    source = (HERE / "plugin_package" / file).read_text()
    assert source in blocks(r"\w+")


def test_the_plugin_is_about_twenty_lines() -> None:
    assert len((HERE / "plugin_package" / "inferq_shout.py").read_text().splitlines()) <= 22


@pytest.mark.parametrize("text", blocks("json"))
def test_every_task_shown_is_valid(text: str) -> None:
    task = msgspec.convert(json.loads(text), Submission)
    executor = load(task.executor)(task.executor)
    assert task.action in executor.actions
    assert set(executor.required.get(task.action, ())) <= set(task.payload)
    executor.validate(task.action, task.model, task.payload)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_backend_shown_can_be_made(text: str) -> None:
    for name, backend in yaml.safe_load(text)["backends"].items():
        assert load(backend["executor"])(name, backend["settings"]).name == name


async def test_the_streaming_example_runs() -> None:
    (source,) = [code for code in blocks("python") if "Countdown" in code]
    names: dict[str, type[Executor]] = {}
    exec(source, names)
    call = Call("t", "count", "", {"start": 3})
    items = [item async for item in produce(names["Countdown"]("c"), call)]
    assert items == [Chunk("text", "3 "), Chunk("text", "2 "), Chunk("text", "1 "), Answer(text="3 2 1")]


def test_the_program_without_a_queue_runs() -> None:
    (source,) = [code for code in blocks("python") if "asyncio.run" in code]
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello\n 0\n")


def test_every_built_in_executor_has_its_section() -> None:
    built_in = {name for name, entry in found().items() if entry.builtin}
    assert built_in == {name for name in built_in if f"\n### {name}\n" in PAGE}
    for name in built_in:
        assert f"| {', '.join(load(name).actions)} |" in PAGE


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ollama", ollama.Settings),
        ("openai", openai.Settings),
        ("llamacpp", llamacpp.Settings),
        ("script", script.Settings),
        ("script", script.Job),
        ("http", http.Settings),
        ("http", http.Request),
    ],
)
def test_every_setting_and_field_is_explained(name: str, shape: type[msgspec.Struct]) -> None:
    rows = "\n".join(line.split("|")[1] for line in section(name).splitlines() if line.startswith("| `"))
    assert [field for field in shape.__struct_fields__ if f"`{field}`" not in rows] == []


def test_every_knob_of_echo_is_explained() -> None:
    text = section("echo")
    own = set(echo.Script.__struct_fields__) - {"messages", "prompt", "input"}
    assert [field for field in sorted(own | set(echo.Fate.__struct_fields__)) if f"`{field}`" not in text] == []
