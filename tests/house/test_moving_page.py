"""docs/moving.md is true: its commands run, in the order they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "moving.md").read_text("utf-8")


def test_the_commands_run_and_carry_a_task_over(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI", "XDG_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    environment = kept | {"HOME": str(tmp_path), "INFERQ_URL": str(tmp_path / "q.db"), "PATH": path}
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    commands = commands.replace("/srv/new.db", str(tmp_path / "new.db"))
    first = "inferq submit chat --executor echo --model m hello -q\n"
    last = f"inferq --store {tmp_path / 'new.db'} list -q\n"
    script = f"set -e\n{first}{commands}{last}"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == ran.stdout.splitlines()[-1]
