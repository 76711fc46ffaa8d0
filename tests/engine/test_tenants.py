"""Tenants with limits, with a worker that never polls: nobody is held up, and what waited goes on when there is room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import Gated

from inferq import AsyncQueue
from inferq.access import TENANT, TenantLimits
from inferq.clock import SystemClock
from inferq.errors import RateLimited
from inferq.store import RecordPut
from inferq.testing import wait_until


async def limit(queue: AsyncQueue, tenant: str, **limits: int) -> None:
    body = msgspec.json.encode(TenantLimits(**limits))
    await queue.store.put_record(RecordPut(TENANT, tenant, body), SystemClock().read())


async def test_a_tenant_at_its_limit_leaves_the_slots_to_others_and_goes_on_when_it_has_room(opened: Any) -> None:
    gated = Gated()
    queue = await opened(gated, slots=4)
    await limit(queue, "a", concurrency=1)
    for name in ("a1", "a2", "a3"):
        await queue.submit("gated", "work", payload={"name": name}, tenant="a", priority=10)
    for name in ("b1", "b2"):
        await queue.submit("gated", "work", payload={"name": name}, tenant="b", priority=1)
    await wait_until(lambda: sorted(gated.started) == ["a1", "b1", "b2"], what="one of the limited tenant and all others to run")
    gated.let_go("a1")
    await wait_until(lambda: gated.started[-1] == "a2", what="the next of the limited tenant")
    gated.let_go("a2", "a3")
    await wait_until(lambda: gated.ended[-2:] == ["a2", "a3"], what="the rest of the limited tenant")


async def test_the_limit_counts_what_another_queue_runs(opened: Any, tmp_path: Path) -> None:
    gated = Gated()
    first = await opened(gated, url=tmp_path / "q.db", slots=3)
    await limit(first, "a", concurrency=2)
    second = await opened(gated, url=tmp_path / "q.db", slots=3)
    for number in range(12):
        await (first, second)[number % 2].submit("gated", "work", payload={"name": str(number)}, tenant="a")
    await wait_until(lambda: gated.running == 2, what="as many as may run")
    assert len(gated.started) == 2
    gated.let_all_go()
    await wait_until(lambda: len(gated.ended) == 12, what="all to end")
    assert gated.most == 2


async def test_a_submit_past_the_tenants_queue_bound_is_refused_and_others_are_taken(opened: Any) -> None:
    queue = await opened(Gated(), work=False)
    await limit(queue, "a", max_queued=1)
    await queue.submit("gated", "work", tenant="a")
    with pytest.raises(RateLimited, match="tenant 'a'") as refused:
        await queue.submit("gated", "work", tenant="a")
    assert (refused.value.status, refused.value.retryable) == (429, True)
    await queue.submit("gated", "work", tenant="b")
