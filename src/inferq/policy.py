"""Which flows are served next. Pure: no I/O, no clock of its own; cost grows with the flows that can run, never with tasks waiting.

A *rung* is all flows of one (lane, priority, size class); tenants differ inside it. The scheduler sees one head per rung, the one
with the smallest sequence number, and narrows them by `steps`: functions that each keep the best and never add. What is left is a
*tier* of rungs that are equally good, and inside a tier the claim itself serves first in, first out.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from inferq.placement import Rank, shares
from inferq.task import FlowKey, Head, Size

Rung = tuple[str, int, Size]
"""(lane, priority, size class)"""


class View(msgspec.Struct, frozen=True):
    """What a step may know beside the heads. `since` is when each flow's head was first seen at the head, in the milliseconds of `now`."""

    since: Mapping[int, int] = {}


Step = Callable[[Sequence[Head], View, int], Sequence[Head]]
"""(heads of rungs, view, now in milliseconds of the monotonic clock) -> the ones to keep, at least one of a non-empty sequence."""


def highest_priority(heads: Sequence[Head], view: View, now: int) -> Sequence[Head]:
    """Higher priority first, always: a lower one starves as long as higher ones keep all slots busy."""
    best = max(head.key.priority for head in heads)
    return [head for head in heads if head.key.priority == best]


