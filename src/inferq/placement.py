"""Where a task runs when several backends could run it: local first, then by priority, then by weight and free slots. Pure.

A *candidate* is one backend that serves the task's lane and is open. `rank` says who comes first, or that a candidate may not have
the task; `shares` divides tasks among candidates of one rank. Randomness is an argument.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from inferq.task import LOCAL, REMOTE, lane_parts

Rank = tuple[int, int]
"""Smaller goes first: (0 for the wanted sort of backend, 1 for the other; its priority, negated)."""

_NEAR: Final = (".local", ".internal", ".lan", ".home.arpa", ".localhost")


class Rules(msgspec.Struct, frozen=True):
    """When remote backends run what local ones could run too; the meaning of each is that of the settings `remote.*`."""

    policy: Literal["overflow", "queue", "never"] = "overflow"
    local_first: bool = True
    max_local_queue: int = 100
    overflow_priority: int = 10
    remote_priority: int = 15
    fallback_to_local: bool = True


class View(msgspec.Struct, frozen=True):
    """What there is to know about a lane: whether any local and any remote candidate is open, and how many tasks wait in it."""

    local_up: bool
    remote_up: bool
    waiting: int = 0


def wish_of(lane: str) -> bool | None:
    """Whether the lane asks for a remote backend (True), forbids one (False), or leaves it to the rules (also with a named backend)."""
    backend = lane_parts(lane)[2]
    return True if backend == REMOTE else False if backend == LOCAL else None


def rank(*, remote: bool, priority: int, wish: bool | None, urgency: int, view: View, rules: Rules) -> Rank | None:
    """The rank of a candidate for a task of priority `urgency`; None when it may not have it.

    The rules are the forerunners': with `queue` and `local_first` a task goes remote from `remote_priority` on, or from
    `overflow_priority` on while `max_local_queue` tasks wait; without `local_first`, from `overflow_priority` on. Where no local
    backend is open, remote ones take what they would not have had, unless the policy is `never`.
    """
    if wish is not None:
        return _wished(wish, remote=remote, priority=priority, view=view, rules=rules)
    bound = rules.remote_priority if rules.local_first else rules.overflow_priority
    prefers_remote = rules.policy == "queue" and urgency >= bound
    if not remote:
        allowed = not prefers_remote or view.remote_up or rules.fallback_to_local
        return (int(prefers_remote), -priority) if allowed else None
    if prefers_remote:
        return (0, -priority)
    if not view.local_up:
        return (1, -priority) if rules.policy != "never" else None
    long_queue = rules.local_first and view.waiting >= rules.max_local_queue and urgency >= rules.overflow_priority
    overflows = rules.policy == "overflow" or (rules.policy == "queue" and long_queue)
    return (1, -priority) if overflows else None


def _wished(wish: bool, *, remote: bool, priority: int, view: View, rules: Rules) -> Rank | None:
    if remote is wish:
        return (0, -priority)
    return (1, -priority) if wish and rules.fallback_to_local and not view.remote_up else None


def shares(count: int, free: Sequence[int], weights: Sequence[float], rng: random.Random) -> list[int]:
    """How many of `count` tasks each candidate of one rank gets: drawn one by one by weight times slots still free."""
    left = list(free)
    given = [0] * len(left)
    for _ in range(min(count, sum(left))):
        chances = [slots * weight for slots, weight in zip(left, weights, strict=True)]
        (chosen,) = rng.choices(range(len(left)), weights=chances)
        left[chosen] -= 1
        given[chosen] += 1
    return given


def is_remote(address: str | None) -> bool:
    """Whether a server's address lies outside: not this machine, not a private network, not a name without a dot. None is here."""
    if not address:
        return False
    host = (urlsplit(address if "://" in address else f"http://{address}").hostname or "").lower()
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "." in host and not host.endswith(_NEAR)
    return not (ip.is_loopback or ip.is_private or ip.is_link_local or ip.is_unspecified)
