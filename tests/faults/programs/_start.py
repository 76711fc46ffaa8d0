"""How each program of the harness begins: the path to the harness, its arguments, a way to say things."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from faultkit.place import Place


def arguments() -> tuple[Place, dict[str, Any]]:
    """The place, and what else the test said."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return Place(**given.pop("place")), given


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