def ageing(seconds: float, bound: int) -> Step:
    """Higher priority first, where a head gains one level for each `seconds` that it stands unserved, `bound` levels at most.

    Serving a flow brings a new head, which begins to age anew: a class that would starve is served once in a while and no more.
    """
    every = max(1, round(seconds * 1000))

    def aged_priority(heads: Sequence[Head], view: View, now: int) -> Sequence[Head]:
        levels = [head.key.priority + min(bound, (now - view.since.get(head.flow, now)) // every) for head in heads]
        best = max(levels)
        return [head for head, level in zip(heads, levels, strict=True) if level == best]

    return aged_priority


DEFAULT_STEPS: tuple[Step, ...] = (highest_priority,)


def choose(heads: Sequence[Head], view: View, now: int, *, steps: Sequence[Step] = DEFAULT_STEPS) -> Sequence[Head]:
    """The tier to serve next, by its rungs' heads; empty only if no head was given."""
    for step in steps:
        if len(heads) < 2:
            return heads
        heads = step(heads, view, now)
    return heads


def rung_of(head: Head) -> Rung:
    return (head.key.lane, head.key.priority, head.key.size)


class Heads:
    """The heads of all non-empty flows, kept so that the next tier is found without looking at every flow.

    Fed by `update` with what the store reports; stale heap entries are dropped when they surface.
    """

    __slots__ = ("_by_flow", "_rungs", "since")

    def __init__(self, heads: Iterable[Head] = ()) -> None:
        self._by_flow: dict[int, Head] = {}
        self._rungs: dict[str, dict[Rung, list[tuple[int, int]]]] = {}
        self.since: dict[int, int] = {}
        """When each flow's head was first seen there, in the milliseconds that `update` is told."""
        self.update(heads)

    def __len__(self) -> int:
        return len(self._by_flow)

    def __iter__(self) -> Iterator[Head]:
        return iter(self._by_flow.values())

    @property
    def lanes(self) -> Iterable[str]:
        """Lanes that have, or lately had, waiting tasks."""
        return self._rungs.keys()

    def update(self, heads: Iterable[Head], now: int = 0) -> None:
        """Take newer heads; one with length 0 removes its flow."""
        for head in heads:
            known = self._by_flow.get(head.flow)
            if head.length == 0:
                self._by_flow.pop(head.flow, None)
                self.since.pop(head.flow, None)
                continue
            self._by_flow[head.flow] = head
            if known is None or known.seq != head.seq:
                self.since[head.flow] = now
                rung = rung_of(head)
                heapq.heappush(self._rungs.setdefault(rung[0], {}).setdefault(rung, []), (head.seq, head.flow))

    def frontier(self, lanes: Iterable[str], *, without: frozenset[Rung] | set[Rung] = frozenset()) -> list[Head]:
        """The head with the smallest sequence number of each rung in these lanes."""
        found: list[Head] = []
        for lane in lanes:
            rungs = self._rungs.get(lane)
            if rungs is None:
                continue
            empty: list[Rung] = []
            for rung, heap in rungs.items():
                head = self._top(heap)
                if head is None:
                    empty.append(rung)
                elif rung not in without:
                    found.append(head)
            for rung in empty:
                del rungs[rung]
            if not rungs:
                del self._rungs[lane]
        return found

    def waiting(self, lane: str, bound: int) -> int:
        """How many tasks wait in a lane, counted up to `bound` and the flow that reaches it."""
        count = 0
        for heap in self._rungs.get(lane, {}).values():
            for seq, flow in heap:
                head = self._by_flow.get(flow)
                if head is not None and head.seq == seq:
                    count += head.length
                    if count >= bound:
                        return count
        return count

    def first(self, tier: Sequence[Head], limit: int) -> tuple[list[Head], int]:
        """Up to `limit` flows of the tier with the smallest heads, and how many tasks wait in those flows.

        `limit` tasks in order can touch only the `limit` flows with the smallest heads, so more is never needed.
        """
        found: list[Head] = []
        for leader in tier:
            heap = self._rungs[leader.key.lane][rung_of(leader)]
            taken: list[tuple[int, int]] = []
            mine = 0
            while mine < limit and (head := self._top(heap)) is not None:
                found.append(head)
                mine += 1
                taken.append(heapq.heappop(heap))
                while heap and heap[0] == taken[-1]:
                    heapq.heappop(heap)
            for entry in taken:
                heapq.heappush(heap, entry)
        if len(tier) > 1:
            found = heapq.nsmallest(limit, found, key=lambda head: head.seq)
        return found, sum(head.length for head in found)

    def _top(self, heap: list[tuple[int, int]]) -> Head | None:
        while heap:
            seq, flow = heap[0]
            head = self._by_flow.get(flow)
            if head is not None and head.seq == seq:
                return head
            heapq.heappop(heap)
        return None


class Want(msgspec.Struct, frozen=True, gc=False):
    """A wish to claim: up to `limit` tasks, tier after tier, inside a tier by sequence number. `pool` says for whose slots.

    Flows are named by their number, or by their key where the number is not known yet (a flow without a task is passed over).
    """

    pool: str
    tiers: tuple[tuple[int | FlowKey, ...], ...]
    limit: int
    remote: bool = False
    """Whether the pool is a remote backend: the store keeps both with the attempt."""


class Pool(msgspec.Struct, frozen=True):
    """Slots that are free in one place, and the open lanes that may use them. Pools of one name share their slots.

    A pool with a `rank` has one lane, which other pools serve too: `rank` says how a task of that head ranks here (smaller is served
    first), or None that it may not run here; `weight` divides tasks among pools of one rank.
    """

    name: str
    lanes: Sequence[str]
    free: int
    remote: bool = False
    rank: Callable[[Head], Rank | None] | None = None
    weight: float = 1.0


def plan(
    heads: Heads,
    pools: Sequence[Pool],
    *,
    limit: int,
    now: int,
    view: View | None = None,
    steps: Sequence[Step] = DEFAULT_STEPS,
    rng: random.Random | None = None,
) -> list[Want]:
    """Fill the free slots of the pools, at most `limit` over all; one want a pool, empty when nothing can run.

    The best tier over all pools is served first; the next one only with what it leaves free. `rng` draws where pools share a lane.
    """
    view = view or View(heads.since)
    if all(pool.rank is None for pool in pools) and len({pool.name for pool in pools}) == len(pools):
        return _plan_apart(heads, pools, limit, now, view, steps)
    grants = _Grants(heads, pools, limit, rng or random.Random(0))  # noqa: S311 - a spread needs no secrecy
    while grants.left > 0:
        fronts = grants.fronts()
        tier = frozenset(head.flow for head in choose([head for _, front in fronts for head in front], view, now, steps=steps))
        if not tier:
            break
        served = [(number, mine) for number, front in fronts if (mine := [head for head in front if head.flow in tier])]
        served.sort(key=lambda entry: min(head.seq for head in entry[1]))
        shared: dict[str, list[tuple[int, list[Head]]]] = {}
        for number, mine in served:
            if pools[number].rank is not None:
                shared.setdefault(pools[number].lanes[0], []).append((number, mine))
        for number, mine in served:
            if pools[number].rank is None:
                grants.give(number, mine)
            elif group := shared.pop(pools[number].lanes[0], None):
                grants.divide(group)
    return grants.wants()


def _plan_apart(heads: Heads, pools: Sequence[Pool], limit: int, now: int, view: View, steps: Sequence[Step]) -> list[Want]:
    """As `plan`, where no two pools share a lane or slots: what nearly every decision is, and so without a detour."""
    free = {pool.name: min(pool.free, limit) for pool in pools if pool.free > 0}
    tiers: dict[str, list[tuple[int, ...]]] = {}
    used: dict[str, set[Rung]] = {name: set() for name in free}
    left = limit
    while left > 0:
        fronts = [(pool, heads.frontier(pool.lanes, without=used[pool.name])) for pool in pools if free.get(pool.name, 0) > 0]
        tier = frozenset(head.flow for head in choose([head for _, front in fronts for head in front], view, now, steps=steps))
        if not tier:
            break
        served = [(pool, [head for head in front if head.flow in tier]) for pool, front in fronts]
        for pool, mine in sorted((s for s in served if s[1]), key=lambda s: min(head.seq for head in s[1])):
            room = min(free[pool.name], left)
            used[pool.name].update(rung_of(head) for head in mine)
            if room == 0:
                continue
            flows, waiting = heads.first(mine, room)
            tiers.setdefault(pool.name, []).append(tuple(head.flow for head in flows))
            taken = min(room, waiting)
            free[pool.name] -= taken
            left -= taken
    served_pools = [pool for pool in pools if pool.name in tiers]
    return [Want(pool.name, tuple(tiers[pool.name]), min(pool.free, limit) - free[pool.name], pool.remote) for pool in served_pools]


class _Grants:
    """What a plan has promised so far."""

    def __init__(self, heads: Heads, pools: Sequence[Pool], limit: int, rng: random.Random) -> None:
        self.left = limit
        self._heads = heads
        self._pools = pools
        self._rng = rng
        self._free: dict[str, int] = {}
        for pool in pools:
            self._free[pool.name] = max(self._free.get(pool.name, 0), min(pool.free, limit))
        self._used: list[set[Rung]] = [set() for _ in pools]
        self._tiers: list[list[tuple[int, ...]]] = [[] for _ in pools]
        self._granted = [0] * len(pools)

    def fronts(self) -> list[tuple[int, list[Head]]]:
        """For each pool with room, by its number, the heads that it may serve next."""
        found: list[tuple[int, list[Head]]] = []
        for number, pool in enumerate(self._pools):
            if self._room(number) > 0:
                front = self._heads.frontier(pool.lanes, without=self._used[number])
                found.append((number, front if pool.rank is None else [head for head in front if pool.rank(head) is not None]))
        return found

    def give(self, number: int, mine: Sequence[Head]) -> None:
        """All the room there is to the tasks behind these heads."""
        self._used[number].update(rung_of(head) for head in mine)
        room = min(self._room(number), self.left)
        if room > 0:
            flows, waiting = self._heads.first(mine, room)
            self._promise(number, flows, min(room, waiting))

    def divide(self, group: Sequence[tuple[int, list[Head]]]) -> None:
        """One lane's tasks among the pools that serve it: rank by rank, inside a rank by weight and free slots."""
        heads = {head.flow: head for _, front in group for head in front}
        for number, front in group:
            self._used[number].update(rung_of(head) for head in front)
        for priority in dict.fromkeys(head.key.priority for head in sorted(heads.values(), key=lambda head: head.seq)):
            mine = [head for head in heads.values() if head.key.priority == priority]
            self._divide([number for number, _ in group], mine)

    def _divide(self, numbers: Sequence[int], mine: Sequence[Head]) -> None:
        ranked: dict[Rank, list[int]] = {}
        for number in numbers:
            rank = self._pools[number].rank
            if rank is not None and (place := rank(mine[0])) is not None:
                ranked.setdefault(place, []).append(number)
        room = min(sum(self._room(number) for number in numbers), self.left)
        if room <= 0:
            return
        flows, waiting = self._heads.first(mine, room)
        waiting = min(waiting, room)
        for place in sorted(ranked):
            pools = [self._pools[number] for number in ranked[place]]
            free = [self._room(number) for number in ranked[place]]
            given = shares(waiting, free, [pool.weight for pool in pools], self._rng)
            for number, count in zip(ranked[place], given, strict=True):
                if count:
                    self._promise(number, flows, count)
                    waiting -= count

    def _room(self, number: int) -> int:
        pool = self._pools[number]
        return min(self._free[pool.name], pool.free - self._granted[number])

    def _promise(self, number: int, flows: Sequence[Head], count: int) -> None:
        self._tiers[number].append(tuple(head.flow for head in flows))
        self._granted[number] += count
        self._free[self._pools[number].name] -= count
        self.left -= count

    def wants(self) -> list[Want]:
        return [
            Want(pool.name, tuple(tiers), count, pool.remote)
            for pool, tiers, count in zip(self._pools, self._tiers, self._granted, strict=True)
            if tiers
        ]
