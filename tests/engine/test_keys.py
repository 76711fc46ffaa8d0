"""Keys: made once, kept as a digest, valid and dead in every process at once; limits of tenants through the same door."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import Does, Gated, tuned

from inferq import AsyncQueue, Queue
from inferq.access import KEY_USED, LOCAL, TenantLimits
from inferq.errors import Conflict, InferqError, InvalidTask, RateLimited, RecordNotFound, Unauthenticated
from inferq.testing import FakeClock, wait_until


async def refused(queue: AsyncQueue, secret: str) -> str:
    with pytest.raises(Unauthenticated) as error:
        await queue.keys.verify(secret)
    return str(error.value)


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]


async def test_a_key_is_verified_with_what_it_may_and_its_secret_is_kept_nowhere(opened: Any, tmp_path: Path) -> None:
    queue = await opened(url=tmp_path / "q.db", work=False)
    made = await queue.keys.create("ci", max_priority="high", models=["qwen3*"], executors=["ollama"])
    principal = await queue.keys.verify(made.secret)
    assert (principal.id, principal.name, principal.role, principal.tenant) == (made.key.id, "ci", "submit", "ci")
    assert (principal.max_priority, principal.models, principal.executors) == (10, ("qwen3*",), ("ollama",))
    (listed,) = await queue.keys.list()
    assert listed == await queue.keys.get("ci")
    assert msgspec.structs.replace(listed, last_used=None) == made.key
    await queue.close()
    secret = made.secret.rpartition("_")[2].encode()
    assert not any(secret in content for content in contents(tmp_path))


async def test_however_many_make_a_key_of_one_name_at_once_no_two_are_valid(opened: Any, tmp_path: Path) -> None:
    """Who revokes it by its name must not leave one behind."""
    here, there = [await opened(url=tmp_path / "q.db", work=False) for _ in range(2)]
    made = await asyncio.gather(*(queue.keys.create("ci") for queue in (here, there) for _ in range(10)), return_exceptions=True)

    assert all(isinstance(one, Conflict) for one in made if isinstance(one, BaseException))
    good = [one for one in made if not isinstance(one, BaseException)]
    valid = [key for key in await here.keys.list() if key.revoked is None]
    assert [one.key.id for one in good] == [key.id for key in valid]
    assert len(valid) <= 1
    alone = await asyncio.gather(*(here.keys.create("other") for _ in range(10)), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in alone) == 1


async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(opened: Any) -> None:
    clock = FakeClock()
    queue = await opened(work=False, clock=clock)
    fine, old, dead = [await queue.keys.create(name, expires=expires) for name, expires in (("a", None), ("b", 60), ("c", None))]
    await queue.keys.revoke("c")
    clock.advance(60)
    wrong = [old.secret, dead.secret, fine.secret[:-1], fine.secret + "a", f"iq_{fine.key.id}_x", "iq_nobody_x", "", "sk-other", "iq_ü_x"]
    assert len({await refused(queue, secret) for secret in wrong}) == 1
    assert (await queue.keys.verify(fine.secret)).name == "a"


async def test_a_key_ends_when_its_time_is_over(opened: Any) -> None:
    clock = FakeClock()
    queue = await opened(work=False, clock=clock)
    made = await queue.keys.create("ci", expires=timedelta(days=90))
    clock.advance(90 * 86_400 - 1)
    await queue.keys.verify(made.secret)
    clock.advance(1)
    await refused(queue, made.secret)
    with pytest.raises(InvalidTask, match="expires: expected a moment in the future"):
        await queue.keys.create("late", expires=datetime(2001, 1, 1, tzinfo=UTC))


async def test_other_processes_hear_of_new_and_revoked_keys(opened: Any, tmp_path: Path) -> None:
    here = await opened(url=tmp_path / "q.db", work=False)
    there = await opened(url=tmp_path / "q.db", work=False)
    assert not await there.keys.configured()
    made = await here.keys.create("ci")

    async def valid() -> bool:
        try:
            return bool(await there.keys.verify(made.secret))
        except Unauthenticated:
            return False

    await wait_until(valid, what="the other process to know the key")
    assert (await there.keys.revoke(made.key.id)).revoked is not None
    await refused(there, made.secret)

    async def dead() -> bool:
        try:
            return not await here.keys.verify(made.secret)
        except Unauthenticated:
            return True

    await wait_until(dead, what="the first process to know that it is revoked")


async def test_a_revoked_key_stays_listed_until_it_is_forgotten(opened: Any) -> None:
    queue = await opened(work=False)
    first = await queue.keys.create("ci")
    with pytest.raises(Conflict, match="'ci'"):
        await queue.keys.create("ci")
    ended = await queue.keys.revoke("ci")
    assert await queue.keys.revoke("ci") == ended
    assert await queue.keys.configured()
    second = await queue.keys.create("ci")
    assert (await queue.keys.get("ci")).id == second.key.id
    await queue.keys.revoke(first.key.id, forget=True)
    await queue.keys.revoke("ci", forget=True)
    assert not await queue.keys.configured()
    with pytest.raises(RecordNotFound, match="'ci'"):
        await queue.keys.revoke("ci")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"role": "root"}, "role"),
        ({"tenant": ""}, "tenant"),
        ({"role": "admin", "tenant": "a"}, "tenant"),
        ({"models": ["*a"]}, "models"),
        ({"executors": [""]}, "executors"),
        ({"max_priority": "urgent"}, "priority"),
    ],
)
async def test_a_wrong_key_is_refused_by_its_field(opened: Any, asked: dict[str, Any], field: str) -> None:
    queue = await opened(work=False)
    with pytest.raises(InferqError) as error:
        await queue.keys.create(**({"name": "ci"} | asked))
    assert getattr(error.value, "field", "") == field
    assert await queue.keys.list() == []


async def test_only_submit_keys_get_a_tenant_of_their_own(opened: Any) -> None:
    queue = await opened(work=False)
    roles = {"read": None, "submit": "submit-key", "operator": None, "admin": None}
    for role, tenant in roles.items():
        assert (await queue.keys.create(f"{role}-key", role=role)).key.tenant == tenant
    assert (await queue.keys.create("team", role="operator", tenant="a")).key.tenant == "a"


async def test_without_any_key_whoever_comes_is_who_the_server_says_and_with_one_nobody_is(opened: Any) -> None:
    queue = await opened(work=False)
    assert await queue.keys.principal_of({"authorization": "Bearer sk-whatever"}, keyless=LOCAL) == LOCAL
    with pytest.raises(Unauthenticated):
        await queue.keys.principal_of({}, keyless=None)
    made = await queue.keys.create("ci")
    for headers in ({}, {"authorization": "Bearer sk-whatever"}, {"x-api-key": "x"}):
        with pytest.raises(Unauthenticated):
            await queue.keys.principal_of(headers, keyless=LOCAL)
    for headers in ({"authorization": f"Bearer {made.secret}"}, {"x-api-key": made.secret}):
        assert (await queue.keys.principal_of(headers, keyless=LOCAL)).name == "ci"
    await queue.keys.revoke("ci")
    with pytest.raises(Unauthenticated):
        await queue.keys.principal_of({}, keyless=LOCAL)


async def test_limits_of_a_tenant_are_set_and_lifted(opened: Any) -> None:
    queue = await opened(Gated(), work=False)
    await queue.keys.set_limits("a", concurrency=2, max_queued=1)
    assert await queue.keys.limits() == {"a": TenantLimits(2, 1)}
    await queue.submit("gated", "work", tenant="a")
    with pytest.raises(RateLimited):
        await queue.submit("gated", "work", tenant="a")
    await queue.keys.set_limits("a")
    assert await queue.keys.limits() == {}
    await queue.submit("gated", "work", tenant="a")
    for wrong in ({"concurrency": 0}, {"max_queued": -1}, {"concurrency": True}):
        with pytest.raises(InvalidTask):
            await queue.keys.set_limits("a", **wrong)


async def test_the_default_account_has_limits_like_any_tenant(opened: Any) -> None:
    queue = await opened(Gated(), work=False)
    await queue.keys.set_limits("", max_queued=1)
    assert await queue.keys.limits() == {"": TenantLimits(None, 1)}
    await queue.submit("gated", "work")
    with pytest.raises(RateLimited, match="of the default account wait"):
        await queue.submit("gated", "work")
    await queue.submit("gated", "work", tenant="a")
    await queue.keys.set_limits("")
    assert await queue.keys.limits() == {}
    with pytest.raises(InvalidTask, match="without blanks"):
        await queue.keys.set_limits(" ", max_queued=1)


async def test_the_last_use_of_a_key_is_told_and_written_once_a_minute_at_most(opened: Any, tmp_path: Path) -> None:
    clock = FakeClock()
    url = f"sqlite:///{tmp_path / 'q.db'}"
    queue = await opened(url=url, work=False, clock=clock)
    used, idle = [await queue.keys.create(name) for name in ("used", "idle")]
    written = queue.store.record

    async def uses() -> int:
        record = await written(KEY_USED, used.key.id)
        return 0 if record is None else record.version

    first = clock.read().wall
    before = await queue.store.last_event()
    for _ in range(50):
        await queue.keys.verify(used.secret)
    await wait_until(lambda: uses(), what="its first use to be written")
    clock.advance(59)
    await queue.keys.verify(used.secret)
    assert (await queue.keys.get("used")).last_used == first
    clock.advance(1)
    await queue.keys.verify(used.secret)
    await refused(queue, idle.secret + "x")
    other = await opened(url=url, work=False, clock=clock)

    async def known() -> bool:
        return {key.name: key.last_used for key in await other.keys.list()} == {"used": first + 60_000, "idle": None}

    await wait_until(known, what="another process to know")
    assert await uses() == 2
    assert await queue.store.last_event() == before, "it is no news"
    await queue.keys.revoke("used", forget=True)
    assert await written(KEY_USED, used.key.id) is None


def test_the_blocking_face_has_the_same_keys() -> None:
    with Queue("sqlite://:memory:", backends=[Does(lambda call: None)], settings=tuned(), work=False) as queue:
        made = queue.keys.create("ci", role="read", expires=60)
        assert queue.keys.get("ci") == made.key
        assert queue.keys.list() == [made.key]
        assert queue.keys.set_limits("a", concurrency=1) == TenantLimits(1) == queue.keys.limits()["a"]
        assert queue.keys.revoke("ci", forget=True).revoked is not None
        assert queue.keys.list() == []
