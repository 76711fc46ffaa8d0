"""Child processes of a run: started one by one, measured by their id, and ended by this program whatever happens to it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """A measuring process ended without its figures; the message ends with what it wrote last."""


def die_with_parent() -> None:
    """In the child: if this run is killed outright, so are its children (Linux only; elsewhere a no-op)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def measured(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program whose last line on stdout is a JSON object, and return that. Raises ChildFailed."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"no end within {timeout:g} s: {' '.join(command[1:4])}") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        tail = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ChildFailed(f"exit code {done.returncode}: {tail}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def inferq_child(
    module: str, function: str, *, timeout: float = 120, env: Mapping[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """A function of a scenario in a fresh process of this interpreter: what it returns is what it measured."""
    command = [sys.executable, "child.py", module, function, json.dumps(arguments)]
    return measured(command, timeout=timeout, env=env)


@contextmanager
def running(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, user: str | None = None, stop: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """A server or worker for as long as the block lasts; its output goes to `log`."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        end(process, stop)


def end(process: subprocess.Popen[bytes], first: int) -> None:
    """Ask it to stop, then make it; only this process and what it started in its own session."""
    for number in (first, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            process.wait(5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, and its children that are alive."""
    total = 0.0
    for member in _tree(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _tree(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        member = todo.pop()
        found.append(member)
        try:
            for thread in Path(f"/proc/{member}/task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def memory_mb(field: str = "VmRSS") -> float:
    """This process's resident memory now (VmRSS) or at most so far (VmHWM), in MB of 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"expected {field} in /proc/self/status")
