"""The policy over heads takes what a full sort of all waiting tasks would take, and looks at heads only."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferq.policy import DEFAULT_STEPS, Heads, Pool, View, Want, ageing, choose, highest_priority, plan, rung_of
from inferq.task import FlowKey, Head, Size

LANES = ("a/m", "b/m", "c/m")
keys = st.builds(
    FlowKey,
    lane=st.sampled_from(LANES),
    priority=st.sampled_from([1, 5, 10]),
    size=st.sampled_from(["low", "long"]),
    tenant=st.sampled_from(["", "t", "u"]),
)


class Waiting:
    """All waiting tasks, flow by flow: what a store knows and the policy does not see."""

    def __init__(self) -> None:
        self.numbers: dict[FlowKey, int] = {}
        self.flows: dict[FlowKey, list[int]] = {}

    def head(self, key: FlowKey) -> Head:
        number = self.numbers.setdefault(key, len(self.numbers) + 1)
        seqs = self.flows.get(key, [])
        return Head(number, key, seqs[0] if seqs else 0, len(seqs))

    def put(self, key: FlowKey, seq: int) -> None:
        bisect.insort(self.flows.setdefault(key, []), seq)

    def tasks(self, lanes: Sequence[str]) -> list[tuple[int, int]]:
        """(-priority, seq) of every waiting task in these lanes, best first."""
        return sorted((-key.priority, seq) for key, seqs in self.flows.items() if key.lane in lanes for seq in seqs)

    def take(self, want: Want) -> list[tuple[FlowKey, int]]:
        """What a store pops for a want: tier after tier, inside a tier by sequence number."""
        by_number = {number: key for key, number in self.numbers.items()}
        taken: list[tuple[FlowKey, int]] = []
        for tier in want.tiers:
            for seq, key in sorted((seq, by_number[flow]) for flow in tier for seq in self.flows.get(by_number[flow], [])):
                if len(taken) < want.limit:
                    self.flows[key].remove(seq)
                    taken.append((key, seq))
        return taken


def test_no_heads_no_want() -> None:
    assert plan(Heads(), [Pool("p", LANES, 4)], limit=4, now=0) == []
    assert choose([], View(), 0) == []


def head(flow: int, *, lane: str = "a/m", priority: int = 5, size: Size = "low", tenant: str = "", seq: int, length: int = 1) -> Head:
    return Head(flow, FlowKey(lane, priority, size, tenant), seq, length)


def test_nothing_is_planned_for_lanes_that_no_pool_serves_or_without_a_free_slot() -> None:
    heads = Heads([head(1, lane="a/m", seq=1)])
    assert plan(heads, [Pool("p", ["b/m"], 4)], limit=4, now=0) == []
    assert plan(heads, [Pool("p", ["a/m"], 0)], limit=4, now=0) == []
    assert plan(heads, [Pool("p", ["a/m"], 4)], limit=0, now=0) == []


def test_a_lower_tier_is_wanted_only_for_slots_that_the_better_one_leaves() -> None:
    heads = Heads([head(1, priority=10, seq=5, length=2), head(2, priority=1, seq=1, length=9)])
    assert plan(heads, [Pool("p", ["a/m"], 2)], limit=2, now=0) == [Want("p", ((1,),), 2)]
    assert plan(heads, [Pool("p", ["a/m"], 3)], limit=3, now=0) == [Want("p", ((1,), (2,)), 3)]


def test_a_want_names_no_more_flows_than_slots() -> None:
    heads = Heads(head(n, tenant=str(n), seq=1000 - n) for n in range(500))
    (want,) = plan(heads, [Pool("p", ["a/m"], 3)], limit=3, now=0)
    assert want.tiers == ((499, 498, 497),)


def test_the_frontier_has_one_head_a_rung_the_oldest() -> None:
    heads = Heads([head(1, tenant="x", seq=7), head(2, tenant="y", seq=3), head(3, size="long", seq=9), head(4, lane="b/m", seq=1)])
    front = heads.frontier(["a/m"])
    assert {rung_of(h): h.seq for h in front} == {("a/m", 5, "low"): 3, ("a/m", 5, "long"): 9}
    assert [h.flow for h in heads.frontier(["a/m"], without={("a/m", 5, "low")})] == [3]


def test_a_step_only_narrows_and_never_to_nothing() -> None:
    heads = [head(1, priority=1, seq=1), head(2, priority=10, seq=3), head(3, priority=10, seq=2)]
    assert [h.flow for h in highest_priority(heads, View(), 0)] == [2, 3]
    assert tuple(DEFAULT_STEPS) == (highest_priority,)


def test_further_steps_are_added_as_functions() -> None:
    def one_tenant(heads: Sequence[Head], view: View, now: int) -> Sequence[Head]:
        return [h for h in heads if h.key.tenant == min(h.key.tenant for h in heads)]

    heads = [head(1, priority=10, tenant="b", seq=1), head(2, priority=10, tenant="a", seq=2), head(3, tenant="a", seq=0)]
    assert [h.flow for h in choose(heads, View(), 0, steps=(highest_priority, one_tenant))] == [2]


def test_a_flow_that_emptied_is_forgotten_with_its_lane() -> None:
    heads = Heads([head(1, seq=1), head(2, lane="b/m", seq=2)])
    heads.update([head(1, seq=0, length=0)])
    assert (len(heads), [h.flow for h in heads]) == (1, [2])
    assert heads.frontier(["a/m", "b/m"]) == [head(2, lane="b/m", seq=2)]
    assert list(heads.lanes) == ["b/m"]


class HeadsWalk(RuleBasedStateMachine):
    """Heads fed by random changes, against all tasks sorted."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = Waiting()
        self.heads = Heads()
        self.taken: list[tuple[FlowKey, int]] = []
        self.seq = 0

    def tell(self, keys: Sequence[FlowKey]) -> None:
        self.heads.update([self.waiting.head(key) for key in keys])

    @rule(keys=st.lists(keys, min_size=1, max_size=8))
    def submit(self, keys: list[FlowKey]) -> None:
        for key in keys:
            self.seq += 1
            self.waiting.put(key, self.seq)
        self.tell(keys)

    @rule(key=keys, at=st.integers(0, 5))
    def cancel(self, key: FlowKey, at: int) -> None:
        seqs = self.waiting.flows.get(key, [])
        if seqs:
            seqs.pop(at % len(seqs))
            self.tell([key])

    @rule(pick=st.integers(0, 100))
    def give_back(self, pick: int) -> None:
        """A release or a retry: an old sequence number is the head again."""
        if self.taken:
            key, seq = self.taken.pop(pick % len(self.taken))
            self.waiting.put(key, seq)
            self.tell([key])

    @rule(key=keys)
    def hear_it_again(self, key: FlowKey) -> None:
        self.tell([key])

    @rule(limit=st.integers(1, 12), lanes=st.sets(st.sampled_from(LANES), min_size=1))
    def serve(self, limit: int, lanes: set[str]) -> None:
        expected = self.waiting.tasks(sorted(lanes))[:limit]
        wants = plan(self.heads, [Pool("p", sorted(lanes), limit)], limit=limit, now=0)
        got = [task for want in wants for task in self.waiting.take(want)]
        assert [(-key.priority, seq) for key, seq in got] == expected
        self.taken += got
        self.tell([key for key, _ in got])

    @invariant()
    def heads_are_those_of_the_non_empty_flows(self) -> None:
        expected = {key: self.waiting.head(key) for key, seqs in self.waiting.flows.items() if seqs}
        assert {h.key: h for h in self.heads} == expected


