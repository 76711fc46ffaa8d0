"""What the tests of the documentation share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# pages.py here and calls.py there are shared, which importlib mode does not provide for.
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
sys.path.insert(0, str(Path(__file__).parent))

from pages import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
