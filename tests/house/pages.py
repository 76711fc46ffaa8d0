"""Pages of the documentation as tests see them: their blocks of code, and a folder to run them in as a newcomer would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
INFERQ = Path(sys.executable).with_name("inferq")


class Page:
    """A page of docs/, by its name."""

    def __init__(self, name: str) -> None:
        self.text = (DOCS / name).read_text("utf-8")

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)

    def commands(self) -> list[str]:
        return [line for block in self.blocks("sh") for line in block.splitlines()]


class Desk:
    """A home that nobody used before, where `inferq` is installed and nothing is configured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
        path = f"{INFERQ.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        self.environment = kept | {"HOME": str(folder), "PATH": path, "INFERQ_URL": str(folder / "q.db")}

    def program(self, text: str) -> list[str]:
        """The lines that a program prints; it ends well and warns of nothing."""
        return self._ran([sys.executable, "-W", "error", "-c", text], text).splitlines()

    def command(self, line: str) -> str:
        """What a line of shell prints; it ends well."""
        return self._ran(["sh", "-c", line], line)

    def _ran(self, words: list[str], what: str) -> str:
        ran = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert ran.returncode == 0, f"{what}: {ran.stderr}"
        return ran.stdout
