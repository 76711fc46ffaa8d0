"""README.md is true: each Python block and each command of it runs, in the order it stands there, as a newcomer would type it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inferq import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
INFERQ = Path(sys.executable).with_name("inferq")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


class Ollama(BaseHTTPRequestHandler):
    """Just enough of Ollama's /api/chat for the five-line program."""

    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/chat"
        assert asked["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        for word, done in (("Because ", False), ("of air.", False), ("", True)):
            line = {
                "model": asked["model"],
                "created_at": "2026-01-02T03:04:05Z",
                "message": {"role": "assistant", "content": word},
                "done": done,
            }
            self.wfile.write(
                json.dumps(line | ({"done_reason": "stop", "eval_count": 2, "prompt_eval_count": 9} if done else {})).encode() + b"\n"
            )

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def ollama() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERQ_", "OLLAMA", "OPENAI"))}
    store = {"INFERQ_STORE__URL": f"sqlite:///{folder}/readme.db"}
    return kept | store | {"PATH": f"{INFERQ.parent}:{os.environ['PATH']}"} | more


def test_the_five_line_program_runs_and_the_command_line_looks_into_its_file(tmp_path: Path, ollama: str) -> None:
    program = blocks("python")[0]
    assert len(program.strip().splitlines()) <= 5
    assert run_program(program, tmp_path, OLLAMA_HOST=ollama) == "Because of air.\n"
    (command,) = re.findall(r"`(inferq --url sqlite:[^`]+)`", " ".join(README.split()))
    listed = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    assert listed.stdout.count("completed") == 1
    assert "llama3.2" in listed.stdout


def run_program(program: str, folder: Path, **more: str) -> str:
    env = environment(folder, **more)
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_five_lines_need_no_model_with_the_executor_that_the_page_names(tmp_path: Path) -> None:
    assert run_program(with_executor("echo"), tmp_path) == "Why is the sky blue?\n"


@pytest.mark.e2e
def test_the_five_lines_run_on_the_small_model_that_the_page_names(tmp_path: Path, local_model: None) -> None:
    (command,) = re.findall(r"at hand\? `(inferq models pull [^`]+)`", README)
    subprocess.run(shlex.split(command), cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=110, check=True)
    (model,) = re.findall(r"with the model name `(\w+)`", README)
    assert run_program(with_executor("llamacpp").replace("llama3.2", model), tmp_path).strip()


def with_executor(name: str) -> str:
    assert f'`executor="{name}"`' in " ".join(README.split())
    program, changed = re.subn(r'priority="high"', f'priority="high", executor="{name}"', blocks("python")[0])
    assert changed == 1
    return program


@pytest.fixture
def local_model() -> None:
    """What runs models inside is installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        if os.environ.get("INFERQ_E2E") == "required":
            pytest.fail("the extra `local` is not installed")
        pytest.skip("the extra `local` is not installed")


def test_the_asyncio_program_runs(tmp_path: Path) -> None:
    (program,) = (block for block in blocks("python") if "asyncio" in block)
    assert run_program(program, tmp_path).startswith("Write a haiku about queues")


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[str]:
    """The address of a server, on a port that is free here; it ends well."""
    env = environment(folder, INFERQ_SERVER__PORT="0", INFERQ_LOG__FORMAT="json")
    server = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    with server.stderr as log:
        started = next((told for line in log if (told := json.loads(line)).get("event") == "server.started"), None)
        assert started is not None, "it ended before it started"
        try:
            yield started["url"]
        finally:
            server.send_signal(signal.SIGTERM)
            rest = log.read()
            assert server.wait(60) == 0, rest


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the README's server."""
    (command,) = (block.partition("#")[0].split() for block in blocks("sh") if block.startswith("inferq serve"))
    with running(command, tmp_path) as url:
        yield url


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_serve_leaves_a_server_running_with_the_small_model(tmp_path: Path, local_model: None) -> None:
    assert "`make serve` leaves a server running with that model, on port 7125." in README
    said = subprocess.run(["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    calls = [line.partition(" -m inferq ")[2].partition(">")[0] for line in said.splitlines() if " -m inferq " in line]
    pull, serve = ([sys.executable, "-m", "inferq", *shlex.split(call)] for call in calls)
    subprocess.run(pull, cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=110, check=True)
    with running(serve, tmp_path) as url:
        asked = ["inferq", "--url", url, "run", pull[-2], "--executor", "llamacpp", "--max-tokens", "8", "Say hello."]
        ran = subprocess.run(asked, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.strip()
    assert list((tmp_path / "data").iterdir())
    assert Settings().server.port == 7125


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_line_for_the_server_runs(tmp_path: Path, served: str) -> None:
    (script,) = (block for block in blocks("sh") if "curl" in block)
    said: list[str] = []
    for line in re.split(r"\n(?=\S)", script.strip().replace("http://127.0.0.1:7125", served)):
        ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, ""), (line, ran.stderr)
        said.append(ran.stdout)
    made, found, status, listed, answered = said
    task_id = json.loads(made)["id"]
    assert [task["id"] for task in json.loads(found)["items"]] == [task_id]
    assert json.loads(status)["total"] == 1
    assert task_id in listed
    assert "Hello again" in answered


def test_the_program_for_the_server_runs(tmp_path: Path, served: str) -> None:
    (program,) = (block for block in blocks("python") if "7125" in block)
    assert run_program(program.replace("http://127.0.0.1:7125", served), tmp_path) == "Write a haiku about queues"


def test_the_addresses_named_answer_with_what_is_said_of_them(served: str) -> None:
    assert re.search(r"`http://127.0.0.1:7125/` is a page .* `/openapi.json` the whole API, `/metrics` is for Prometheus", README)
    for path, begins in (("/", "<!doctype html>"), ("/openapi.json", '{"openapi":"3.1'), ("/metrics", "# HELP ")):
        with urllib.request.urlopen(served + path, timeout=20) as answer:
            assert answer.read().decode().startswith(begins), path


@pytest.mark.e2e
def test_each_command_runs_in_the_order_it_stands(tmp_path: Path, local_model: None) -> None:
    (script,) = (block for block in blocks("sh") if "inferq run" in block)
    said: dict[str, str] = {}
    for line in script.splitlines():
        arguments = shlex.split(line, comments=True)
        if arguments[:2] == ["inferq", "work"]:
            work_until_done(arguments, tmp_path)
            continue
        ran = subprocess.run(arguments, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, (line, ran.stderr)
        said[arguments[1]] = ran.stdout
    assert said["run"].strip()
    assert re.fullmatch(r"[0-9a-f-]{36}\n", said["submit"])
    listed = [json.loads(line) for line in said["list"].splitlines()]
    assert {(task["executor"], task["state"]) for task in listed} == {("llamacpp", "completed"), ("echo", "completed")}


def work_until_done(arguments: list[str], folder: Path) -> None:
    worker = subprocess.Popen(arguments, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if "completed" in line:
            break
    worker.send_signal(signal.SIGINT)
    worker.stderr.read()
    assert worker.wait(30) == 0
    worker.stderr.close()


def test_it_is_installed_as_the_page_says(tmp_path: Path) -> None:
    (script,) = (block for block in blocks("sh") if "pip install" in block)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    # What it needs is taken from here instead of fetched again; the package itself is built and installed.
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "further.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    env = environment(tmp_path) | {"PATH": f"{venv}/bin:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
    for line in script.splitlines():
        arguments = shlex.split(line, comments=True)
        arguments = [str(ROOT) + word[1:] if word.startswith(".") else word for word in arguments]
        ran = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, ran.stderr
    program = "import inferq, inferq.server; print(inferq.__file__, inferq.server.create_app.__module__)"
    where = subprocess.run([venv / "bin" / "python", "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(packages))
    helped = subprocess.run(["inferq", "serve", "--help"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "Serve the queue over HTTP" in helped.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_target_of_make_that_is_named_exists(page: str) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake (demo|\w+)(?=`|  )", (ROOT / page).read_text("utf-8")))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "module"), [("demo", "inferq.demo"), ("test", "pytest")])
def test_the_targets_run_what_is_tested(target: str, module: str) -> None:
    # Inside another make, as `make test` itself, make would also tell of folders.
    plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    said = subprocess.run(["make", "-n", target], cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1].endswith(f"-m {module}")


def test_the_first_command_is_the_demo_and_the_second_the_tests() -> None:
    assert [line.partition("#")[0].strip() for line in blocks("sh")[0].splitlines()] == ["make demo", "make test"]


def test_every_page_that_is_linked_exists() -> None:
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([\w./-]+)\)", (ROOT / page).read_text("utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_every_path_named_in_the_architecture_exists() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert named
    source = ROOT / "src/inferq"
    for path in named:
        assert any((base / path).exists() for base in (ROOT, source, ROOT / "tests", source / "stores/sqlite", source / "server")), path


def test_every_room_of_the_source_is_in_the_architecture() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = [path.name + "/" if path.is_dir() else path.name for path in (ROOT / "src/inferq").iterdir() if path.name[0] not in "_."]
    assert [room for room in rooms if f"`{room}`" not in page and room != "py.typed"] == []


def test_every_page_with_something_to_run_has_a_test_that_reads_it() -> None:
    tests = "".join(test.read_text("utf-8") for test in (ROOT / "tests").glob("**/test_*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        if re.search(r"^```(python|sh|console|toml|yaml)\b", page.read_text("utf-8"), re.MULTILINE):
            assert f'"{page.name}"' in tests, page


def test_every_page_is_in_the_table_of_the_readme() -> None:
    assert sorted(re.findall(r"^\| \[docs/([\w-]+\.md)\]", README, re.MULTILINE)) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )
