"""`python -m inferq.demo`: real prompts over HTTP to a server with a real small model, and the server killed half-way.

It ends with a table of what happened and exits 0 only if nothing was lost and nothing done twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from inferq.client import AsyncClient
from inferq.errors import InferqError, TaskError, TransportError
from inferq.events import Event, TaskCompleted, TaskStarted
from inferq.handle import AsyncHandle
from inferq.task import PRIORITIES, Submission, Task, TaskResult, priority_name

MODEL: Final = "smollm2"
QUESTIONS: Final = (
    "What is a queue?",
    "Why is the sky blue?",
    "Name three colours.",
    "What do bees make?",
    "Say hello in French.",
    "What is water made of?",
)
LIMIT: Final = 100.0
"""Seconds after which the demo gives up."""
SETTINGS: Final = """\
[store]
url = "sqlite:///demo.db"

[worker]
slots = 3
rescue_interval = "500ms"

[backends.llamacpp]
executor = "llamacpp"
slots = 2
settings.slots = 2

[backends.script]
executor = "script"
over_http = true
settings = { working_dir = ".", allow_scripts = ["scripts"] }

[log]
file = "server.log"
"""


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def work_to_do() -> list[Submission]:
    """A mix of kinds and priorities; low ones first, so that the order they are served in is not the order they came in."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 32}
    tasks: list[Submission] = []
    names = ("low", "normal", "high", "critical")
    for index, question in enumerate(QUESTIONS * 2):
        common: dict[str, Any] = {"model": MODEL, "options": options, "priority": PRIORITIES[names[index % 4]], "stream": True}
        if index % 3 == 2:
            tasks.append(Submission("llamacpp", "generate", payload={"prompt": question}, **common))
        else:
            messages = [{"role": "user", "content": question}]
            tasks.append(Submission("llamacpp", "chat", payload={"messages": messages}, **common))
    tasks.append(Submission("llamacpp", "embed", model=MODEL, payload={"input": list(QUESTIONS[:3])}, priority=PRIORITIES["low"]))
    tasks.append(Submission("script", "execute", payload={"script": "scripts/sum.py"}, priority=PRIORITIES["high"], stream=True))
    return tasks


