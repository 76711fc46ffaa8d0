"""Who is alive: each opening of a file holds a lock under its own name, which the system releases at death, however it came."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from pathlib import Path
from typing import Literal

from inferq.clock import Now


def boot_id() -> str:
    """This boot of this machine: monotonic times of another boot mean nothing here. Empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def taken(folder: Path) -> list[str]:
    """Names of the instances whose processes live: their locks are held."""
    return sorted(file.stem for file in folder.glob("*.lock") if not Instances._is_free(file))


class Instances:
    """This process's lock and the judgement over others; None as folder (a store in memory) knows nobody else."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.boot = boot_id()
        self.name = ""
        self._held: int | None = None

    def enter(self) -> str:
        """Take a new name and its lock; the name is fresh at every start, so that no successor can adopt or hide an orphan."""
        self.leave()
        host = socket.gethostname().split(".", maxsplit=1)[0][:24] or "host"
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            held = os.open(self.folder / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = held
        return self.name

    def leave(self, *, keep_file: bool = False) -> None:
        """Give the lock back and, unless it must show that its claims are free, remove its file. Idempotent."""
        if self._held is not None:
            if not keep_file:
                self.forget(self.name)
            os.close(self._held)
            self._held = None

    def forget(self, name: str) -> None:
        """Remove the lock file of an instance whose claims have been taken back."""
        if self.folder is not None:
            (self.folder / f"{name}.lock").unlink(missing_ok=True)

    def judge(self, name: str, boot: str, lease: int, now: Now) -> Literal["alive", "dead", "expired"]:
        """dead: its lock is free or it belongs to another boot. expired: it let its lease (monotonic ms) run out.

        A lock file that is not there proves nothing (somebody cleaned up): then the lease alone counts.
        """
        if boot != self.boot:
            return "dead"
        if self.folder is not None and self._is_free(self.folder / f"{name}.lock"):
            return "dead"
        return "expired" if lease < now.mono else "alive"

    @staticmethod
    def _is_free(path: Path) -> bool:
        try:
            probe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(probe)