TestHeads = HeadsWalk.TestCase

flows = st.lists(st.tuples(keys, st.integers(1, 4)), max_size=12, unique_by=lambda flow: flow[0])
pools = st.lists(st.tuples(st.sets(st.sampled_from(LANES), min_size=1), st.integers(0, 5)), min_size=1, max_size=3)


def filled(flows: list[tuple[FlowKey, int]]) -> tuple[Waiting, Heads]:
    waiting = Waiting()
    seq = 0
    for turn in range(4):
        for key, length in flows:
            if turn < length:
                seq += 1
                waiting.put(key, seq)
    return waiting, Heads([waiting.head(key) for key, _ in flows])


@given(flows, pools, st.integers(0, 12))
def test_no_pool_gets_more_than_its_free_slots_nor_all_more_than_the_limit(
    flows: list[tuple[FlowKey, int]], pools: list[tuple[set[str], int]], limit: int
) -> None:
    waiting, heads = filled(flows)
    given_pools = {f"p{n}": Pool(f"p{n}", sorted(lanes), free) for n, (lanes, free) in enumerate(pools)}
    total = 0
    for want in plan(heads, list(given_pools.values()), limit=limit, now=0):
        taken = waiting.take(want)
        assert len(taken) <= given_pools[want.pool].free
        assert {key.lane for key, _ in taken} <= set(given_pools[want.pool].lanes)
        total += len(taken)
    assert total <= limit


@given(flows, st.lists(st.integers(0, 5), min_size=3, max_size=3), st.integers(1, 15))
def test_pools_of_their_own_lanes_are_served_by_priority_over_all(flows: list[tuple[FlowKey, int]], free: list[int], limit: int) -> None:
    waiting, heads = filled(flows)
    servable = [task for lane, slots in zip(LANES, free, strict=True) for task in waiting.tasks([lane])[:slots]]
    expected = sorted(priority for priority, _ in servable)[:limit]
    wants = plan(heads, [Pool(lane, [lane], slots) for lane, slots in zip(LANES, free, strict=True)], limit=limit, now=0)
    taken = [waiting.take(want) for want in wants]
    assert sorted(-key.priority for part in taken for key, _ in part) == expected
    for part in taken:
        assert [(-key.priority, seq) for key, seq in part] == sorted((-key.priority, seq) for key, seq in part)


def test_ageing_lets_a_starving_class_through_once_and_no_more() -> None:
    low, high = FlowKey("l", 1, "low", ""), FlowKey("l", 5, "low", "")
    heads = Heads()
    heads.update([Head(1, low, 1, 9), Head(2, high, 2, 9)], 0)
    step = ageing(seconds=10, bound=10)

    def served(now: int) -> list[int]:
        return [flow for want in plan(heads, [Pool("p", ["l"], 1)], limit=1, now=now, steps=[step]) for flow in want.tiers[0]]

    assert served(39_000) == [2]
    heads.update([Head(2, high, 4, 8)], 39_500)
    assert served(41_000) == [1], "four levels in 40 s: as good as the fresh head of the higher class, and older"
    heads.update([Head(1, low, 3, 8)], 41_000)
    assert served(42_000) == [2], "its next head begins to age anew"


def test_ageing_is_bounded() -> None:
    low, high = FlowKey("l", 1, "low", ""), FlowKey("l", 15, "low", "")
    heads = Heads()
    heads.update([Head(1, low, 1, 9)], 0)
    heads.update([Head(2, high, 2, 9)], 10**9)
    tier = choose(heads.frontier(["l"]), View(heads.since), 10**9, steps=[ageing(seconds=1, bound=10)])
    assert [head.flow for head in tier] == [2]
