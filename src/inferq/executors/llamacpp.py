"""The llamacpp executor: runs GGUF models on this machine, each in a child process that is started, watched and restarted."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from inferq.errors import Reject, RetryLater, Unavailable
from inferq.executor import Answer, Call, Chunk, Executor, Health
from inferq.executors import models
from inferq.executors import payload as fields
from inferq.executors.models import installed, models_dir, pull, resolve
from inferq.executors.openai import OpenAIExecutor
from inferq.executors.process import exit_words
from inferq.executors.registry import produce

__all__ = ["LlamaCppExecutor", "installed", "models_dir", "pull", "resolve"]

_PROGRAM: Final = str(Path(__file__).with_name("llamacpp_server.py"))
_MISSING: Final = "running models here needs an extra: pip install 'inferq[local]'"
_TAIL: Final = 2_000
_LEAVE: Final = 5.0


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of a llamacpp backend. `model` (name or file) makes it serve that one only; `context` is tokens a slot.

    `threads` None is half of the machine's. `start_timeout` is in seconds. `max_loaded` models stay in memory at once.
    """

    model: str | None = None
    slots: int = 2
    context: int = 2048
    threads: int | None = None
    gpu_layers: int = 0
    max_loaded: int = 1
    start_timeout: float = 120.0


class LlamaCppExecutor(Executor):
    """Chat, generate and embed on models of this machine, without any other server."""

    actions = ("chat", "generate", "embed")
    required: ClassVar[Mapping[str, tuple[str, ...]]] = OpenAIExecutor.required
    needs_model = True
    dialect = "openai"
    over_http = True
    keeps_models = True
    description = "Runs GGUF models on this machine in a managed child process (extra: local)."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        self._set = fields.settings(self.settings, Settings, of=name)
        self._children: dict[Path, _Child] = {}
        self._checker = OpenAIExecutor(name, {"base_url": "http://127.0.0.1/v1", "api_key": ""})

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        """Checks the known fields; whether the model is here is seen where it runs."""
        self._checker.validate(action, model, payload)

    async def close(self) -> None:
        """Stop every child."""
        children, self._children = list(self._children.values()), {}
        await asyncio.gather(*(child.close() for child in children))

    async def health(self) -> Health:
        """Whether the engine is installed and a model is here; starts nothing."""
        if importlib.util.find_spec("xllamacpp") is None:
            return Health(ok=False, detail=_MISSING, answered=True)
        try:
            names = [str(resolve(self._set.model))] if self._set.model else list(installed())
        except Reject as error:
            return Health(ok=False, detail=str(error), answered=True)
        if not names:
            return Health(ok=False, detail="no model is here; fetch a small one with: inferq models pull smollm2", answered=True)
        return Health(ok=True, detail=f"can serve {', '.join(names)}")

    async def load_model(self, model: str, *, keep: float | None = None) -> None:
        """Start the child that serves it; the least recently used idle one makes room. Raises ExecutorError."""
        if keep is not None:
            raise Reject(f"{self.name} takes no time for which a model stays: it stays until another needs its place")
        child = await self._child(model)
        await child.ready()

    async def unload_model(self, model: str) -> None:
        """End its child; nothing where none runs. Raises RetryLater while it answers."""
        child = self._children.get(self._path(model))
        if child is None:
            return
        if child.calls:
            raise RetryLater(f"{self.name}: {model} answers {child.calls} calls now; drain the backend first", after=1.0)
        await self._children.pop(child.path).close()

    async def loaded(self) -> list[str] | None:
        """The models whose children run in this process."""
        return sorted(child.alias for child in self._children.values())

    async def models(self) -> list[str]:
        """The one of the settings, else every installed one."""
        return [self._set.model] if self._set.model else list(installed())

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        """Yields the chunks and then the Answer; starts the child where none runs. When it dies, the call is `Unavailable`."""
        child = await self._child(call.model)
        child.calls += 1
        try:
            server = await child.ready()
            asked = msgspec.structs.replace(call, model=child.alias)
            async with aclosing(produce(server, asked)) as items:
                async for item in items:
                    yield item
        except Unavailable as error:
            if died := await child.died():
                raise Unavailable(f"{self.name}: {died}", failure="server_error") from error
            raise
        finally:
            child.calls -= 1

    async def _child(self, model: str) -> _Child:
        """The child of that model; makes room for it among `max_loaded` when it is a new one."""
        if not self._children and importlib.util.find_spec("xllamacpp") is None:
            raise Reject(f"{self.name}: {_MISSING}", failure="internal")
        path = self._path(model)
        child = self._children.pop(path, None)
        if child is not None:
            self._children[path] = child  # last in the order: the most recently used
            return child
        if len(self._children) >= self._set.max_loaded:
            await self._evict(model)
        return self._children.setdefault(path, _Child(self.name, path, self._set))

    async def _evict(self, model: str) -> None:
        idle = next((path for path, child in self._children.items() if not child.calls), None)
        if idle is None:
            busy = ", ".join(path.stem for path in self._children)
            raise RetryLater(f"{self.name}: {model} waits until {busy} is done", after=1.0, failure="overloaded")
        await self._children.pop(idle).close()

    def _path(self, model: str) -> Path:
        """The model's file. A task may name models, never files: those are the configuration's."""
        only = self._set.model
        if only is not None:
            path = resolve(only)
            if model not in (only, path.stem) and models.canonical(model) != path.stem:
                raise Reject(f"{self.name} serves {only} only, not {model!r}", failure="model_not_found")
            return path
        if os.sep in model or model.endswith(".gguf"):
            raise Reject(
                f"expected a model's name, got the path {model!r}; a file is named by the setting `model`",
                failure="model_not_found",
            )
        return resolve(model)


