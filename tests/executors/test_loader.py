"""Executors are found by entry point, and refused with reasons."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq.errors import (
    PluginError,
    UnknownExecutor,
)
from inferq.executors import found, load
from inferq.executors.echo import EchoExecutor

PLUGIN = Path(__file__).parent.parent / "plugin_package"


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
    through_the_queue = (
        "import inferq\n"
        "with inferq.connect('sqlite:///plugin.db') as queue:\n"
        "    print(queue.submit('shout', 'shout', payload={'text': 'hi'}).result(timeout=30).data)\n"
    )
    assert run("-c", through_the_queue) == "{'text': 'HI!'}\n", "no configuration: installed is enough"
