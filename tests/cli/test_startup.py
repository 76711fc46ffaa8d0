"""Starting is quick because nothing is imported that a command does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"aiohttp", "httptools", "ssl", "socket", "asyncio", "rich", "yaml", "sqlite3", "msgspec", "platformdirs", "logging"}
HEAVY |= {"importlib.metadata"}

_PROBE = """
import contextlib, io, json, sys
from inferq.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main({args!r})
print(json.dumps([code, sorted(sys.modules)]))
"""


def modules_of(*args: str, cwd: Path) -> set[str]:
    probe = subprocess.run([sys.executable, "-c", _PROBE.format(args=[*args])], capture_output=True, text=True, check=True, cwd=cwd)
    code, modules = json.loads(probe.stdout)
    assert code == 0
    return set(modules)


@pytest.mark.parametrize("args", [["--help"], ["submit", "--help"]])
def test_help_of_a_group_imports_no_verb_and_nothing_heavy(args: list[str], home: Path) -> None:
    modules = modules_of(*args, cwd=home)
    assert not modules & HEAVY
    assert not {name for name in modules if name.startswith("inferq.cli.")} - {
        "inferq.cli.app",
        "inferq.cli.exits",
        "inferq.cli.groups",
        "inferq.cli.option",
        "inferq.cli.output",
        *(f"inferq.cli.{name}" for name in ("submit", "options", "params", "reader", "records", "stream") if "submit" in args),
    }


@pytest.mark.parametrize("args", [["list", "--help"], ["run", "--help"], ["work", "--help"], ["doctor", "--help"]])
def test_help_of_a_command_opens_nothing(args: list[str], home: Path) -> None:
    assert not modules_of(*args, cwd=home) & {"aiohttp", "asyncio", "rich", "yaml", "sqlite3", "platformdirs"}


def test_a_listing_needs_no_http_client_and_in_a_pipe_no_tables(home: Path) -> None:
    assert not modules_of("list", cwd=home) & {"aiohttp", "rich", "yaml"}


def test_a_listing_over_http_loads_no_engine_no_store_and_no_settings(home: Path) -> None:
    probe = _PROBE.replace("code = main({args!r})", "code = 0 if main({args!r}) == 7 else 1").format(
        args=["list", "--url", "http://127.0.0.1:1"]
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=home)
    code, modules = json.loads(ran.stdout)
    assert code == 0
    assert "httptools" in modules
    assert not set(modules) & {"aiohttp", "rich", "yaml", "sqlite3", "tomllib", "inferq.config.loading", "inferq.config.settings"}
    assert not {name for name in modules if name.startswith(("inferq.engine", "inferq.queue", "inferq.stores", "inferq.server"))}
