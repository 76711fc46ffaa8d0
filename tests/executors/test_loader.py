"""Executors are found by entry point, refused with reasons, and usable without the queue."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Iterator
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
from inferq.executors import Executors, found, load, produce
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


# ── finding and loading ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_built_in_executors_are_entry_points_like_any_other() -> None:
    entries = found()
    assert {"echo", "http", "llamacpp", "ollama", "openai", "script"} <= set(entries)
    echo = entries["echo"]
    assert (echo.target, echo.package, echo.builtin) == ("inferq.executors.echo:EchoExecutor", "inferq", True)
    assert list(entries) == sorted(entries)


def test_listing_imports_no_executor() -> None:
    program = (
        "import sys; from inferq.executors import found; found(); "
        "print([m for m in sys.modules if m in ('aiohttp', 'xllamacpp', 'inferq.executors.echo', 'inferq.net')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_gives_the_class() -> None:
    assert load("echo") is EchoExecutor


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(UnknownExecutor, match="did you mean echo") as caught:
        load("ecoh")
    assert caught.value.field == "executor"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages on the path that declare executors of every wrong kind, and names that others have."""
    for package, entries in {
        "bad_one": {
            "bad-import": "bad_module:Thing",
            "bad-missing": "bad_fine:Absent",
            "bad-kind": "bad_fine:number",
            "bad-actions": "bad_fine:Bare",
            "bad-run": "bad_fine:Lazy",
            "bad-required": "bad_fine:Strange",
            "bad-shared": "bad_fine:Lazy",
            "echo": "bad_fine:Lazy",
        },
        "bad_two": {"bad-shared": "bad_fine:Lazy"},
    }.items():
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {target}" for name, target in entries.items())
        (info / "entry_points.txt").write_text(f"[inferq.executors]\n{lines}\n")
    (tmp_path / "bad_module.py").write_text("raise OSError('no licence file')\n")
    (tmp_path / "bad_fine.py").write_text(
        "from inferq.executor import Executor\nnumber = 7\n"
        "class Bare(Executor):\n    actions = ('shout')\n    async def run(self, call): return 1\n"
        "class Lazy(Executor):\n    actions = ('shout',)\n"
        "class Strange(Lazy):\n    required = {'whisper': ('x',)}\n    async def run(self, call): return 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    load.cache_clear()
    yield
    load.cache_clear()
    sys.modules.pop("bad_fine", None)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad-import", "OSError: no licence file.*bad_one 1.0"),
        ("bad-missing", "Absent"),
        ("bad-kind", "derived from inferq.executor.Executor, got 7"),
        ("bad-actions", "tuple of names.*got 'shout'"),
        ("bad-run", r"must define run\(call\)"),
        ("bad-required", "whisper"),
        ("bad-shared", "more than one package.*bad_one.*bad_two"),
    ],
)
def test_a_plugin_that_does_not_keep_the_contract_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        load(name)


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_is_still_listed_and_cannot_take_over_a_built_in_name() -> None:
    entries = found()
    assert entries["bad-import"].package == "bad_one"
    assert entries["echo"].builtin
    assert entries["echo"].rivals == ("bad_one",)
    assert load("echo") is EchoExecutor


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


# ── a package of its own ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plugin_package_works_by_pip_install_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    # Our own installation, dependencies and all, without fetching them again; the plugin itself is really installed.
    inferq = Path(sysconfig.get_path("purelib"))
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "inferq_under_test.pth").write_text(f"import site; site.addsitedir({str(inferq)!r})\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*argv: str) -> str:
        done = subprocess.run([str(python), *argv], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = run("-c", "from inferq.executors import found; print('shout' in found())")
    run("-m", "pip", "install", "--quiet", str(PLUGIN))
    program = (
        "import asyncio\nfrom inferq.executors import Executors, found\n"
        "async def main():\n"
        "    async with Executors() as executors:\n"
        "        executors.register('shout')\n"
        "        answer = await executors.execute('shout', 'shout', payload={'text': 'hello'})\n"
        "        print(found()['shout'].package, answer.data)\n"
        "asyncio.run(main())\n"
    )
    assert before == "False\n"
    assert run("-c", program) == "inferq-shout {'text': 'HELLO!'}\n"
