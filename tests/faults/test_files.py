"""A store that cannot be used: one line with the remedy, its documented exit code, and the file is left as it was."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faultkit.children import absent
from faultkit.place import Place
from inferq import AsyncQueue, StoreError
from inferq.cli.exits import Exit
from inferq.errors import InferqError, SchemaTooNew, StoreDamaged, StoreReadOnly
from inferq.stores import open_store

pytestmark = pytest.mark.faults

NOBODY = 65_534


async def _filled(place: Place, tasks: int = 20) -> None:
    async with place.queue(work=False) as queue:
        for number in range(tasks):
            await queue.submit("record", "do", payload={"n": number, "pad": "x" * 300}, key=f"k{number}")


def _cli(path: Path, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "COVERAGE_"))}
    return subprocess.run(
        [sys.executable, "-m", "inferq", "--url", f"sqlite:///{path}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user,
        env=environment | {"HOME": "/nonexistent"},
        cwd="/",
    )


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def _garbage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(100))


def _no_database(path: Path) -> None:
    path.write_text("this is a letter, not a database\n" * 200)


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
        db.execute("INSERT INTO customers VALUES ('Ada')")
    db.close()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: list[tuple[Callable[[Path], None], type[StoreError], str, Exit]] = [
    (_newer, SchemaTooNew, "schema 999.*upgrade inferq", Exit.UNREACHABLE),
    (_garbage_header, StoreDamaged, "restore a backup", Exit.UNREACHABLE),
    (_no_database, StoreDamaged, "restore a backup", Exit.UNREACHABLE),
    (_foreign, StoreDamaged, "another program's database.*choose another file", Exit.UNREACHABLE),
    (_directory, StoreError, "is a directory; give a file in it", Exit.UNREACHABLE),
]


@pytest.mark.parametrize(("damage", "kind", "said", "exit_code"), BROKEN)
async def test_a_file_that_is_no_store_of_ours_is_refused_in_one_line_and_left_alone(
    place: Place, damage: Callable[[Path], None], kind: type[StoreError], said: str, exit_code: Exit
) -> None:
    await _filled(place)
    damage(place.path)
    before = place.path.read_bytes() if place.path.is_file() else b""
    with pytest.raises(kind, match=said) as refused:
        await open_store(place.url)
    assert "\n" not in str(refused.value)
    ran = _cli(place.path, "list")
    assert (ran.returncode, ran.stdout) == (exit_code, "")
    assert str(refused.value) in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr
    assert (place.path.read_bytes() if place.path.is_file() else b"") == before


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_pages_are_named_and_never_a_stack_trace(place: Place, seed: int) -> None:
    await _filled(place, 150)
    rng = random.Random(seed)
    with place.path.open("r+b") as file:
        pages = place.path.stat().st_size // 4096
        for page in rng.sample(range(1, pages), max(1, pages // 3)):
            file.seek(page * 4096 + rng.randrange(0, 64))
            file.write(rng.randbytes(200))
    assert await _touch_everything(place), "every page was read: some of the damage must have been met"
    ran = _cli(place.path, "db", "check")
    assert ran.returncode in (Exit.FAILED, Exit.UNREACHABLE)
    assert "Traceback" not in ran.stderr


async def test_a_file_that_was_cut_short_is_damaged(place: Place) -> None:
    await _filled(place, 150)
    _cut_short(place.path)
    assert await _touch_everything(place)
    assert _cli(place.path, "db", "check").returncode in (Exit.FAILED, Exit.UNREACHABLE)


async def _touch_everything(place: Place) -> int:
    """Use all of it; returns how often damage was met. Anything but our own errors fails the test."""
    met = 0
    try:
        async with place.queue(work=False) as queue:
            for step in (_list, _submit, _cancel, _read, _check):
                try:
                    await step(queue)
                except InferqError as error:
                    assert "\n" not in str(error)
                    met += 1
    except InferqError as error:
        assert "\n" not in str(error)
        met += 1
    return met


async def _list(queue: AsyncQueue) -> None:
    async for task in queue.iterate():
        await queue.attempts(task.id)


async def _submit(queue: AsyncQueue) -> None:
    await queue.submit("record", "do", payload={"n": 1})


async def _cancel(queue: AsyncQueue) -> None:
    page = await queue.list(limit=100)
    await queue.cancel(*(task.id for task in page.tasks))


async def _read(queue: AsyncQueue) -> None:
    await queue.store.events()
    await queue.stats()


async def _check(queue: AsyncQueue) -> None:
    found = await queue.check()
    if found:
        raise StoreDamaged(found[0])


# ── nothing may be written ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    path = small_disk / "queue.db"
    await _filled(Place(str(small_disk.parent), store=str(path)))
    if subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True, check=False).returncode:
        absent("no read-only file system without the right to remount one")
    for place in (path, small_disk / "new.db", small_disk / "below" / "new.db"):
        with pytest.raises(StoreReadOnly, match="read-only|Read-only") as refused:
            await open_store(f"sqlite:///{place}")
        assert "\n" not in str(refused.value)
        ran = _cli(place, "list")
        assert ran.returncode == Exit.PERMISSION
        assert len(ran.stderr.strip().splitlines()) == 1


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A directory that this user may write and `nobody` only read."""
    if os.geteuid() != 0:
        absent("no process of another user without root")
    folder = Path(tempfile.mkdtemp(prefix="inferq-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_a_directory_of_another_user_is_named(foreign_folder: Path) -> None:
    path = foreign_folder / "queue.db"
    for place in (path, foreign_folder / "below" / "new.db"):
        ran = _cli(place, "list", user=NOBODY)
        assert (ran.returncode, ran.stdout) == (Exit.PERMISSION, "")
        assert len(ran.stderr.strip().splitlines()) == 1
    await _filled(Place(str(foreign_folder)))
    ran = _cli(path, "list", user=NOBODY)
    assert ran.returncode == Exit.PERMISSION
    assert "read-only" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


async def test_lock_files_that_cannot_be_made_are_named(foreign_folder: Path) -> None:
    # The file and its directory may be written, the directory of the instances' locks may not: another user opened it first.
    path = foreign_folder / "queue.db"
    await _filled(Place(str(foreign_folder)))
    foreign_folder.chmod(0o777)
    path.chmod(0o666)
    ran = _cli(path, "list", user=NOBODY)
    assert ran.returncode == Exit.PERMISSION
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
