"""A server whose disk is full, its own or the temporary one: what cannot be kept is refused as such, and nothing is left behind."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferq import AsyncClient, AsyncQueue
from inferq.errors import StoreError, StoreFull

pytestmark = pytest.mark.faults

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no full disk without the right to mount one: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def no_room(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder lies on the small disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    return small_disk


def left_in(folder: Path) -> list[str]:
    return os.listdir(folder)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)


def upload(count: int) -> io.BytesIO:
    return io.BytesIO(lines(count))


def lines(count: int) -> bytes:
    task = {"executor": "echo", "action": "chat", "model": "m", "payload": {"messages": [{"role": "user", "content": "x" * 3000}]}}
    return b"".join(json.dumps(task).encode() + b"\n" for _ in range(count))


async def test_a_file_whose_checked_lines_find_no_room_is_refused_whole(site: Any, no_room: Path) -> None:
    status, problem, _ = await site.ask("POST", "/api/batches/import", data=upload(2000), headers=NDJSON)

    assert (status, problem["code"]) == (507, "store_full")
    assert str(no_room) in problem["detail"]
    assert "nothing was submitted" in problem["detail"]
    assert (await site.get("/api/batches"))["items"] == []
    assert left_in(no_room) == []


async def test_lines_for_an_open_batch_that_find_no_room_are_refused_whole(site: Any, no_room: Path) -> None:
    batch = await site.post("/api/batches", {"name": "nightly"})
    # The last group, too, must be on the disk before the first goes into the store.
    (no_room / "ballast").write_bytes(b"x" * (3 * 1024 * 1024 - 4096))
    status, problem, _ = await site.ask("POST", f"/api/batches/{batch['id']}/tasks", data=upload(400), headers=NDJSON)

    assert (status, problem["code"]) == (507, "store_full")
    assert (await site.get("/api/batches/nightly"))["total"] == 0


async def test_a_file_that_fills_the_stores_disk_says_how_much_of_it_is_kept(tmp_path: Path, small_disk: Path) -> None:
    async with AsyncQueue(f"sqlite:///{small_disk / 'queue.db'}", work=False) as queue:
        file = tmp_path / "questions.jsonl"
        file.write_bytes(lines(2000))
        with pytest.raises(StoreFull, match=r"disk.*is full; 500 of 2,000 lines are kept in batch .* resume") as refused:
            await queue.batches.from_jsonl(file, name="nightly")
        assert "nothing" not in str(refused.value)
        enlarge(small_disk)
        batch = await queue.batches.from_jsonl(file, name="nightly", resume=True)
        assert (await batch.refresh()).total == 2000


async def test_a_copy_that_finds_no_room_is_a_refusal(site: Any, no_room: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = json.loads(lines(1))
    for _ in range(6):
        await site.post("/api/tasks", [task] * 250)
    status, problem, _ = await site.ask("GET", "/api/store/backup")

    assert (status, problem["code"]) == (507, "store_full")
    assert left_in(no_room) == []
    async with AsyncClient(site.url) as client:
        with pytest.raises(StoreFull):
            await client.backup(no_room / "copy.db")
    with pytest.raises(StoreError):
        await site.queue.backup(no_room / "copy.db")
    assert left_in(no_room) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_asking_for_the_head_of_a_copy_makes_none(site: Any, no_room: Path) -> None:
    os.chmod(no_room, 0o500)
    status, body, headers = await site.ask("HEAD", "/api/store/backup")

    assert (status, body, headers["Content-Type"]) == (200, None, "application/vnd.sqlite3")
    assert left_in(no_room) == []


async def test_a_stream_that_is_cut_for_a_slow_reader_is_no_error_of_the_server(
    open_site: Any, caplog: pytest.LogCaptureFixture, chat: Any
) -> None:
    site = await open_site(write_timeout=0.1, work=False)
    async with aiohttp.ClientSession(read_bufsize=1024) as session, session.get(site.url + "/api/events"):
        while not any("server.reader_dropped" in record.message for record in caplog.records):
            caplog.set_level(logging.INFO, logger="inferq.server")
            ids = [task["id"] for task in (await site.post("/api/tasks", [chat() for _ in range(100)]))["items"]]
            await site.queue.cancel(*ids, reason="x" * 2000)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
