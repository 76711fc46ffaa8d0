"""Who gets a task when several backends could run it: as a table of the rules, and as properties of the shares."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.placement import Rules, View, is_remote, rank, shares, wish_of
from inferq.policy import Heads, Pool, plan
from inferq.task import FlowKey, Head, lane_of

BOTH = View(local_up=True, remote_up=True)


def placed(*, remote: bool, urgency: int = 5, wish: bool | None = None, view: View = BOTH, priority: int = 0, **rules: object) -> object:
    return rank(remote=remote, priority=priority, wish=wish, urgency=urgency, view=view, rules=Rules(**rules))  # type: ignore[arg-type]


# ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_local_comes_before_remote_and_higher_priority_before_lower() -> None:
    order = [placed(remote=False, priority=9), placed(remote=False), placed(remote=True, priority=99), placed(remote=True)]
    assert order == sorted(order)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("urgency", "waiting", "far"),
    [(15, 0, True), (14, 0, False), (10, 100, True), (10, 99, False), (9, 1000, False), (20, 0, True)],
)
def test_b05_local_first_goes_remote_by_priority_or_by_a_long_queue(urgency: int, waiting: int, far: bool) -> None:
    view = View(local_up=True, remote_up=True, waiting=waiting)
    assert (placed(remote=True, urgency=urgency, view=view, policy="queue") is not None) is far


@pytest.mark.parametrize(("urgency", "far"), [(9, False), (10, True), (15, True)])
def test_b05_without_local_first_what_is_urgent_goes_remote_first(urgency: int, far: bool) -> None:
    remote = placed(remote=True, urgency=urgency, policy="queue", local_first=False)
    local = placed(remote=False, urgency=urgency, policy="queue", local_first=False)
    assert (remote is not None and local is not None and remote < local) is far  # type: ignore[operator]


def test_a_wish_for_remote_goes_remote_under_every_policy_and_local_only_as_a_fallback() -> None:
    for policy in ("overflow", "queue", "never"):
        assert placed(remote=True, wish=True, policy=policy) == (0, 0)
        assert placed(remote=False, wish=True, policy=policy) is None
    down = View(local_up=True, remote_up=False)
    assert placed(remote=False, wish=True, view=down) == (1, 0)
    assert placed(remote=False, wish=True, view=down, fallback_to_local=False) is None


def test_a_wish_for_local_never_goes_remote() -> None:
    for view in (BOTH, View(local_up=False, remote_up=True)):
        assert placed(remote=True, wish=False, view=view) is None


def test_remote_takes_over_while_no_local_one_is_open_unless_it_must_never() -> None:
    down = View(local_up=False, remote_up=True)
    assert placed(remote=True, view=down, policy="queue") is not None
    assert placed(remote=True, view=down, policy="never") is None


def test_what_should_have_gone_remote_stays_away_from_local_ones_if_it_must() -> None:
    down = View(local_up=True, remote_up=False)
    assert placed(remote=False, urgency=15, view=down, policy="queue") is not None
    assert placed(remote=False, urgency=15, view=down, policy="queue", fallback_to_local=False) is None


def test_a_lane_says_what_is_wished() -> None:
    assert [wish_of(lane_of("ollama", "m", remote=remote)) for remote in (None, True, False)] == [None, True, False]
    assert wish_of(lane_of("ollama", "m", "gpu", remote=True)) is None


@pytest.mark.parametrize(
    ("address", "remote"),
    [
        (None, False),
        ("http://127.0.0.1:11434", False),
        ("http://localhost/v1", False),
        ("http://192.168.1.7:8000/v1", False),
        ("http://[::1]:8000", False),
        ("http://[fd00::7]:8000", False),
        ("http://gpu:11434", False),
        ("http://gpu.lan:11434", False),
        ("https://api.openai.com/v1", True),
        ("http://8.8.8.8/v1", True),
        ("https://[2001:4860:4860::8888]/", True),
    ],
)
def test_an_address_outside_this_machine_and_private_networks_is_remote(address: str | None, remote: bool) -> None:
    assert is_remote(address) is remote


# ── shares ──────────────────────────────────────────────────────────────────────────────────────────────────────────

slots = st.lists(st.tuples(st.integers(0, 8), st.floats(0.1, 10)), min_size=1, max_size=5)


@given(st.integers(0, 40), slots, st.integers())
def test_shares_fill_what_is_free_and_no_more_and_depend_on_the_seed_alone(count: int, places: list[tuple[int, float]], seed: int) -> None:
    free, weights = [free for free, _ in places], [weight for _, weight in places]
    given = shares(count, free, weights, random.Random(seed))
    assert sum(given) == min(count, sum(free))
    assert all(mine <= most for mine, most in zip(given, free, strict=True))
    assert given == shares(count, free, weights, random.Random(seed))


def test_shares_follow_the_weights() -> None:
    rng, counts = random.Random(7), Counter[int]()
    for _ in range(4000):
        counts[shares(1, [1, 1], [3.0, 1.0], rng).index(1)] += 1
    assert 2800 < counts[0] < 3200


# ── plans over shared lanes ─────────────────────────────────────────────────────────────────────────────────────────

LANE, OTHER = lane_of("echo", "m"), lane_of("echo", "n")


def heads_of(*flows: tuple[str, int, int, int]) -> Heads:
    """(lane, priority, sequence number of the head, length)"""
    return Heads(Head(n, FlowKey(lane, priority, "low", ""), seq, length) for n, (lane, priority, seq, length) in enumerate(flows, 1))


def pool(name: str, free: int, *, lane: str = LANE, remote: bool = False, priority: int = 0, weight: float = 1.0, **rules: object) -> Pool:
    def say(head: Head) -> tuple[int, int] | None:
        return placed(remote=remote, urgency=head.key.priority, priority=priority, **rules)  # type: ignore[return-value,arg-type]

    return Pool(name, (lane,), free, remote, say, weight)


def granted(wants: list) -> dict[str, int]:  # type: ignore[type-arg]
    counts = Counter[str]()
    for want in wants:
        counts[want.pool] += want.limit
    return dict(counts)


def test_local_slots_are_filled_before_work_overflows_to_remote() -> None:
    pools = [pool("far", 10, remote=True), pool("near", 2)]
    assert granted(plan(heads_of((LANE, 5, 1, 1)), pools, limit=20, now=0)) == {"near": 1}
    assert granted(plan(heads_of((LANE, 5, 1, 5)), pools, limit=20, now=0)) == {"near": 2, "far": 3}


def test_a_full_backend_overflows_to_the_next_by_priority() -> None:
    pools = [pool("spare", 9), pool("strong", 2, priority=10), pool("middle", 3, priority=5)]
    assert granted(plan(heads_of((LANE, 5, 1, 7)), pools, limit=20, now=0)) == {"strong": 2, "middle": 3, "spare": 2}


def test_a_task_is_promised_to_one_backend_only() -> None:
    pools = [pool("a", 4), pool("b", 4)]
    for seed in range(20):
        wants = plan(heads_of((LANE, 5, 1, 3)), pools, limit=20, now=0, rng=random.Random(seed))
        assert sum(granted(wants).values()) == 3


def test_what_must_stay_local_is_not_promised_to_remote_slots() -> None:
    pools = [pool("far", 10, remote=True, policy="queue"), pool("near", 1, policy="queue")]
    wants = plan(heads_of((LANE, 5, 1, 4), (LANE, 15, 2, 3)), pools, limit=20, now=0)
    assert granted(wants) == {"far": 3, "near": 1}


def test_pools_of_one_backend_share_its_slots() -> None:
    pools = [Pool("a", (OTHER,), 2), pool("a", 2), pool("b", 2)]
    for seed in range(20):
        wants = plan(heads_of((LANE, 5, 1, 9), (OTHER, 5, 2, 9)), pools, limit=20, now=0, rng=random.Random(seed))
        assert granted(wants) == {"a": 2, "b": 2}


@given(
    flows=st.lists(st.tuples(st.sampled_from([LANE, OTHER]), st.sampled_from([1, 5, 10, 15]), st.integers(1, 6)), min_size=1, max_size=8),
    free=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    limit=st.integers(1, 12),
    seed=st.integers(),
)
def test_a_plan_never_exceeds_slots_limit_or_waiting_tasks_and_leaves_no_free_slot_for_those_who_may(
    flows: list[tuple[str, int, int]], free: list[int], limit: int, seed: int
) -> None:
    unique = {(lane, priority): length for lane, priority, length in flows}
    heads = heads_of(*((lane, priority, n + 1, length) for n, ((lane, priority), length) in enumerate(unique.items())))
    pools = [
        pool("near", free[0]),
        pool("far", free[1], remote=True),
        Pool("near", (OTHER,), free[0]),
        pool("third", free[2], weight=3.0),
    ]
    wants = plan(heads, pools, limit=limit, now=0, rng=random.Random(seed))
    given = granted(wants)
    slots = {"near": free[0], "far": free[1], "third": free[2]}
    assert all(count <= slots[name] for name, count in given.items())
    waiting = {lane: sum(length for (other, _), length in unique.items() if other == lane) for lane in (LANE, OTHER)}
    assert sum(given.values()) <= min(limit, sum(waiting.values()))
    if not waiting[OTHER]:
        assert sum(given.values()) == min(limit, waiting[LANE], sum(slots.values()))
    first = min(wants, key=lambda want: want.tiers[0], default=None)
    assert (first is None) == (not given)