class _Child:
    """One child process and the OpenAI executor that speaks to it."""

    def __init__(self, owner: str, path: Path, chosen: Settings) -> None:
        self.path = path
        self.alias = path.stem
        self.calls = 0
        self._owner = owner
        self._set = chosen
        self._gate = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._server: OpenAIExecutor | None = None
        self._listener: asyncio.Task[None] | None = None
        self._said = ""

    async def ready(self) -> OpenAIExecutor:
        """The executor of a running child. Raises `Unavailable` when it does not start, `Reject` when it never will."""
        async with self._gate:
            if self._server is None or self._process is None or _ended(self._process):
                await self._stop()
                try:
                    self._server = await self._start()
                except BaseException:
                    await self._stop()
                    raise
            return self._server

    async def died(self) -> str:
        """How the child ended, empty when it runs. A cut connection may be heard of a moment before the end itself."""
        if self._process is None:
            return ""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                code = await self._process.wait()
                return f"the server of {self.alias} {exit_words(code)}; the next call starts it again"
        return ""

    async def close(self) -> None:
        """End the child."""
        async with self._gate:
            await self._stop()

    async def _start(self) -> OpenAIExecutor:
        pipe = asyncio.subprocess.PIPE
        # A session of its own: Ctrl-C is for us, who let running calls finish. -P: no module of the working directory.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", _PROGRAM, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        self._said = ""
        self._listener = asyncio.create_task(self._listen(process.stderr))
        key = secrets.token_urlsafe(24)
        line = await self._report(process, msgspec.json.encode(self._config(key)) + b"\n")
        if not line:
            raise await self._no_start(process)
        url: str = msgspec.json.decode(line)["url"]
        return OpenAIExecutor(self._owner, {"base_url": f"{url}/v1", "api_key": key})

    def _config(self, key: str) -> dict[str, Any]:
        return {
            "model": str(self.path),
            "alias": self.alias,
            "api_key": key,
            "slots": self._set.slots,
            "context": self._set.context,
            "threads": self._set.threads or max(1, (os.cpu_count() or 2) // 2),
            "gpu_layers": self._set.gpu_layers,
        }

    async def _report(self, process: asyncio.subprocess.Process, config: bytes) -> bytes:
        """The line in which the child says that it is ready; empty when it ended instead."""
        if process.stdin is None or process.stdout is None:
            return b""
        try:
            async with asyncio.timeout(self._set.start_timeout):
                process.stdin.write(config)
                await process.stdin.drain()
                return await process.stdout.readline()
        except TimeoutError:
            limit = self._set.start_timeout
            message = f"{self._owner}: {self.alias} was not ready within {limit:g} s (setting start_timeout)"
            raise Unavailable(message, failure="timeout", sent=False) from None
        except OSError:
            return b""

    async def _no_start(self, process: asyncio.subprocess.Process) -> Reject | Unavailable:
        code = await process.wait()
        if self._listener is not None:
            await self._listener
        if code == 3:
            return Reject(f"{self._owner}: {_MISSING}", failure="internal")
        reason = self._said.strip() or "it said nothing"
        message = f"{self._owner}: the server of {self.alias} {exit_words(code)} while it started: {reason}"
        return Reject(message, failure="internal") if code == 4 else Unavailable(message, failure="server_error", sent=False)

    async def _listen(self, stderr: asyncio.StreamReader | None) -> None:
        """Keeps the child's last words, so that it can never be held up by a full pipe."""
        while stderr is not None and (piece := await stderr.read(65_536)):
            self._said = (self._said + piece.decode(errors="replace"))[-_TAIL:]

    async def _stop(self) -> None:
        """Close the connections and end the process: gently by its input's end, by force after a while."""
        server, self._server = self._server, None
        process, self._process = self._process, None
        listener, self._listener = self._listener, None
        if server is not None:
            await server.close()
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_LEAVE):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if listener is not None:
            await listener


def _ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it ended, asked of the system: asyncio hears of it a moment later."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
