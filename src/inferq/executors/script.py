"""The script executor: runs a program, a script file or (when allowed) a shell command, and streams what it writes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from inferq.errors import ConfigError, InvalidTask, Reject
from inferq.executor import Answer, Call, Chunk, Executor, Health
from inferq.executors import payload as fields
from inferq.executors.process import Group, Limits, exit_words, safe_environment

_INTERPRETERS: Mapping[str, tuple[str, ...]] = {
    ".py": (sys.executable, "-u"),
    ".sh": ("sh",),
    ".js": ("node",),
    ".rb": ("ruby",),
    ".go": ("go", "run"),
}
_LAST_LINES = 10
_LAST_CHARS = 2_000


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of a script backend; times are seconds, sizes bytes. `docs/executors.md` explains each."""

    working_dir: str = "."
    allow_shell: bool = False
    scripts_only: bool = False
    allow_programs: tuple[str, ...] = ()
    allow_scripts: tuple[str, ...] = ()
    allow_env: tuple[str, ...] | None = None
    allowed_extensions: tuple[str, ...] = (".py", ".sh", ".js", ".rb", ".go")
    env: dict[str, str] = {}
    inherit_env: bool = False
    timeout: float | None = None
    max_output_bytes: int = 10 * 1024 * 1024
    kill_grace: float = 2.0
    linger: float = 2.0


class Job(msgspec.Struct):
    """The payload of `execute`: exactly one of `argv`, `command` and `script`. `timeout` is in seconds."""

    argv: list[str] | None = None
    command: str | None = None
    script: str | None = None
    args: list[str] = []
    env: dict[str, str | int | float] = {}
    cwd: str | None = None
    working_dir: str | None = None
    stdin: str | None = None
    timeout: float | None = None
    check: bool = True


