"""What all commands share: the global options, the settings and the queue they lead to, and running a command's coroutine."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inferq.cli.exits import Exit
from inferq.cli.option import Option
from inferq.cli.output import Output, say

if TYPE_CHECKING:
    from inferq.config import Loaded, Settings
    from inferq.config.address import Address
    from inferq.config.settings import LogSettings
    from inferq.door import AsyncDoor
    from inferq.queue import AsyncQueue

T = TypeVar("T")
LOG_FORMATS = ("auto", "json", "text")


class App:
    """One run of the command line."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.api_key: str | None = None
        self.profile: str | None = None
        self.local: str | None = None
        """A store that is opened here whatever servers there are; empty: the configured one."""
        self.only: tuple[str, ...] = ()
        """The only backends that this process uses; empty: all that are configured."""
        self.demo = False
        """Whether a backend that only plays a model takes the place of those that are configured."""
        self.config: str | None = None
        self.config_dir: str | None = None
        self.data_dir: str | None = None
        self.ollama_host: str | None = None
        self.log_format: str | None = None
        self.verbose = 0
        self.debug = False
        self.color = "auto"
        self.progress = True
        """Whether progress is told at all, on stderr."""
        self.plain = False
        """Whether it is told in plain lines also where it could be redrawn."""
        self.out = Output()
        self.resume = ""
        """What to tell somebody who stops waiting with Ctrl-C."""
        self.extra: dict[str, Any] = {}
        """Settings that a command's own options give, by dotted name."""
        self.service = False
        """Whether this is a process that runs on and logs; the others speak of trouble only."""
        self.works = False
        """Whether this process runs tasks."""
        self._loaded: Loaded | None = None
        self._address: Address | None = None

    def loaded(self) -> Loaded:
        """The settings and where each comes from: these options over the environment over files over defaults."""
        if self._loaded is None:
            self._loaded = self.read()
        return self._loaded

    def read(self) -> Loaded:
        """The same, read anew. Raises ConfigError."""
        from inferq.config import load

        arguments: dict[str, Any] = dict(self.extra)
        if self.data_dir is not None:
            # An explicit directory beats a url from the environment or a file: it was said last.
            arguments["store.data_dir"] = self.data_dir
            arguments["store.url"] = f"sqlite:///{Path(self.data_dir).absolute() / 'inferq.db'}"
        store = self.local or (None if self._is_server(self.url) else self.url)
        if store is not None:
            arguments["store.url"] = store
        if self.ollama_host is not None:
            arguments["ollama_host"] = self.ollama_host
        if self.log_format is not None:
            arguments["log.format"] = self.log_format
        loaded = load(file=self.config or self._in_config_dir(), arguments=arguments)
        if self.demo:
            return _demonstrating(loaded)
        return self._narrowed(loaded) if self.only else loaded

    def _narrowed(self, loaded: Loaded) -> Loaded:
        """With the chosen backends alone. Raises ConfigError."""
        import msgspec

        from inferq.errors import ConfigError

        known = {backend.name: backend for backend in loaded.settings.backends}
        for name in self.only:
            if name not in known:
                raise ConfigError(f"expected the name of a configured backend ({', '.join(known)}), got {name!r}")
        worker = msgspec.structs.replace(loaded.settings.worker, discover=False)
        chosen = tuple(backend for name, backend in known.items() if name in self.only)
        settings = msgspec.structs.replace(loaded.settings, backends=chosen, worker=worker)
        return msgspec.structs.replace(loaded, settings=settings)

    def adopt(self, loaded: Loaded) -> None:
        """Go on under a configuration that was read anew: the log follows it."""
        self._loaded = loaded
        self._log(loaded.settings.log, loaded.settings)

    def _log(self, how: LogSettings, settings: Settings | None = None, *, key: str = "") -> None:
        from inferq.cli import logs

        secrets = {key} - {""} if settings is None else logs.secrets_of(settings)
        logs.start(how, verbose=2 if self.debug else self.verbose, service=self.service, secrets=secrets)

    def _in_config_dir(self) -> Path | None:
        if self.config_dir is None:
            return None
        from inferq.config.files import FORERUNNER_NAMES, NAMES

        directory = Path(self.config_dir)
        found = next((directory / name for name in (*NAMES, *FORERUNNER_NAMES) if (directory / name).is_file()), None)
        if found is None:
            raise click.UsageError(f"--config-dir {directory} has no configuration file; expected one of {', '.join(NAMES)}")
        return found

    @property
    def redraws(self) -> bool:
        """Whether progress is a line on a terminal that is drawn over; else it is plain lines."""
        return self.progress and not self.plain and sys.stderr.isatty()

    @property
    def store_url(self) -> str:
        """The store that these options lead to, for what only a process beside it can do. Raises ConfigError for a server."""
        from inferq.errors import ConfigError

        address = self._find(look=False)
        if not address.is_server:
            return address.url
        configured = self.loaded().settings.store.url
        if self._names_a_server() or self._is_server(configured):
            raise ConfigError(
                f"expected a store such as sqlite:///inferq.db, got the server {address.url} ({address.source}): this works on the store "
                "itself; say which with --store or --data-dir"
            )
        # A profile that is in use is for asking; a worker or a server beside it works on this machine's store.
        return configured

    @staticmethod
    def _is_server(url: str | None) -> bool:
        return url is not None and url.lower().startswith(("http://", "https://"))

    def address(self) -> Address:
        """Where the queue is: by option, environment, profile or configuration, a server on this machine, the user's own store."""
        if self._address is None:
            self._address = self._find(look=True)
        return self._address

    def _find(self, *, look: bool) -> Address:
        from inferq.config.address import find_address

        if self.local is not None:
            return self._here()
        return find_address(
            self.url if self._is_server(self.url) else None,
            api_key=self.api_key,
            profile=self.profile if self.url is None and self.data_dir is None else None,
            # Who names a server needs no settings of this machine: it starts in half the time.
            loaded=None if self._names_a_server() else self.loaded(),
            look=look,
        )

    def _here(self) -> Address:
        """The store of --local. Raises ConfigError."""
        from inferq.config.address import Address
        from inferq.errors import ConfigError

        if self.url is not None or self.profile is not None:
            raise ConfigError(f"--local contradicts {'--url' if self.url is not None else '--profile'}: give one of them")
        url = self.local or self.loaded().settings.store.url
        if self._is_server(url):
            raise ConfigError(f"expected a store for --local, got the server {url}: say which store with --local=STORE")
        return Address(url, "--local")

    def _names_a_server(self) -> bool:
        if self.local is not None:
            return False
        if self.url is not None or self.data_dir is not None:
            return self._is_server(self.url)
        return self.profile is not None or self._is_server(os.environ.get("INFERQ_URL"))

    @asynccontextmanager
    async def queue(self, *, work: bool = False) -> AsyncIterator[AsyncDoor]:
        """The open queue, wherever it is; with `work` this process also runs tasks, unless a server does."""
        address = self.address()
        if not address.is_server:
            async with self._opened(address.url, work=work) as queue:
                yield queue
            return
        from inferq.client import AsyncClient

        if self.verbose or self.debug or self._loaded is not None:
            from inferq.config.settings import LogSettings

            how = LogSettings() if self._loaded is None else self._loaded.settings.log
            self._log(how, key="" if address.api_key is None else address.api_key.reveal())
        async with AsyncClient(address.url, api_key=address.api_key) as client:
            yield client

    @asynccontextmanager
    async def store(self) -> AsyncIterator[AsyncQueue]:
        """The open queue on a store of this machine, for what needs the store itself. It does not work before it is told to."""
        async with self._opened(self.store_url, work=False) as queue:
            yield queue

    @asynccontextmanager
    async def _opened(self, url: str, *, work: bool) -> AsyncIterator[AsyncQueue]:
        from inferq.queue import AsyncQueue

        settings = self.loaded().settings
        self._log(settings.log, settings)
        self.works = work
        async with AsyncQueue(url, settings=settings, work=work) as queue:
            yield queue

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a command's coroutine. The first Ctrl-C stops it and says how to go on, a second one ends the process at once."""
        import asyncio

        try:
            return asyncio.run(main)
        except KeyboardInterrupt:
            say(f"\n{self.resume}" if self.resume else "\ninterrupted")
            raise click.exceptions.Exit(int(Exit.INTERRUPTED)) from None

    def end(self, code: Exit) -> None:
        """End the command with an exit code that is not the success it would be."""
        if code is not Exit.OK:
            raise click.exceptions.Exit(int(code))


