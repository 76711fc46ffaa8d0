"""What of a changed configuration a running process takes over, and what waits for its next start. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from inferq.config.settings import Section, Settings

LIVE: Final = (
    "backends",
    "breaker",
    "health",
    "log",
    "remote",
    "retry",
    "server.access_log",
    "server.heartbeat",
    "server.max_body_bytes",
    "server.max_import_bytes",
    "server.max_wait",
    "store.max_payload_bytes",
    "store.max_queue_size",
    "store.prune_interval",
    "store.retention",
    "worker.ageing",
    "worker.ageing_bound",
    "worker.claim_batch",
    "worker.idle_timeout",
    "worker.poll_interval",
    "worker.rescue_interval",
    "worker.shutdown_grace",
    "worker.slots",
    "worker.timeout",
)
"""Keys and groups that hold from a reload on. Every other key needs a new start: nothing is taken for live that nobody made so."""


class Changes(msgspec.Struct, frozen=True):
    """What differs between two configurations: `settings` are to be in force, `applied` the keys that changed in them, `restart` those
    that keep their old value until the next start."""

    settings: Settings
    applied: list[str]
    restart: list[str]

    def __str__(self) -> str:
        if not self.applied and not self.restart:
            return "nothing has changed"
        said = [f"applied: {', '.join(self.applied)}"] if self.applied else []
        said += [f"needs a restart: {', '.join(self.restart)}"] if self.restart else []
        return "; ".join(said)


def is_live(name: str) -> bool:
    """Whether a running process takes a changed value of this key over."""
    return any(name == live or name.startswith(f"{live}.") for live in LIVE)


def changes(before: Settings, after: Settings) -> Changes:
    """What a process that runs with `before` does about `after`."""
    applied: list[str] = []
    restart: list[str] = []
    backends = [*_backends(before, after)]
    tree = _merged(before, after, (), applied, restart)
    return Changes(tree, [*applied, *backends], restart)


def _merged(before: Any, after: Any, path: tuple[str, ...], applied: list[str], restart: list[str]) -> Any:
    made: dict[str, Any] = {}
    for name in before.__struct_fields__:
        old, new, here = getattr(before, name), getattr(after, name), (*path, name)
        key = ".".join(here)
        if isinstance(old, Section):
            made[name] = _merged(old, new, here, applied, restart)
        elif old == new or key == "backends":
            made[name] = new
        elif is_live(key):
            made[name] = new
            applied.append(key)
        else:
            made[name] = old
            restart.append(key)
    return type(before)(**made)


def _backends(before: Settings, after: Settings) -> list[str]:
    """The backends that came, went or changed. Their secrets are compared, never named."""
    old, new = ({backend.name: backend for backend in settings.backends} for settings in (before, after))
    said = [f"backends.{name} (new)" for name in new if name not in old]
    said += [f"backends.{name} (gone)" for name in old if name not in new]
    return said + [f"backends.{name}" for name in new if name in old and new[name] != old[name]]