class ScriptExecutor(Executor):
    """Runs programs in process groups of their own, inside one directory, with a clean environment."""

    actions = ("execute",)
    over_http = False
    description = "Runs a program, a script file or (when allowed) a shell command; streams stdout and stderr."

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings)
        self._set = fields.settings(self.settings, Settings, of=name)
        self._confined = False

    def confine(self) -> None:
        """Over HTTP only programs and scripts that are named may run, without a shell, and tasks set no variables but `allow_env`."""
        if self._set.allow_shell:
            raise ConfigError(f"backend {self.name}: a shell runs anything; over_http and settings.allow_shell exclude each other")
        if not self._set.allow_programs and not self._set.allow_scripts:
            raise ConfigError(
                f"backend {self.name}: over_http opens it to whoever may submit; say with settings.allow_programs and "
                "settings.allow_scripts (folders inside working_dir) what may run"
            )
        self._confined = True

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Refuses what could never run here; what depends on the files themselves is checked when it runs."""
        job = fields.read(payload, Job)
        self._check_kind(job)
        self._check_words(job)
        if job.timeout is not None and not job.timeout > 0:
            raise InvalidTask(f"expected more than 0 seconds, got {job.timeout}", field="payload.timeout")
        if job.cwd is not None and job.working_dir is not None and job.cwd != job.working_dir:
            raise InvalidTask("cwd and working_dir are the same thing: give one", field="payload.cwd")

    async def health(self) -> Health:
        root = self._root()
        return Health(root.is_dir(), f"runs in {root}" if root.is_dir() else f"working_dir {root} is not a directory")

    async def run(self, call: Call) -> AsyncIterator[Chunk | Answer]:
        """Yields stdout and stderr as they come. `Reject` for a failed check, `Unavailable` when the time is up."""
        job, argv, cwd = self._prepared(call)
        limits = Limits(
            timeout=job.timeout if job.timeout is not None else self._set.timeout,
            output=self._set.max_output_bytes,
            grace=self._set.kill_grace,
            linger=self._set.linger,
        )
        written: dict[str, list[str]] = {"stdout": [], "stderr": []}
        env = self._environment(call, job)
        async with Group.start(argv, cwd=cwd, env=env, stdin=job.stdin, limits=limits) as group:
            async for kind, text in group.output():
                written[kind].append(text)
                if call.stream:
                    yield Chunk(kind, text)
            code = await group.exit_code()
        stdout, stderr = "".join(written["stdout"]), "".join(written["stderr"])
        status = "completed" if code == 0 else "failed"
        if code != 0 and job.check:
            yield Chunk("data", data={"exit_code": code, "status": status})
            raise Reject(_complaint(argv, code, stderr or stdout), failure="script_failed")
        data = {"exit_code": code, "status": status, "stdout": stdout, "stderr": stderr}
        yield Answer(text=stdout, data=data)

    def _prepared(self, call: Call) -> tuple[Job, list[str], Path]:
        try:
            self.validate(call.action, call.model, call.payload)
            job = fields.read(call.payload, Job)
            return job, self._argv(job), self._cwd(job)
        except InvalidTask as error:
            raise Reject(str(error), failure="bad_request") from error

    # ── what may run ────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_kind(self, job: Job) -> None:
        given = [name for name in ("argv", "command", "script") if getattr(job, name) is not None]
        if len(given) != 1:
            came = " and ".join(given) or "none"
            raise InvalidTask(f"expected exactly one of argv, command and script, got {came}", field="payload")
        if job.args and job.script is None:
            raise InvalidTask("args belong to script; append them to argv instead", field="payload.args")
        if job.command is not None:
            self._check_command(job.command)
        elif job.script is not None:
            self._check_script(job.script, field="payload.script")
        elif not job.argv or not job.argv[0]:
            raise InvalidTask("expected the program and its arguments, got an empty list", field="payload.argv")
        elif self._set.scripts_only:
            self._check_script(job.argv[0], field="payload.argv[0]")
        elif (self._confined or self._set.allow_programs) and job.argv[0] not in self._set.allow_programs:
            known = ", ".join(self._set.allow_programs) or "none"
            raise InvalidTask(f"expected one of the programs that may run here ({known}), got {job.argv[0]!r}", field="payload.argv[0]")

    def _check_command(self, command: str) -> None:
        if self._set.scripts_only:
            raise InvalidTask("this backend runs script files only (setting scripts_only)", field="payload.command")
        if not self._set.allow_shell:
            raise InvalidTask(
                "commands need a shell, which is off; give the words as argv, such as "
                '["ls", "-l"], or set allow_shell: true for this backend',
                field="payload.command",
            )
        if not command.strip():
            raise InvalidTask("expected a command, got an empty text", field="payload.command")

    def _check_script(self, script: str, *, field: str) -> None:
        path = Path(script)
        if not script or path.is_absolute() or ".." in path.parts:
            raise InvalidTask(f"expected a path inside the working directory without '..', got {script!r}", field=field)
        if (self._confined or self._set.allow_scripts) and not any(path.is_relative_to(folder) for folder in self._set.allow_scripts):
            known = ", ".join(self._set.allow_scripts) or "none"
            raise InvalidTask(f"expected a script in a folder whose scripts may run here ({known}), got {script!r}", field=field)
        if path.suffix not in self._set.allowed_extensions:
            known = ", ".join(self._set.allowed_extensions)
            raise InvalidTask(f"expected a file that ends with one of {known}, got {script!r}", field=field)

    def _check_words(self, job: Job) -> None:
        words = [*(job.argv or ()), *job.args, job.command or "", job.script or "", job.cwd or job.working_dir or ""]
        if any("\0" in word for word in words):
            raise InvalidTask("a NUL character cannot be passed to a program", field="payload")
        for name, value in job.env.items():
            if not name or "=" in name or "\0" in name or "\0" in str(value):
                raise InvalidTask(f"{name!r} is no usable name, or has a NUL in its value", field="payload.env")
            allowed = self._set.allow_env if self._set.allow_env is not None else () if self._confined else None
            if allowed is not None and name not in allowed:
                raise InvalidTask("not one of the variables that tasks may set here (setting allow_env)", field=f"payload.env.{name}")

    # ── what is run ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _root(self) -> Path:
        return Path(self._set.working_dir).expanduser().resolve()

    def _argv(self, job: Job) -> list[str]:
        if job.command is not None:
            return ["/bin/sh", "-c", job.command]
        if job.script is not None:
            return self._script_argv(job.script, job.args, field="payload.script")
        words = job.argv or []
        if self._set.scripts_only:
            return self._script_argv(words[0], words[1:], field="payload.argv[0]")
        return words

    def _script_argv(self, script: str, args: list[str], *, field: str) -> list[str]:
        path = self._inside(script, field=field)
        folders = [(self._root() / folder).resolve() for folder in self._set.allow_scripts]
        if (self._confined or folders) and not any(path.is_relative_to(folder) for folder in folders):
            raise InvalidTask(f"{script!r} leads out of the folders whose scripts may run here", field=field)
        if not path.is_file():
            raise InvalidTask(f"there is no file {script!r} in the working directory", field=field)
        if path.suffix not in self._set.allowed_extensions:
            raise InvalidTask(f"{script!r} leads to {path.name!r}, whose ending is not allowed", field=field)
        interpreter = _INTERPRETERS.get(path.suffix)
        if interpreter is None:
            return [str(path), *args]
        program = shutil.which(interpreter[0])
        if program is None:
            raise Reject(f"{script!r} needs {interpreter[0]!r}, which is not installed here", failure="script_failed")
        return [program, *interpreter[1:], str(path), *args]

    def _cwd(self, job: Job) -> Path:
        asked = job.cwd if job.cwd is not None else job.working_dir
        path = self._inside(asked or ".", field="payload.cwd")
        if not path.is_dir():
            raise InvalidTask(f"there is no directory {asked or str(path)!r}", field="payload.cwd")
        return path

    def _inside(self, given: str, *, field: str) -> Path:
        """The real path, links followed. Raises `InvalidTask` when it leaves the working directory."""
        root = self._root()
        path = (root / given).resolve()
        if not path.is_relative_to(root):
            raise InvalidTask(f"{given!r} leads out of the working directory", field=field)
        return path

    def _environment(self, call: Call, job: Job) -> dict[str, str]:
        own = {"INFERQ_TASK_ID": call.task_id, "INFERQ_ATTEMPT": str(call.attempt)}
        asked = {name: str(value) for name, value in job.env.items()}
        return {**safe_environment(everything=self._set.inherit_env), **own, **self._set.env, **asked}


def _complaint(argv: list[str], code: int, written: str) -> str:
    lines = written.rstrip().splitlines()[-_LAST_LINES:]
    tail = "\n".join(lines)[-_LAST_CHARS:]
    message = f"{Path(argv[0]).name} {exit_words(code)}"
    return f"{message}: {tail}" if tail else f"{message} and wrote nothing"
