"""Every documented exit code is reached by a real command, and every error of ours has one on purpose."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from inferq.cli.exits import Exit, exit_of
from inferq.errors import ApiError, InferqError

ECHO = ("submit", "chat", "--executor", "echo", "--model", "m")


@pytest.fixture
def worker(processes: Any) -> Any:
    process = processes.start("work")
    yield process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_0_success(cli: Any) -> None:
    assert cli("list").code == Exit.OK


def test_1_a_task_that_failed(cli: Any, worker: Any) -> None:
    ran = cli(*ECHO, "x", "--field", 'fail=["bad_request"]', "--wait")
    assert ran.code == Exit.FAILED
    assert cli("wait", cli("list", "-q").out.strip()).code == Exit.FAILED


def test_2_a_typing_error_and_a_refused_task(cli: Any) -> None:
    assert cli("list", "--limit", "x").code == Exit.USAGE
    ran = cli(*ECHO[:3], "nothing", "--model", "m", "x")
    assert ran.code == Exit.USAGE
    assert "submissions[" not in ran.err


def test_3_some_of_several(cli: Any) -> None:
    task_id = cli(*ECHO, "x", "-q").out.strip()
    assert cli("cancel", task_id, "nothing").code == Exit.PARTIAL


def test_5_what_is_not_there(cli: Any) -> None:
    for args in (("show", "nothing"), ("status", "nothing"), ("cancel", "nothing"), ("submit", "raw", "--file", "nothing.json")):
        assert cli(*args).code == Exit.NOT_FOUND, args


def test_6_a_state_that_forbids_it_and_a_key_with_another_body(cli: Any) -> None:
    task_id = cli(*ECHO, "x", "--key", "k", "-q").out.strip()
    assert cli(*ECHO, "y", "--key", "k").code == Exit.CONFLICT
    assert cli("cancel", task_id).code == 0
    assert cli("cancel", task_id).code == Exit.CONFLICT


def test_7_a_store_that_cannot_be_used(cli: Any, home: Path) -> None:
    (home / "letter.txt").write_text("Dear reader, " * 1000)
    assert cli("--url", str(home / "letter.txt"), "list").code == Exit.UNREACHABLE


def test_8_a_wait_that_was_too_short(cli: Any) -> None:
    task_id = cli(*ECHO, "x", "-q").out.strip()
    assert cli("wait", task_id, "--timeout", "20ms").code == Exit.TIMEOUT
    assert cli("result", task_id, "--timeout", "20ms").code == Exit.TIMEOUT


def test_9_a_full_queue(cli: Any, home: Path) -> None:
    (home / "inferq.toml").write_text("[store]\nmax_queue_size = 1\n")
    assert cli(*ECHO, "x", "-q").code == 0
    assert cli(*ECHO, "x", "-q").code == Exit.REJECTED


def every_error(base: type[InferqError] = InferqError) -> list[type[InferqError]]:
    return [
        base,
        *(found for child in base.__subclasses__() if child.__module__.startswith("inferq.errors.") for found in every_error(child)),
    ]


# A task's end, a broken plugin, a claim that an engine lost, an executor's own: code 1, and what the executors' say decides.
PLAIN_FAILURES = {
    "InferqError", "PluginError", "WrongMethod", "NotAcceptable", "BodyTimeout", "UnsupportedMedia", "ClaimLost", "TaskError", "TaskFailed",
    "TaskCancelled", "ExecutorError", "RetryLater", "Unavailable", "Reject", "Untranslatable",
}  # fmt: skip


def test_every_error_has_an_exit_code_on_purpose() -> None:
    plain = {cls.__name__ for cls in every_error() if exit_of(cls.__new__(cls)) is Exit.FAILED}
    assert plain <= PLAIN_FAILURES


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (401, 4), (403, 4), (404, 5), (409, 6), (422, 2), (429, 9), (503, 9), (500, 1), (418, 1)]
)
def test_what_a_newer_server_says_is_judged_by_its_status(status: int, code: int) -> None:
    assert exit_of(ApiError("x", status=status, code="of_tomorrow")) == code


def test_a_full_disk_behind_a_redirection_is_named(processes: Any) -> None:
    for args in (("list",), ("version",), ("config", "show")):
        with Path("/dev/full").open("w") as full:
            ran = processes.run(*args, stdout=full)
        assert (ran.code, ran.err) == (1, "inferq: standard output: No space left on device\n")


def test_a_closed_standard_output_is_no_error(processes: Any) -> None:
    ran = processes.run("list", preexec_fn=close_stdout, stdout=None)
    assert (ran.code, ran.err) == (0, "")


def close_stdout() -> None:
    import os

    os.close(1)
