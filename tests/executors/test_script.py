"""Scripts: what they write arrives whole, how they end is told, and nothing of them outlives their task."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from inferq.errors import ConfigError, InvalidTask, Reject, Unavailable
from inferq.executor import Answer, Call, Chunk
from inferq.executors import Executors, produce
from inferq.executors.script import ScriptExecutor

Make = Callable[..., ScriptExecutor]


def python(program: str, *args: str) -> list[str]:
    return [sys.executable, "-c", program, *args]


def call(stream: bool = True, **payload: Any) -> Call:
    return Call("task-7", "execute", "", payload, attempt=2, stream=stream)


@pytest.fixture
def script(tmp_path: Path) -> Make:
    def make(**settings: Any) -> ScriptExecutor:
        return ScriptExecutor("script", {"working_dir": str(tmp_path), "kill_grace": 0.5, "linger": 0.3, **settings})

    return make


async def run(executor: ScriptExecutor, *, stream: bool = True, **payload: Any) -> tuple[list[Chunk], Answer]:
    items = [item async for item in produce(executor, call(stream, **payload))]
    answer = items[-1]
    assert isinstance(answer, Answer)
    return [item for item in items if isinstance(item, Chunk)], answer


def joined(chunks: list[Chunk], kind: str) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.kind == kind)


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits for its parent's wait() does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> str:
    """Our own child processes, those included that ended and were not waited for."""
    return "".join((task / "children").read_text() for task in Path("/proc/self/task").iterdir())


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


# ── results ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_program_answers_with_its_output_and_exit_code(script: Make) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr)"
    chunks, answer = await run(script(), argv=python(program))
    assert answer.text == "out\n"
    assert answer.data == {"exit_code": 0, "status": "completed", "stdout": "out\n", "stderr": "err\n"}
    assert (joined(chunks, "stdout"), joined(chunks, "stderr")) == ("out\n", "err\n")


async def test_a_failed_check_rejects_with_the_exit_code_and_the_last_lines(script: Make) -> None:
    program = "import sys; [print('line', n, file=sys.stderr) for n in range(50)]; sys.exit(3)"
    items = produce(script(), call(argv=python(program)))
    seen: list[Chunk | Answer] = []
    with pytest.raises(Reject, match=r"exited with code 3: line 40\n(line \d+\n)*line 49$") as caught:
        await _collect(items, seen)
    assert caught.value.failure == "script_failed"
    assert seen[-1] == Chunk("data", data={"exit_code": 3, "status": "failed"})


async def _collect(items: Any, seen: list[Any]) -> None:
    async for item in items:
        seen.append(item)  # noqa: PERF401 - what came before a failure matters


async def test_without_check_a_failing_program_is_an_answer(script: Make) -> None:
    _, answer = await run(script(), argv=python("import sys; print('so far'); sys.exit(9)"), check=False)
    assert answer.data == {"exit_code": 9, "status": "failed", "stdout": "so far\n", "stderr": ""}


async def test_a_program_that_dies_by_a_signal_says_which(script: Make) -> None:
    with pytest.raises(Reject, match="was killed by SIGKILL and wrote nothing"):
        await run(script(), argv=python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))


async def test_a_call_that_nobody_watches_gets_the_answer_only(script: Make) -> None:
    chunks, answer = await run(script(), argv=python("print('x')"), stream=False)
    assert (chunks, answer.text) == ([], "x\n")


async def test_a_script_file_gets_its_args_env_input_and_directory(script: Make, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "job.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['COLOUR'], os.environ['SIZE'], os.getcwd(), sys.stdin.read())\n"
    )
    payload = {"script": "job.py", "args": ("a b", "c;d"), "env": {"COLOUR": "red", "SIZE": 3}, "stdin": "grüße"}
    _, answer = await run(script(), **payload, cwd="sub")
    assert answer.text == f"['a b', 'c;d'] red 3 {tmp_path / 'sub'} grüße\n"


async def test_a_shell_script_needs_no_execute_permission(script: Make, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text('echo "$1|$INFERQ_TASK_ID|$INFERQ_ATTEMPT"\n')
    _, answer = await run(script(), script="job.sh", args=["one two"])
    assert answer.text == "one two|task-7|2\n"


async def test_a_big_input_that_is_not_read_does_no_harm(script: Make) -> None:
    _, answer = await run(script(), argv=python("print('not interested')"), stdin="x" * 1_000_000)
    assert answer.text == "not interested\n"


async def test_it_runs_without_the_queue_through_the_registry(tmp_path: Path) -> None:
    async with Executors() as executors:
        executors.register("script", settings={"working_dir": str(tmp_path)})
        answer = await executors.execute("script", "execute", payload={"argv": ["pwd"]})
    assert answer.text == f"{tmp_path}\n"


# ── output ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_megabytes_on_both_streams_arrive_without_loss(script: Make) -> None:
    program = "import sys\nfor n in range(40_000):\n    print(f'{n:062}ä', flush=False)\n    print(f'{n:063}', file=sys.stderr)\n"
    chunks, answer = await run(script(), argv=python(program))
    out = "".join(f"{n:062}ä\n" for n in range(40_000))
    err = "".join(f"{n:063}\n" for n in range(40_000))
    assert len(out.encode()) + len(err.encode()) > 5_000_000
    for kind, expected in (("stdout", out), ("stderr", err)):
        digest = hashlib.sha256(expected.encode()).hexdigest()
        assert hashlib.sha256(joined(chunks, kind).encode()).hexdigest() == digest
        assert hashlib.sha256(answer.data[kind].encode()).hexdigest() == digest


async def test_a_slow_reader_loses_nothing_and_holds_the_program_back(script: Make) -> None:
    size = 8_000_000
    items = produce(script(linger=0.0), call(argv=python(f"import sys; sys.stdout.write('x' * {size})")))
    total = 0
    async for item in items:
        if isinstance(item, Chunk):
            total += len(item.text)
            await asyncio.sleep(0.001)
    assert total == size


async def test_output_is_streamed_while_the_program_runs(script: Make, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"print('ready', flush=True)\nprint('got', open({str(fifo)!r}).read())"
    async with aclosing(produce(script(), call(argv=python(program)))) as items:
        assert await anext(items) == Chunk("stdout", "ready\n")
        # The program waits for this: had its output waited for its end, nobody would ever have written.
        await asyncio.to_thread(fifo.write_text, "word")
        assert await anext(items) == Chunk("stdout", "got word\n")


async def test_characters_cut_by_a_read_stay_whole_and_binary_is_replaced(script: Make) -> None:
    program = "import os, time\nfor byte in '€'.encode(): os.write(1, bytes([byte])); time.sleep(0.02)\nos.write(1, b'\\xff\\x00|')"
    _, answer = await run(script(), argv=python(program))
    assert answer.text == "€\ufffd\0|"


async def test_too_much_output_ends_the_program(script: Make, tmp_path: Path) -> None:
    program = f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile True: print('x' * 1000)"
    with pytest.raises(Reject, match="more than 100000 bytes") as caught:
        await run(script(max_output_bytes=100_000), argv=python(program))
    assert caught.value.failure == "script_failed"
    assert not alive(int((tmp_path / "pid").read_text()))


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; sleep 600"], stdout=subprocess.PIPE)
child.stdout.readline()
grandchild = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
pids = [os.getpid(), child.pid, grandchild.pid, int(grandchild.stdout.readline())]
open("pids.tmp", "w").write(" ".join(map(str, pids)))
os.rename("pids.tmp", "pids")
print("ready", flush=True)
"""


def family(tmp_path: Path) -> list[int]:
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_timeout_kills_the_whole_group_in_both_modes(script: Make, tmp_path: Path, *, stream: bool) -> None:
    with pytest.raises(Unavailable, match=r"timeout of 1\.5 s") as caught:
        await run(script(), argv=python(FAMILY + "time.sleep(600)"), timeout=1.5, stream=stream)
    assert caught.value.failure == "timeout"
    await until(lambda: not any(map(alive, family(tmp_path))))


async def test_the_timeout_also_ends_a_program_that_never_stops_talking(script: Make) -> None:
    with pytest.raises(Unavailable) as caught:
        await run(script(max_output_bytes=10**12), argv=python("while True: print('x' * 100)"), timeout=0.3)
    assert caught.value.failure == "timeout"


async def test_the_settings_timeout_holds_where_the_payload_names_none(script: Make) -> None:
    with pytest.raises(Unavailable, match=r"timeout of 0\.2 s"):
        await run(script(timeout=0.2), argv=["sleep", "600"])


async def test_a_program_that_closed_its_output_still_meets_the_timeout(script: Make) -> None:
    with pytest.raises(Unavailable) as caught:
        await run(script(), argv=["sh", "-c", "exec sleep 600 >&- 2>&-"], timeout=0.3)
    assert caught.value.failure == "timeout"


async def test_cancelling_kills_the_whole_group(script: Make, tmp_path: Path) -> None:
    task = asyncio.create_task(run(script(), argv=python(FAMILY + "time.sleep(600)")))
    await until((tmp_path / "pids").exists)
    pids = family(tmp_path)
    assert all(map(alive, pids))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(alive, pids)))


async def test_a_second_cancel_during_the_grace_kills_at_once(script: Make, tmp_path: Path) -> None:
    task = asyncio.create_task(run(script(kill_grace=3600), argv=python(FAMILY + "time.sleep(600)")))
    await until((tmp_path / "pids").exists)
    pids = family(tmp_path)
    task.cancel()
    await until(lambda: not alive(pids[0]))  # the program itself obeys SIGTERM, its stubborn child does not
    assert alive(pids[1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(alive, pids)))


async def test_closing_the_stream_early_kills_the_whole_group(script: Make, tmp_path: Path) -> None:
    async with aclosing(produce(script(), call(argv=python(FAMILY + "time.sleep(600)")))) as items:
        assert await anext(items) == Chunk("stdout", "ready\n")
    await until(lambda: not any(map(alive, family(tmp_path))))


async def test_a_program_may_clean_up_on_sigterm(script: Make, tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\ndef end(*_): open('cleaned', 'w').close(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    async with aclosing(produce(script(kill_grace=30), call(argv=python(program)))) as items:
        await anext(items)
    assert (tmp_path / "cleaned").exists()


async def test_children_left_behind_may_finish_writing_but_not_stay(script: Make, tmp_path: Path) -> None:
    _, answer = await run(script(linger=30), argv=["sh", "-c", "(sleep 0.2; echo late) & echo early"])
    assert answer.text == "early\nlate\n"
    _, answer = await run(script(), argv=["sh", "-c", "sleep 600 & echo $!"])
    await until(lambda: not alive(int(answer.text or "")))


async def test_a_daemon_that_left_the_group_holds_nobody_up_and_what_was_written_counts(script: Make) -> None:
    program = "import subprocess\ndaemon = subprocess.Popen(['sleep', '600'], start_new_session=True)\nprint(daemon.pid, 'x' * 50_000)"
    async with asyncio.timeout(20):
        _, answer = await run(script(), argv=python(program))
    pid, _, written = (answer.text or "").partition(" ")
    os.kill(int(pid), signal.SIGKILL)  # it is the one who asked for it that must end it
    assert written == "x" * 50_000 + "\n"


async def test_no_zombie_and_no_open_file_is_left(script: Make) -> None:
    await run(script(), argv=["true"])  # whatever the first run opens for good
    before, others = len(os.listdir("/proc/self/fd")), children()
    for _ in range(5):
        await run(script(), argv=["sh", "-c", "echo hi"], stdin="x")
        with pytest.raises(Reject):
            await run(script(), argv=["/no/such/program"])
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert children() == others


# ── environment ─────────────────────────────────────────────────────────────────────────────────────────────────────

SHOW = "import os; print(os.environ.get('OPENAI_API_KEY'), os.environ.get('HOME'), os.environ.get('EXTRA'))"


async def test_secrets_of_our_environment_are_not_passed_on(script: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HOME", "/nowhere/somebody")
    _, answer = await run(script(env={"EXTRA": "set"}), argv=python(SHOW))
    assert answer.text == "None /nowhere/somebody set\n"
    _, answer = await run(script(inherit_env=True), argv=python(SHOW), env={"EXTRA": "own"})
    assert answer.text == "sk-secret /nowhere/somebody own\n"


# ── what may run ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_shell_command_needs_the_setting(script: Make) -> None:
    with pytest.raises(InvalidTask, match=r"give the words as argv.*or set allow_shell: true") as caught:
        script().validate("execute", "", {"command": "echo a, b | tr a-z A-Z"})
    assert caught.value.field == "payload.command"
    with pytest.raises(Reject, match="argv") as refused:
        await run(script(), command="echo hi")
    assert refused.value.failure == "bad_request"
    _, answer = await run(script(allow_shell=True), command="echo a, b | tr a-z A-Z")
    assert answer.text == "A, B\n"


async def test_words_of_argv_meet_no_shell(script: Make) -> None:
    _, answer = await run(script(), argv=["echo", "$HOME; echo hacked", "*"])
    assert answer.text == "$HOME; echo hacked *\n"


@pytest.mark.parametrize("path", ["../out.py", "/etc/out.py", "a/../../out.py", "", "tool.exe", "noending", ".py/.."])
def test_scripts_outside_or_of_another_kind_are_refused_at_submit(script: Make, path: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        script().validate("execute", "", {"script": path})
    assert caught.value.field == "payload.script"


async def test_links_may_not_leave_the_directory_nor_change_the_kind(
    script: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "evil.py").write_text("print('evil')")
    (tmp_path / "linked").symlink_to(outside)
    (tmp_path / "link.py").symlink_to(outside / "evil.py")
    (tmp_path / "real.txt").write_text("print('evil')")
    (tmp_path / "disguise.py").symlink_to("real.txt")
    (tmp_path / "good.py").write_text("print('good')")
    (tmp_path / "alias.py").symlink_to("good.py")
    for path in ("link.py", "linked/evil.py"):
        with pytest.raises(Reject, match="out of the working directory"):
            await run(script(), script=path)
    with pytest.raises(Reject, match="ending is not allowed"):
        await run(script(), script="disguise.py")
    with pytest.raises(Reject, match="out of the working directory"):
        await run(script(), argv=["pwd"], cwd="linked")
    assert (await run(script(), script="alias.py"))[1].text == "good\n"


async def test_scripts_only_applies_the_same_rules_to_argv(script: Make, tmp_path: Path) -> None:
    (tmp_path / "ok.py").write_text("import sys; print(sys.argv[1])")
    strict = script(scripts_only=True, allow_shell=True)
    for payload in ({"argv": ["ls"]}, {"argv": ["/bin/ls.sh"]}, {"command": "ls"}):
        with pytest.raises(InvalidTask):
            strict.validate("execute", "", payload)
    assert (await run(strict, argv=["ok.py", "yes"]))[1].text == "yes\n"


def test_allowed_extensions_can_be_narrowed(script: Make) -> None:
    executor = script(allowed_extensions=[".py"])
    executor.validate("execute", "", {"script": "a.py"})
    with pytest.raises(InvalidTask, match=r"one of \.py, got 'a\.sh'"):
        executor.validate("execute", "", {"script": "a.sh"})


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "payload"),
        ({"argv": ["a"], "command": "b"}, "payload"),
        ({"argv": []}, "payload.argv"),
        ({"argv": "ls -l"}, "payload.argv"),
        ({"argv": ["a", 1]}, "payload.argv[1]"),
        ({"argv": ["a\0b"]}, "payload"),
        ({"argv": ["a"], "args": ["b"]}, "payload.args"),
        ({"script": "a.py", "env": {"A=B": "x"}}, "payload.env"),
        ({"script": "a.py", "env": ["A=B"]}, "payload.env"),
        ({"script": "a.py", "timeout": 0}, "payload.timeout"),
        ({"script": "a.py", "timeout": "1m"}, "payload.timeout"),
        ({"script": "a.py", "cwd": "a", "working_dir": "b"}, "payload.cwd"),
    ],
)
def test_a_wrong_payload_is_refused_with_the_fields_name(script: Make, payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        script().validate("execute", "", payload)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("payload", "reason", "failure"),
    [
        ({"script": "absent.py"}, "no file 'absent.py'", "bad_request"),
        ({"argv": ["pwd"], "cwd": "absent"}, "no directory 'absent'", "bad_request"),
        ({"argv": ["pwd"], "cwd": "/"}, "out of the working directory", "bad_request"),
        ({"argv": ["no-such-program"]}, "'no-such-program' cannot be started: No such file", "script_failed"),
    ],
)
async def test_what_is_not_there_is_said_when_it_runs(script: Make, payload: dict[str, Any], reason: str, failure: str) -> None:
    with pytest.raises(Reject, match=reason) as caught:
        await run(script(), **payload)
    assert caught.value.failure == failure


async def test_a_missing_interpreter_is_named(script: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.rb").write_text("puts 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Reject, match="needs 'ruby', which is not installed"):
        await run(script(), script="job.rb")


async def test_health_tells_a_missing_directory(script: Make, tmp_path: Path) -> None:
    assert (await script().health()).ok
    health = await script(working_dir=str(tmp_path / "absent")).health()
    assert (health.ok, "absent" in health.detail) == (False, True)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="allow_shel"):
        ScriptExecutor("script", {"allow_shel": True})
