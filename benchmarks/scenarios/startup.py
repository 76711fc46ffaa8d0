"""Start of the command line: its help, and a listing over HTTP from a server on this machine, as multiples of an empty Python."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import Bench
from measure import Sample, interleaved, spread
from processes import die_with_parent
from report import Row

HELP_GOAL, LIST_GOAL = 9.0, 27.0
"""Times an empty Python: 100 and 300 ms where that takes 11."""
_TASKS = 50


def measure(bench: Bench) -> list[Row]:
    place = Path(bench.place()).parent
    with _server(place) as (url, env):
        commands = {
            "pass": ("-c", "pass"),
            "inferq --help": ("-m", "inferq", "--help"),
            "inferq list, server on this machine": ("-m", "inferq", "list", "--url", url),
            "inferq list, store": ("-m", "inferq", "list", "--data-dir", str(place)),
        }
        contenders: dict[str, Callable[[], Sample]] = {name: partial(_timed, args, env) for name, args in commands.items()}
        samples = interleaved(bench.size(10, 40), contenders)
    bench.drop(str(place / "bench.db"))
    # The quickest of many: what else runs here only ever adds.
    base = spread(samples["pass"], "ms")[0]
    goals = {"inferq --help": HELP_GOAL, "inferq list, server on this machine": LIST_GOAL}
    rows = []
    for name in list(commands)[1:]:
        took, goal = spread(samples[name], "ms")[0], goals.get(name)
        met = None if goal is None else took <= goal * base
        text = "" if goal is None else f"<= {goal:g} x"
        detail = {"samples": samples[name], "pass": samples["pass"]}
        rows.append(Row("startup", name, took, "ms", "python -c pass", base, base / took, text, met, detail=detail))
    return rows


def _timed(args: tuple[str, ...], env: dict[str, str]) -> Sample:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *args], env=env, stdout=subprocess.DEVNULL, check=True)
    return {"ms": (time.perf_counter() - begun) * 1000}


@contextmanager
def _server(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with some tasks, and the environment of somebody who configured nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    env |= {"HOME": str(place), "XDG_CONFIG_HOME": str(place), "XDG_DATA_HOME": str(place)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inferq", "serve", "--no-work", "--port", str(port), "--data-dir", str(place)]
    serving = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(port, serving)
        body = "".join(f'{{"executor": "echo", "action": "echo", "payload": {{"n": {n}}}}}\n' for n in range(_TASKS))
        submit = [sys.executable, "-m", "inferq", "submit", "batch", "--file", "-", "--url", url]
        subprocess.run(submit, env=env, input=body, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        yield url, env
    finally:
        serving.terminate()
        serving.wait(30)


def _await(port: int, serving: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while serving.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("the server did not start")
