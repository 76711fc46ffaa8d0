"""The store contract, part four: chunks are kept in order, every one, and can be read again from any place."""

# ruff: noqa: S101 - a contract asserts; pytest rewrites these modules so that a failure shows its values

from __future__ import annotations

import asyncio

from inferq.executor import Chunk
from inferq.store import Grown, LoggedChunk, Position
from inferq.task import Outcome
from inferq.testing.contract_base import ContractBase
from inferq.testing.peer import Peer, new_task


class StreamContract(ContractBase):
    """The chunk log."""

    async def test_chunks_are_read_as_they_were_written(self, here: Peer) -> None:
        chunks = [
            Chunk("thinking", "hm"),
            Chunk("text", "NUL \x00 and \U0001f600"),
            Chunk("text", ""),
            Chunk("tool_calls", data=[{"function": {"name": "f", "arguments": {"x": 1.5}}}]),
            Chunk("stdout", "out\r\n"),
            Chunk("stderr", "err"),
            Chunk("data", data={"deep": [None, True, {"n": -1}]}),
        ]
        id = await here.add_one()
        claim = await here.claim_one()
        assert await here.store.append([(claim, chunks)], here.now) == [None]
        assert await here.log(id) == chunks
        await here.complete(claim)
        assert await here.log(id) == [*chunks, Chunk("end", "completed")]

    async def test_appends_continue_each_other(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        for part in (["a"], ["b", "c"], ["d", "e", "f"]):
            assert await here.append(claim, *part) is None
        assert [chunk.text for chunk in await here.log(id)] == list("abcdef")

    async def test_appends_of_one_attempt_at_the_same_time_keep_their_order(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await asyncio.gather(*(here.append(claim, f"{n}a", f"{n}b") for n in range(20)))
        assert [chunk.text for chunk in await here.log(id)] == [f"{n}{half}" for n in range(20) for half in "ab"]

    async def test_one_call_writes_to_many_logs(self, here: Peer) -> None:
        await here.add(new_task(), new_task(), new_task())
        first, lost, last = await here.claim(3)
        await here.cancel(lost.task.id)
        items = [(claim, [Chunk("text", claim.task.id)]) for claim in (first, lost, last, first)]
        got = await here.store.append(items, here.now)
        assert [None if error is None else error.reason for error in got] == [None, "cancelled", None, None]
        assert await here.log(first.task.id) == [Chunk("text", first.task.id)] * 2
        assert await here.log(last.task.id) == [Chunk("text", last.task.id)]
        assert await here.log(lost.task.id) == [Chunk("end", "cancelled")]

    async def test_positions_rise_and_reading_resumes_after_any_of_them(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "a", "b", "c")
        await here.append(claim, "d")
        await here.finish(claim, Outcome.retry(0, code="connect", error="cut"))
        await here.store.stage(here.now)
        claim = await here.claim_one()
        await here.append(claim, "e", "f")
        await here.complete(claim)
        whole = await here.logged(id)
        assert [logged.chunk.kind for logged in whole] == ["text"] * 4 + ["reset"] + ["text"] * 2 + ["end"]
        positions = [logged.position for logged in whole]
        assert positions == sorted(set(positions))
        assert positions[0] > Position()
        for n, position in enumerate(positions):
            assert await here.store.chunks(id, after=position) == whole[n + 1 :]

    async def test_a_log_is_read_in_pages_without_loss(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, *(str(n) for n in range(4)))
        await here.append(claim, *(str(n) for n in range(4, 10)))
        await here.complete(claim)
        read, after = [], Position()
        while page := await here.store.chunks(id, after=after, limit=3):
            assert len(page) <= 3
            read += [logged.chunk.text for logged in page]
            after = page[-1].position
        assert read == [*(str(n) for n in range(10)), "completed"]

    async def test_a_new_attempt_begins_with_a_reset_where_an_earlier_one_wrote(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "half an ans")
        await here.finish(claim, Outcome.retry(0, code="connect", error="cut"))
        assert await here.log(id) == [Chunk("text", "half an ans")]
        await here.store.stage(here.now)
        await here.claim_one()
        _, reset = await here.logged(id)
        assert reset.chunk.kind == "reset"
        assert reset.chunk.data["attempt"] == 2
        assert "reason" in reset.chunk.data
        assert reset.position.attempt == 2

    async def test_no_reset_where_nothing_was_written(self, here: Peer) -> None:
        id = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.released())
        claim = await here.claim_one()
        await here.append(claim, "a")
        await here.complete(claim)
        assert await here.log(id) == [Chunk("text", "a"), Chunk("end", "completed")]

    async def test_a_retried_task_has_one_end_and_it_is_its_last_record(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        await here.append(claim, "first")
        await here.finish(claim, Outcome.failed("internal", "broke"))
        assert [chunk.kind for chunk in await here.log(id)] == ["text", "end"]
        await here.retry(id)
        assert [chunk.kind for chunk in await here.log(id)] == ["text", "reset"], "a task that waits again has not ended"
        claim = await here.claim_one()
        await here.append(claim, "second")
        await here.complete(claim)
        assert [chunk.kind for chunk in await here.log(id)] == ["text", "reset", "reset", "text", "end"]
        assert (await here.log(id))[-1].text == "completed"

    async def test_who_saw_the_end_before_a_retry_sees_what_came_after(self, here: Peer) -> None:
        id = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.failed("internal", "broke"))
        end = (await here.logged(id))[-1].position
        await here.retry(id)
        claim = await here.claim_one()
        await here.append(claim, "second")
        await here.complete(claim)
        after = [logged.chunk for logged in await here.store.chunks(id, after=end)]
        assert after[-2:] == [Chunk("text", "second"), Chunk("end", "completed")]

    async def test_every_end_has_a_place_of_its_own(self, here: Peer) -> None:
        id = await here.add_one()
        await here.finish(await here.claim_one(), Outcome.failed("internal", "broke"))
        first = (await here.logged(id))[-1].position
        await here.retry(id)
        await here.cancel(id)
        after = await here.store.chunks(id, after=first)
        assert [(logged.chunk.kind, logged.chunk.text) for logged in after] == [("end", "cancelled")]

    async def test_a_task_cancelled_before_it_ran_has_only_an_end(self, here: Peer) -> None:
        id = await here.add_one()
        await here.cancel(id)
        assert await here.log(id) == [Chunk("end", "cancelled")]

    async def test_an_unknown_task_has_no_log(self, here: Peer) -> None:
        assert await here.store.chunks("no-such-task") == []

    async def test_listeners_hear_whose_log_grew(self, here: Peer) -> None:
        id = await here.add_one()
        claim = await here.claim_one()
        here.changes.clear()
        await here.append(claim, "a", "b")
        await here.append(claim, "c")
        await here.complete(claim)

        def grown() -> list[Grown]:
            return [grown for change in here.changes for grown in change.streams if grown.task_id == id]

        await here.heard(lambda: bool(grown()) and grown()[-1].chunks is None)
        logged = await here.logged(id)
        told = [LoggedChunk(Position(news.attempt, news.first + n), chunk) for news in grown() for n, chunk in enumerate(news.chunks or ())]
        assert told == logged[:-1], "what is told must be what is read"
        assert logged[-1].chunk.kind == "end"
