"""What comes from models, tasks and odd surroundings: nothing drives the operator's terminal, nothing waits for nobody."""

from __future__ import annotations

import fcntl
import gzip
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferq import connect
from inferq.cli.logs import TextFormatter
from inferq.testing import wait_until

DRIVES = "\x1b]0;pwned\x07\x1b[2J\u009b31m\rFAKE"
"""Retitles the window, clears the screen, colours, writes over the line."""


def on_terminal(*args: str, answer: bytes = b"") -> str:
    """What a command prints on a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "inferq", *args], stdin=follower, stdout=follower, stderr=follower) as program:
        os.close(follower)
        data = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
            data += piece
            if answer and data.rstrip().endswith(b"[y/N]:"):
                os.write(leader, answer)
                answer = b""
        program.wait(30)
    os.close(leader)
    return data.decode()


def assert_harmless(text: str) -> None:
    assert "FAKE" in text
    assert not [bad for bad in ("\x1b]", "\x1b[2J", "\u009b", "\x07", "\rFAKE") if bad in text]


async def test_what_a_model_thinks_cannot_drive_the_terminal(home: Path) -> None:
    with connect(work=True) as queue:
        words = [{"role": "user", "content": "hello"}]
        made = queue.submit("echo", "chat", model="m", payload={"messages": words, "thinking": DRIVES}, stream=True)
        made.result(timeout=30)
    text = on_terminal("tail", made.id, "--thinking")

    assert "hello" in text
    assert_harmless(text)


async def test_what_a_script_complains_of_cannot_drive_the_terminal(home: Path) -> None:
    program = f"import sys; sys.stderr.write({DRIVES!r}); print('done')"
    with connect(work=True) as queue:
        made = queue.submit("script", "execute", payload={"argv": [sys.executable, "-c", program]}, stream=True)
        made.result(timeout=30)
    text = on_terminal("tail", made.id)

    assert "done" in text
    assert_harmless(text)


async def test_a_name_in_a_question_cannot_drive_the_terminal(home: Path) -> None:
    with connect(work=False) as queue:
        batch = queue.batches.create(f"b{DRIVES}")
    text = on_terminal("batch", "delete", batch.id, answer=b"n\n")

    assert "remove batch" in text
    assert_harmless(text)


def test_nobody_is_asked_where_nobody_can_answer(cli: Callable[..., Any]) -> None:
    with connect(work=False) as queue:
        batch = queue.batches.create("nightly")
    ran = cli("batch", "delete", "nightly")

    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert cli("batch", "delete", batch.id, "--yes").code == 0


def test_a_line_of_the_log_for_people_cannot_drive_the_terminal() -> None:
    record = logging.makeLogRecord({"msg": f"failed {DRIVES}", "levelname": "WARNING", "model": DRIVES})

    assert_harmless(TextFormatter().format(record))


def test_errors_heed_the_choice_of_colour(home: Path) -> None:
    assert "\x1b" not in on_terminal("--color", "never", "show", "unknown")
    assert "\x1b[31m" in on_terminal("--color", "always", "show", "unknown")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [("submit chat --executor echo --model m -", 2, "inferq: "), ("submit batch --file - --executor echo", 2, "empty"), ("list", 0, "")],
)
def test_a_closed_standard_input_is_an_empty_one(home: Path, command: str, code: int, said: str) -> None:
    ran = subprocess.run(["sh", "-c", f"{sys.executable} -m inferq {command} <&-"], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, "unexpected" in ran.stderr) == (code, False), ran.stderr
    assert said in ran.stderr


@pytest.mark.parametrize("line", ["events --follow --after 0", "list --watch", "status --watch", "tail ID", "batch results b --follow"])
async def test_what_follows_ends_when_its_reader_has_enough(home: Path, processes: Any, line: str) -> None:
    with connect(work=False) as queue:
        made = queue.submit("echo", "chat", model="m", payload={"messages": [{"role": "user", "content": "hi"}]})
        queue.batches.create("b")
    command = line.replace("ID", made.id).split()
    read, write = os.pipe()
    process = processes.start(*command, stdout=write)
    os.close(write)
    if command[0] not in ("tail", "batch"):  # those print nothing before the task begins
        assert os.read(read, 10)
    os.close(read)

    await wait_until(lambda: process.poll() is not None, timeout=20, what="it to end without another line")
    assert (process.returncode, process.stderr.read()) == (0, "")


@pytest.mark.parametrize("source", ["-", "pipe"])
@pytest.mark.parametrize("command", ["submit batch --executor echo --model m --prompt {q} --file", "db import"])
async def test_ctrl_c_ends_a_command_that_waits_for_its_input(home: Path, processes: Any, command: str, source: str) -> None:
    os.mkfifo(home / "pipe")
    process = processes.start(*command.split(), source, stdin=subprocess.PIPE)
    into = process.stdin.fileno() if source == "-" else await wait_until(lambda: opened(home / "pipe"), timeout=20)
    os.write(into, b'{"q":')
    await wait_until(lambda: unread(into) == 0, timeout=20, what="it to read")
    process.send_signal(signal.SIGINT)
    await wait_until(lambda: process.poll() is not None, timeout=20, what="it to end")

    assert process.returncode == 130
    assert "Fatal" not in process.stderr.read()


def test_a_pipe_with_a_name_is_read_like_a_file(home: Path, processes: Any) -> None:
    os.mkfifo(home / "pipe")
    process = processes.start("submit", "batch", "--file", "pipe", "--executor", "echo", "--model", "m", "--prompt", "{q}", "-q")
    (home / "pipe").write_text('{"q": "one"}\n{"q": "two"}\n')
    out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    with connect(work=False) as queue:
        assert queue.batches.get(out.strip()).total == 2


def opened(pipe: Path) -> int | None:
    """Its writing end, once somebody reads."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # ENXIO: nobody does yet
        return None


def unread(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def test_a_packed_file_is_told_from_a_wrong_one(cli: Callable[..., Any], home: Path) -> None:
    (home / "lines.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1}\n'))
    ran = cli("submit", "batch", "--file", "lines.jsonl.gz", "--executor", "echo", "--model", "m", "--prompt", "{q}")

    assert ran.code == 2
    assert "packed by gzip" in ran.err
    assert "gunzip -c" in ran.err