def _demonstrating(loaded: Loaded) -> Loaded:
    """With one backend that answers as a small model does, in time and pieces, with what it was asked."""
    import msgspec

    from inferq.config import BackendSettings

    played = BackendSettings("demo", executor="echo", settings={"latency": 0.3, "tokens_per_second": 20.0})
    worker = msgspec.structs.replace(loaded.settings.worker, discover=False)
    settings = msgspec.structs.replace(loaded.settings, backends=(played,), worker=worker)
    return msgspec.structs.replace(loaded, settings=settings)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value is False or value == 0:
            return
        setattr(ctx.ensure_object(App), name, value)

    return keep


def _no_progress(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(App).progress = False


def _progress(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    app = ctx.ensure_object(App)
    if value is not None:
        app.progress, app.plain = app.progress and value != "none", value == "plain"


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that work before and after any command; listed in the main help only."""

    def option(*names: str, keep: str, **attrs: Any) -> Option:
        return Option(names, expose_value=False, callback=_keep(keep), hidden=hidden, section="Global options", **attrs)

    return [
        option("--url", "--store", keep="url", metavar="URL", help="A server, http://host:7125, or a store or its path (env INFERQ_URL)."),
        option("--api-key", keep="api_key", metavar="KEY", help="The key for a server (env INFERQ_API_KEY, which other users cannot see)."),
        option("-P", "--profile", keep="profile", metavar="NAME", help="A server or store by its profile's name (env INFERQ_PROFILE)."),
        option(
            "--local",
            keep="local",
            metavar="[=STORE]",
            help="Open the store here, the configured one or STORE, whatever servers there are.",
        ),
        option("--config", keep="config", metavar="FILE", help="Configuration file (env INFERQ_CONFIG)."),
        option("--config-dir", keep="config_dir", metavar="DIR", help="Directory to look for a configuration file in."),
        option("--data-dir", keep="data_dir", metavar="DIR", help="Directory of the store's file, inferq.db."),
        option("--ollama-host", keep="ollama_host", metavar="URL", help="Where Ollama listens (env OLLAMA_HOST)."),
        option("--color", keep="color", type=click.Choice(["auto", "always", "never"]), help="Colours; auto heeds NO_COLOR."),
        Option(
            ["--no-progress"],
            is_flag=True,
            expose_value=False,
            callback=_no_progress,
            hidden=hidden,
            section="Global options",
            help="No progress on stderr; the same as --progress none.",
        ),
        Option(
            ["--progress"],
            type=click.Choice(["auto", "plain", "none"]),
            expose_value=False,
            callback=_progress,
            hidden=hidden,
            section="Global options",
            help="Progress on stderr: auto redraws a line on a terminal; plain writes lines.",
        ),
        option("-v", "--verbose", keep="verbose", count=True, help="Log to stderr; -vv logs more."),
        option(
            "--log-format",
            keep="log_format",
            type=click.Choice(LOG_FORMATS),
            help="Form of the log; auto is text on a terminal, else JSON.",
        ),
        option("--debug", keep="debug", is_flag=True, help="Show the traceback of an error."),
    ]


def env_flag(name: str) -> bool:
    """Whether an environment variable is set to something other than nothing, 0, false or no."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")
