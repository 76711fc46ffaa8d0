"""`python -m inferq.demo`: real prompts through the durable queue to a real small model, with the worker killed half-way.

It ends with a table of what happened and exits 0 only if nothing was lost and nothing done twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from inferq.config import BackendSettings, Settings, StoreSettings, WorkerSettings
from inferq.errors import InferqError, TaskError
from inferq.events import Event, TaskCompleted, TaskStarted
from inferq.handle import AsyncHandle
from inferq.queue import AsyncQueue
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


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settings(path: Path) -> Settings:
    return Settings(
        store=StoreSettings(url=f"sqlite:///{path}"),
        worker=WorkerSettings(slots=3, rescue_interval=0.5),
        backends=(
            BackendSettings("llamacpp", "llamacpp", slots=2, settings={"slots": 2}),
            BackendSettings("script", "script", settings={"working_dir": str(path.parent)}),
        ),
    )


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
    script = [sys.executable, "-c", "print(sum(range(1_000_001)), 'is the sum of 0 to 1,000,000')"]
    tasks.append(Submission("script", "execute", payload={"argv": script}, priority=PRIORITIES["high"], stream=True))
    return tasks


def start_worker(path: Path) -> subprocess.Popen[bytes]:
    """A worker in a process of its own, to be killed."""
    command = [sys.executable, "-m", "inferq.demo", "--work", str(path)]
    return subprocess.Popen(command, start_new_session=True)  # noqa: S603 - this program itself


async def be_worker(path: Path) -> None:
    async with AsyncQueue(settings=settings(path)) as queue:
        await queue.run_until_stopped()


async def stream_one(handle: AsyncHandle) -> None:
    say(f"\nStreaming one answer ({handle.id}):")
    async for logged in handle.stream():
        if logged.chunk.kind == "text":
            sys.stdout.write(logged.chunk.text)
            sys.stdout.flush()
        elif logged.chunk.kind == "reset":
            sys.stdout.write("\n[the worker vanished; a new attempt begins]\n")
    say()


async def run(folder: Path) -> bool:
    path = folder / "demo.db"
    began = time.monotonic()
    worker: subprocess.Popen[bytes] | None = None
    async with AsyncQueue(settings=settings(path), work=False) as queue:
        handles = await queue.submit_many(work_to_do())
        say(f"{len(handles)} tasks are on disk in {path}")
        try:
            worker = start_worker(path)
            say(f"Worker {worker.pid} begins.")
            await stream_one(handles[3])
            await kill_half_way(queue, worker, len(handles))
            worker = start_worker(path)
            say(f"Worker {worker.pid} begins; it takes back what the dead one held.")
            async with asyncio.timeout(LIMIT):
                await asyncio.gather(*(handle.wait() for handle in handles))
        finally:
            if worker is not None and worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                await asyncio.to_thread(worker.wait, 30)
        good = await report(queue, handles)
    say(f"\n{time.monotonic() - began:.0f} s in all.")
    return good


async def kill_half_way(queue: AsyncQueue, worker: subprocess.Popen[bytes], total: int) -> None:
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
    os.killpg(worker.pid, signal.SIGKILL)
    await asyncio.to_thread(worker.wait)
    say(f"\nWorker {worker.pid} was killed with SIGKILL: {done} tasks done, {len(running)} in the middle.")


async def report(queue: AsyncQueue, handles: Sequence[AsyncHandle]) -> bool:
    """The table, and the verdict from the event log: every task completed, none of them twice."""
    ends: dict[str, int] = {}
    event: Event
    last = await queue.store.last_event()
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
    say(f"\n{len(again)} attempts were cut off by the kill and made again by the second worker.")
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
    parser.add_argument("--work", metavar="FILE", help="be the worker of this store until a signal (used by the demo itself)")
    asked = parser.parse_args(arguments)
    if asked.work:
        asyncio.run(be_worker(Path(asked.work)))
        return 0
    try:
        from inferq.executors.llamacpp import pull

        say(f"The model: {pull(MODEL, say)}")
        with tempfile.TemporaryDirectory(prefix="inferq-demo-") as folder:
            return 0 if asyncio.run(run(Path(folder))) else 1
    except (InferqError, TimeoutError) as error:
        sys.stderr.write(f"the demo failed: {str(error) or 'not done in time'}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