class Server:
    """`inferq serve` in a process of its own, to be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "inferq.toml").write_text(SETTINGS, encoding="utf-8")
        (folder / "scripts").mkdir()
        (folder / "scripts" / "sum.py").write_text("print(sum(range(1_000_001)), 'is the sum of 0 to 1,000,000')\n", encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> int:
        """Its process id."""
        command = [sys.executable, "-m", "inferq", "--config", "inferq.toml", "serve", "--port", str(self.port)]
        with (self.folder / "server.err").open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - this program itself
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )
        return self.process.pid

    async def ready(self, queue: AsyncClient) -> None:
        """Until it answers. Raises RuntimeError with its last words when it does not come up."""
        until = time.monotonic() + LIMIT
        while True:
            try:
                await queue.stats()
            except TransportError:
                if self.process is None or self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server did not come up: {self._last_words()}") from None
                await asyncio.sleep(0.1)
            else:
                return

    def _last_words(self) -> str:
        lines = (self.folder / "server.err").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await asyncio.to_thread(self.process.wait)

    async def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, 60)


async def stream_one(handle: AsyncHandle) -> None:
    say(f"\nStreaming one answer ({handle.id}):")
    async for logged in handle.stream():
        if logged.chunk.kind == "text":
            sys.stdout.write(logged.chunk.text)
            sys.stdout.flush()
        elif logged.chunk.kind == "reset":
            sys.stdout.write("\n[the server vanished; a new attempt begins]\n")
    say()


async def run(folder: Path) -> bool:
    began = time.monotonic()
    server = Server(folder)
    async with AsyncClient(server.url, retries=0) as queue:
        try:
            say(f"`inferq serve` begins as process {server.start()}; its page is {server.url}/")
            await server.ready(queue)
        except BaseException:
            await server.kill()
            raise
    # A patient client: its waits outlive the server.
    async with AsyncClient(server.url) as queue:
        try:
            handles = await queue.submit_many(work_to_do())
            say(f"{len(handles)} tasks were submitted over HTTP; they are on disk in {folder / 'demo.db'}")
            await stream_one(handles[3])
            async with asyncio.timeout(2 * LIMIT), asyncio.TaskGroup() as waits:
                for handle in handles:
                    waits.create_task(handle.wait())
                await kill_half_way(queue, server, len(handles))
                say(f"Process {server.start()} begins on the same port and takes back what the dead one held; the client waits on.")
            good = await report(queue, handles)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            await server.stop()
    say(f"\n{time.monotonic() - began:.0f} s in all.")
    return good


async def kill_half_way(queue: AsyncClient, server: Server, total: int) -> None:
    """SIGKILL once half of the tasks are done and one is running right now."""
    done, running = 0, set()
    async with asyncio.timeout(LIMIT):
        async for event in queue.events("task.started", "task.completed", after=0):
            if isinstance(event, TaskStarted):
                running.add(event.task_id)
            elif isinstance(event, TaskCompleted):
                running.discard(event.task_id)
                done += 1
            if done >= total // 2 and running:
                break
    await server.kill()
    say(f"\nThe server was killed with SIGKILL: {done} tasks done, {len(running)} in the middle.")


async def report(queue: AsyncClient, handles: Sequence[AsyncHandle]) -> bool:
    """The table, and the verdict from the event log: every task completed, none of them twice."""
    ends: dict[str, int] = {}
    event: Event
    last = (await queue.store_stats()).last_event
    async for event in queue.events(after=0):
        if isinstance(event, TaskCompleted):
            ends[event.task_id] = ends.get(event.task_id, 0) + 1
        if event.position >= last:
            break
    say(f"\n{'task':<14}{'priority':<10}{'attempts':>8}{'waited s':>10}{'ran s':>8}{'tokens':>8}  answer")
    lost = 0
    for handle in handles:
        task = await handle.refresh()
        try:
            say(line(task, await handle.result(timeout=1)))
        except TaskError as error:
            lost += 1
            say(f"{task.action:<14}{priority_name(task.priority):<10}{task.attempt:>8}  {error}")
    twice = sum(count - 1 for count in ends.values() if count > 1)
    lost += sum(1 for handle in handles if ends.get(handle.id, 0) == 0)
    again = [handle for handle in handles if (await handle.refresh()).attempt > 1]
    say(f"\n{len(again)} attempts were cut off by the kill and made again by the second process.")
    say(f"lost {lost}, done twice {twice}")
    return lost == 0 and twice == 0 and len(again) > 0


def line(task: Task, result: TaskResult) -> str:
    tokens = result.usage.total_tokens if result.usage else None
    if result.embeddings:
        words = f"{len(result.embeddings)} vectors of {len(result.embeddings[0])} numbers"
    else:
        words = " ".join((result.text or "").split())[:48]
    kind = f"{task.executor[:8]}.{task.action[:5]}" if task.action == "execute" else task.action
    waited, ran = f"{result.timing.waited:.2f}", f"{result.timing.ran:.2f}"
    return f"{kind:<14}{priority_name(task.priority):<10}{result.attempts:>8}{waited:>10}{ran:>8}{tokens or '-':>8}  {words}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inferq.demo", description=__doc__)
    parser.parse_args(arguments)
    try:
        from inferq.executors.llamacpp import pull

        say(f"The model: {pull(MODEL, say)}")
        with tempfile.TemporaryDirectory(prefix="inferq-demo-") as folder:
            return 0 if asyncio.run(run(Path(folder))) else 1
    except (InferqError, TimeoutError, RuntimeError) as error:
        sys.stderr.write(f"the demo failed: {str(error) or 'not done in time'}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
