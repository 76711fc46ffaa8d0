"""The store contract, part nine: a listing finds what the filter language says, in its order, page by page, nothing left out or twice."""

# ruff: noqa: S101, S311 - a contract asserts, and its choices need no secrets; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from inferq.batch import BatchLine, NewBatch
from inferq.errors import FailureCode, InvalidQuery
from inferq.executor import Answer
from inferq.query import Search, matches, parse, search
from inferq.store import Cursor, Filter
from inferq.task import FINAL, FlowKey, NewTask, Outcome, Size, State, Submission, Task, lane_of, new_id
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


def kept(spec: Submission, *, size: Size = "low", estimate: int = 7) -> NewTask:
    """A task as the door makes one of this submission."""
    labels = [("tag", tag) for tag in dict.fromkeys(spec.tags)]
    labels += [] if spec.schedule is None else [("schedule", spec.schedule)]
    return NewTask(
        id=new_id(),
        flow=FlowKey(lane_of(spec.executor, spec.model, spec.backend), spec.priority, size, spec.tenant),
        action=spec.action,
        spec=msgspec.json.encode(spec),
        estimate=estimate,
        key=spec.key,
        digest=b"" if spec.key is not None else None,
        due=spec.scheduled_at,
        expires=spec.deadline,
        batch=spec.batch,
        labels=tuple(labels),
    )


def asked(here: Peer, text: str) -> Search:
    return search(parse(text), here.now.wall)


async def pages(here: Peer, question: Search, *, limit: int = 1000) -> list[Task]:
    """Every page of a listing, put together."""
    found: list[Task] = []
    after: Cursor | None = None
    while True:
        page = await here.store.find(question, after=after, limit=limit)
        assert len(page.tasks) <= limit
        found += page.tasks
        if page.after is None:
            return found
        after = page.after


async def ids(here: Peer, text: str) -> list[str]:
    return [task.id for task in await pages(here, asked(here, text))]


class _Chance:
    """Tasks, lives and filters by chance, from few words so that they meet."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)

    def task(self, number: int, wall: int) -> NewTask:
        pick = self.pick
        some: dict[str, Any] = {}
        if pick.random() < 0.4:
            some["tags"] = pick.sample(["nightly", "night", "test", "a b"], pick.randint(1, 3))
        if pick.random() < 0.3:
            some["metadata"] = {"customer": pick.choice([1, "1", "two", True, None, ["1", 2]]), "a": {"b": pick.choice(["x", 1.5])}}
        if pick.random() < 0.3:
            some["batch"] = pick.choice(["b1", "b2"])
        if pick.random() < 0.2:
            some["schedule"] = pick.choice(["daily", "daily-report"])
        if pick.random() < 0.3:
            some["key"] = f"key-{number}"
        if pick.random() < 0.2:
            some["scheduled_at"] = wall + pick.randint(1, 90_000)
        if pick.random() < 0.2:
            some["deadline"] = wall + 10**8 + pick.randint(1, 90_000)
        if pick.random() < 0.3:
            some["backend"] = pick.choice(["gpu", "gpu-2"])
        words = pick.choice(["Why is the sky blue?", 'he said "no"', "über alles", "plain words", "WHY not"])
        spec = Submission(
            executor=pick.choice(["ollama", "echo"]),
            action=pick.choice(["chat", "generate"]),
            model=pick.choice(["", "m", "qwen3:8b", "qwen3:32b"]),
            payload={"prompt": words} if pick.random() < 0.5 else {"messages": [{"role": "user", "content": words}]},
            priority=pick.choice([-3, 1, 5, 10, 15]),
            tenant=pick.choice(["", "acme"]),
            **some,
        )
        return kept(spec, size=pick.choice(["low", "medium", "long"]), estimate=pick.choice([0, 7, 4000]))

    async def lives(self, here: Peer) -> None:
        """Tasks that came at different times and stand in every state."""
        number = 0
        for batch in ("b1", "b2"):
            await here.store.create_batch(NewBatch(batch), here.now)
        for _ in range(6):
            for _ in range(10):
                number += 1
                task = self.task(number, here.now.wall)
                if task.batch is None:
                    await here.add(task)
                else:
                    await here.store.add_lines(task.batch, [BatchLine(number, None, task)], here.now)
            here.clock.advance(self.pick.choice([0.001, 1, 30]))
            for claim in await here.claim(self.pick.randint(2, 7)):
                here.clock.advance(self.pick.choice([0, 0.5, 20]))
                await here.finish(claim, self._outcome(here))
            waiting = [task.id for task in await pages(here, Search()) if task.state not in FINAL]
            for id in self.pick.sample(waiting, 2):
                await here.cancel(id, reason="not needed")
            await here.claim(1)
            if self.pick.random() < 0.5:
                # The clock goes back: what is listed by time must not rely on it.
                here.clock.step(-self.pick.choice([0.002, 5]))

    def _outcome(self, here: Peer) -> Outcome:
        code: FailureCode = self.pick.choice(_CODES)
        kind = self.pick.choice(["completed", "failed", "retry", "released"])
        if kind == "completed":
            return Outcome.completed(Answer(text="done"), backend=self.pick.choice(["gpu", "gpu-2"]))
        if kind == "failed":
            return Outcome.failed(code, "broke")
        if kind == "retry":
            return Outcome.retry(here.now.wall + self.pick.choice([0, 5000]), code=code, error="broke")
        return Outcome.released()

    def filter(self, tasks: list[Task]) -> str:
        terms = [self._term(tasks) for _ in range(self.pick.choice([1, 1, 2, 2, 3]))]
        return " ".join(terms)

    def _term(self, tasks: list[Task]) -> str:
        pick = self.pick
        sign = "-" if pick.random() < 0.25 else ""
        name = pick.choice([*_WORDS, "created", "started", "finished", "scheduled", "deadline", "wait", "run", "id", ""])
        if name == "":
            return sign + pick.choice(["sky", '"is the"', '"said \\"no"', "ÜBER", "über", "why", "xyz", pick.choice(tasks).id[:20]])
        if name == "id":
            return f"{sign}id:{pick.choice(tasks).id[: pick.choice([4, 13, 36])]}"
        if name in ("wait", "run"):
            return f"{sign}{name}:{pick.choice(['>', '<=', ''])}{pick.choice(['0s', '500ms', '20s', '1m'])}"
        if name not in _WORDS:
            return f"{sign}{name}:{pick.choice(['>', '>=', '<', '<=', '']) + pick.choice(['-30s', 'now', '+20s', '-1s', '2020-01-01'])}"
        values = [pick.choice(_WORDS[name]) for _ in range(pick.choice([1, 1, 2]))]
        return f"{sign}{name}:{','.join(values)}"


_CODES: tuple[FailureCode, ...] = ("timeout", "server_error", "rate_limited")
_WORDS = {
    "state": ["pending", "running", "failed", "completed", "cancelled", "scheduled", "waiting", "ended", "*"],
    "action": ["chat", "gen*", "*"],
    "executor": ["ollama", "e*", "x"],
    "model": ["m", "qwen3*", '""', "*"],
    "backend": ["gpu", "gpu*", "*"],
    "priority": ["high", ">=normal", "<0", "-3", "2..12"],
    "size": ["low", "long", "m*"],
    "tenant": ["acme", '""'],
    "tag": ["nightly", "night*", '"a b"', "none", "*"],
    "batch": ["b1", "b*", "*"],
    "schedule": ["daily", "daily*", "*"],
    "key": ["key-3", "key-1*", "*"],
    "error": ["timeout", "rate*", "server_error", "*"],
    "attempt": ["0", ">0", "1..2", "*"],
    "tokens": ["0", ">7", "<=7"],
    "meta.customer": ["1", "two", "true", "*"],
    "meta.a.b": ["x", "1.5", "1*"],
}


class FindContract(ContractBase):
    """Filters, orders and pages."""

    @pytest.mark.parametrize("seed", range(4))
    async def test_a_listing_finds_exactly_what_passes_the_filter(self, here: Peer, seed: int) -> None:
        chance = _Chance(seed)
        await chance.lives(here)
        everything = await pages(here, Search())
        for _ in range(60):
            text = chance.filter(everything)
            question = asked(here, text)
            found = await pages(here, question, limit=chance.pick.choice([1, 3, 1000]))
            assert [task.id for task in found] == [task.id for task in everything if matches(task, question)], text

    async def test_a_listing_in_another_order_has_the_same_tasks(self, here: Peer) -> None:
        await _Chance(9).lives(here)
        everything = await pages(here, Search())
        for text, by in (
            ("sort:created", lambda task: task.seq),
            ("sort:created priority:>=normal", lambda task: task.seq),
            ("state:ended sort:finished", lambda task: (task.finished, task.seq)),
            ("state:failed,completed sort:finished finished:>-1h -error:timeout", lambda task: (task.finished, task.seq)),
            ("state:cancelled sort:finished model:m", lambda task: (task.finished, task.seq)),
            ("state:scheduled sort:scheduled", lambda task: (task.due, task.seq)),
        ):
            expected = sorted((task for task in everything if matches(task, asked(here, text))), key=by)
            assert expected, text
            for limit in (1, 4, 1000):
                assert await pages(here, asked(here, text), limit=limit) == expected, text
            backwards = text.replace("sort:", "sort:-")
            assert await pages(here, asked(here, backwards), limit=4) == expected[::-1], text

    async def test_a_filter_of_a_program_finds_the_same_as_its_text(self, here: Peer) -> None:
        await _Chance(3).lives(here)
        now = here.now.wall
        for where, text in (
            (Filter(), ""),
            (Filter(states=(State.FAILED, State.PENDING), models=("m",)), "state:failed,pending model:m"),
            (Filter(actions=("chat",), executors=("echo",), tag="nightly"), "action:chat executor:echo tag:nightly"),
            (Filter(priorities=(1, 10), sizes=("low",), tenants=("acme",)), "priority:1,10 size:low tenant:acme"),
            (Filter(since=now - 30_000, until=now), "created:>=-30s created:<now"),
        ):
            found = [task.id for task in await pages(here, search(where.query(), now))]
            assert found == await ids(here, text)

    async def test_filters_by_time_take_since_and_leave_until(self, here: Peer) -> None:
        added, times = [], []
        for _ in range(4):
            times.append(here.now.wall)
            added.append(await here.add_one())
            here.clock.advance(1)
        found = await pages(here, search(Filter(since=times[1], until=times[3]).query(), 0))
        assert [task.id for task in found] == [added[2], added[1]]

    async def test_a_range_of_time_leaves_nothing_out_when_the_clock_goes_back(self, here: Peer) -> None:
        for seconds in (1, 1, -10, 1, 1, 30, -3, 1, 1, 1, -60, 5, 5, 200, 1):
            await here.add(*(new_task() for _ in range(3)))
            here.clock.step(seconds)
        everything = await pages(here, Search())
        first = min(task.created for task in everything)
        for low in range(0, 240_000, 7000):
            for text in (f"created:>={first + low}", f"created:<{first + low}", f"created:{first + low}..{first + low + 20_000}"):
                text = text.replace(str(first + low), _iso(first + low)).replace(str(first + low + 20_000), _iso(first + low + 20_000))
                question = asked(here, text)
                assert await pages(here, question) == [task for task in everything if matches(task, question)], text

    async def test_the_beginning_of_an_id_finds_the_task(self, here: Peer) -> None:
        added = await here.add(*(new_task() for _ in range(5)))
        for id in added:
            assert await ids(here, f"id:{id}") == [id]
            assert await ids(here, id) == [id]
        assert len(await ids(here, f"id:{added[0][:8]}")) == 5
        assert (await here.store.find(search(Filter(prefix="%").query(), 0))).tasks == []

    async def test_a_filter_by_state_follows_the_tasks(self, here: Peer) -> None:
        await _Chance(1).lives(here)
        everything = await pages(here, Search())
        for state in State:
            assert await ids(here, f"state:{state}") == [task.id for task in everything if task.state is state]

    async def test_a_changed_priority_is_found_at_once(self, here: Peer) -> None:
        id, other = await here.add(new_task(), new_task())
        assert await ids(here, "priority:high") == []
        await here.reprioritize(id, 10)
        assert await ids(here, "priority:high") == [id]
        assert await ids(here, "priority:normal") == [other]

    async def test_pages_have_no_hole_and_no_double_while_tasks_arrive(self, here: Peer) -> None:
        added = await here.add(*(new_task(tenant=f"t{n % 2}") for n in range(23)))
        for text, expected in (("", added[::-1]), ("tenant:t0", added[::2][::-1])):
            read: list[str] = []
            after: Cursor | None = None
            while True:
                page = await here.store.find(asked(here, text), after=after, limit=5)
                read += [task.id for task in page.tasks]
                assert len(page.tasks) <= 5
                await here.add_one(new_task(tenant="t0"))
                if page.after is None:
                    break
                after = page.after
            assert [id for id in read if id in added] == expected
            assert len(read) == len(set(read))

    async def test_a_page_that_ends_the_listing_says_so(self, here: Peer) -> None:
        await here.add(*(new_task() for _ in range(4)))
        assert (await here.store.find(Search(), limit=4)).after is None
        page = await here.store.find(Search(), limit=3)
        assert page.after is not None
        assert (await here.store.find(Search(), after=page.after, limit=3)).after is None

    async def test_a_cursor_of_another_order_is_refused(self, here: Peer) -> None:
        await here.add(*(new_task() for _ in range(3)))
        for question, after in ((Search(), "12.3"), (Search(), "x"), (asked(here, "state:failed sort:finished"), 7)):
            with pytest.raises(InvalidQuery, match="cursor"):
                await here.store.find(question, after=after)


def _iso(ms: int) -> str:
    from inferq.query.writing import instant

    return instant(ms)
