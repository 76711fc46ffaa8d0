"""What the guide's examples share: a queue with one pretended model, so that they cost nothing and run anywhere.

`EchoExecutor` answers with what it was asked; its payload can script slowness and failures. Put `ollama`, `openai` or `llamacpp` in its
place and every example works on a real model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq import AsyncQueue, Settings
from inferq.config import RetrySettings
from inferq.testing import EchoExecutor


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[AsyncQueue]:
    """An open queue on a file, which also runs the tasks. Retries wait a thousandth of a second, to keep the examples quick."""
    settings = Settings(retry=RetrySettings(initial_delay=0.001, max_delay=0.001))
    async with AsyncQueue(f"sqlite:///{tmp_path / 'inferq.db'}", backends=[EchoExecutor("echo")], settings=settings) as opened:
        yield opened
