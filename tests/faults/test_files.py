"""A store that cannot be used: one line with the remedy, its documented exit code, and the file is left as it was."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
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


async def _filled(place: Place, tasks: int = 20) -> None:
    async with place.queue(work=False) as queue:
        for number in range(tasks):
            await queue.submit("record", "do", payload={"n": number, "pad": "x" * 300}, key=f"k{number}")


def _cli(path: Path, *arguments: str, bound: bool = False) -> subprocess.CompletedProcess[str]:
    """The command line on that store; `bound`: without root's power over permission bits."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "COVERAGE_"))}
    command = [sys.executable, "-m", "inferq", "--url", f"sqlite:///{path}", *arguments]
    return subprocess.run(
        _bound_by_rights(command) if bound else command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
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


async def test_each_finding_of_a_check_is_one_line(place: Place) -> None:
    await _filled(place, 150)
    with sqlite3.connect(place.path) as db:
        size, roots = db.execute("SELECT page_size, max(rootpage) FROM pragma_page_size, sqlite_master").fetchone()
    db.close()
    pages = place.path.stat().st_size // size
    assert pages > roots
    with place.path.open("r+b") as file:
        # Past the roots are rows only: the file opens, and what is in it is not sound.
        for page in range(roots, pages):
            file.seek(page * size + 100)
            file.write(b"\xff" * 200)
    async with place.queue(work=False) as queue:
        found = await queue.check()
    assert found
    assert [line for line in found if "\n" in line] == []


async def test_one_unreadable_task_is_named_and_does_not_hold_up_the_others(place: Place) -> None:
    await _filled(place, 6)
    with sqlite3.connect(place.path) as db:
        (damaged,) = db.execute("SELECT id FROM task WHERE seq = 3").fetchone()
        db.execute("UPDATE payload SET spec = x'7B22FF00' WHERE seq = 3")
    db.close()
    async with place.queue(work=True) as queue:
        others = [f"k{number}" for number in range(6) if number != 2]
        handles = [await queue.submit("record", "do", payload={"n": int(key[1:]), "pad": "x" * 300}, key=key) for key in others]
        assert [(await handle.result(timeout=10)).attempts for handle in handles] == [1] * len(handles)
        with pytest.raises(StoreDamaged) as refused:
            await queue.get(damaged)
        assert "\n" not in str(refused.value)


async def test_a_file_that_was_cut_short_is_damaged(place: Place) -> None:
    await _filled(place, 150)
    _cut_short(place.path)
    assert await _touch_everything(place)
    assert _cli(place.path, "db", "check").returncode in (Exit.FAILED, Exit.UNREACHABLE)


async def _touch_everything(place: Place) -> int:
    """Use all of it; returns how often damage was met. Anything but our own errors fails the test."""
    met: list[str] = []
    try:
        async with place.queue(work=False) as queue:
            for step in (_list, _submit, _cancel, _read, _check):
                try:
                    await step(queue)
                except InferqError as error:
                    met.append(str(error))
    except InferqError as error:
        met.append(str(error))
    assert [text for text in met if "\n" in text] == []
    return len(met)


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
        raise StoreDamaged(found[0].splitlines()[0])


# ── nothing may be written ──────────────────────────────────────────────────────────────────────────────────────────


def _remount_read_only(disk: Path) -> None:
    if subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, check=False).returncode:
        absent("no read-only file system without the right to remount one")


async def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    path = small_disk / "queue.db"
    await _filled(Place(str(small_disk.parent), store=str(path)))
    _remount_read_only(small_disk)
    for place in (path, small_disk / "new.db", small_disk / "below" / "new.db"):
        with pytest.raises(StoreReadOnly, match=r"(?i)read-only") as refused:
            await open_store(f"sqlite:///{place}")
        assert "\n" not in str(refused.value)
        ran = _cli(place, "list")
        assert ran.returncode == Exit.PERMISSION
        assert len(ran.stderr.strip().splitlines()) == 1


def _bound_by_rights(command: list[str]) -> list[str]:
    """The command as a process that permission bits bind: root is without the capability to override them."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        absent("permission bits do not bind root, and there is no setpriv to make them")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search", *command]


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Path]:
    """A directory whose rights may be taken away: they are given back, so that it can be removed."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    yield folder
    for path in (folder, *folder.glob("*-instances")):
        path.chmod(0o755)


async def test_a_directory_without_the_right_to_write_is_named(restored: Path) -> None:
    path = restored / "queue.db"
    await _filled(Place(str(restored)))
    _forbid(restored)
    for place in (path, restored / "new.db", restored / "below" / "new.db"):
        _is_refused_for_rights(_cli(place, "list", bound=True), place)


async def test_a_file_without_the_right_to_write_is_named(restored: Path) -> None:
    path = restored / "queue.db"
    await _filled(Place(str(restored)))
    path.chmod(0o444)
    _is_refused_for_rights(_cli(path, "list", bound=True), path)


async def test_a_directory_of_locks_without_the_right_to_write_is_named(restored: Path) -> None:
    # As left behind by another user who opened the store first.
    path = restored / "queue.db"
    await _filled(Place(str(restored)))
    _forbid(Path(f"{path}-instances"))
    _is_refused_for_rights(_cli(path, "list", bound=True), path)


def _forbid(folder: Path) -> None:
    folder.chmod(0o555)


def _is_refused_for_rights(ran: subprocess.CompletedProcess[str], path: Path) -> None:
    assert (ran.returncode, ran.stdout) == (Exit.PERMISSION, ""), ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert str(path.parent) in ran.stderr
    assert "Traceback" not in ran.stderr
