"""For tests of programs that use inferq, and of stores and executors that plug into it; names are imported when first asked for.

- `FakeClock`: a clock that a test owns.
- `wait_until`: wait for a condition instead of sleeping.
- `new_task`: a small valid task, ready for `Store.add`.
- `StoreContract`: what every store must do; needs pytest and pytest-asyncio.
- `EchoExecutor`: a model that is not there, with scripted speed and failures.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferq.executors.echo import EchoExecutor
    from inferq.testing.clock import FakeClock
    from inferq.testing.contract import StoreContract
    from inferq.testing.peer import Peer, new_task
    from inferq.testing.waiting import wait_until

__all__ = ["EchoExecutor", "FakeClock", "Peer", "StoreContract", "new_task", "wait_until"]

_HOMES = {
    "EchoExecutor": "inferq.executors.echo",
    "FakeClock": "inferq.testing.clock",
    "Peer": "inferq.testing.peer",
    "StoreContract": "inferq.testing.contract",
    "new_task": "inferq.testing.peer",
    "wait_until": "inferq.testing.waiting",
}
_CONTRACT = ("", "_base", "_add", "_claim", "_finish", "_stream", "_change", "_upkeep", "_prune", "_ask", "_shared")

if "pytest" in sys.modules:
    # Failing assertions of the contract then show their values, as those in test modules do.
    sys.modules["pytest"].register_assert_rewrite(*(f"inferq.testing.contract{part}" for part in _CONTRACT))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
