"""Where the queue is that a program or a command speaks to, and who said so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from inferq.config import profiles
from inferq.config.secret import Secret

if TYPE_CHECKING:
    from inferq.config.files import Places
    from inferq.config.loading import Loaded
    from inferq.config.settings import Settings
    from inferq.config.source import Source

_LIVE: Final = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_PATIENCE: Final = 0.25


class Address(msgspec.Struct, frozen=True):
    """A queue's address: a server's (http, https) or a store's. `source` says who gave it, for people."""

    url: str
    source: str
    api_key: Secret | None = None

    @property
    def is_server(self) -> bool:
        return is_server(self.url)


def is_server(url: object) -> bool:
    """Whether it is the address of a server, not of a store."""
    return isinstance(url, str) and url.lower().startswith(("http://", "https://"))


def find_address(
    url: str | None = None,
    *,
    api_key: str | Secret | None = None,
    profile: str | None = None,
    settings: Settings | None = None,
    loaded: Loaded | None = None,
    env: Mapping[str, str] | None = None,
    places: Places | None = None,
    look: bool = False,
) -> Address:
    """The first that is there: `url`; `profile`; INFERQ_URL; INFERQ_PROFILE; the profile in use; the configured store; with `look` a
    server that listens on this machine; the user's own store.

    The key is `api_key`, else INFERQ_API_KEY, else that of the profile with this address. Nothing is contacted but, with `look`, this
    machine. Raises ConfigError.
    """
    env = os.environ if env is None else env
    if url is None and settings is not None:
        return _with_key(Address(settings.store.url, "the settings"), api_key, env, places)
    if url is not None:
        return _with_key(Address(url, "the address given"), api_key, env, places)
    if profile is None and loaded is None and is_server(env.get("INFERQ_URL")):
        # A client needs no settings: it starts in half the time without reading them.
        return _with_key(Address(env["INFERQ_URL"], "INFERQ_URL"), api_key, env, places)
    return _chosen(api_key, profile, loaded, env, places, look=look)


def _chosen(
    api_key: str | Secret | None, profile: str | None, loaded: Loaded | None, env: Mapping[str, str], places: Places | None, *, look: bool
) -> Address:
    if profile is not None:
        return _of_profile(profile, f"profile {profile}", api_key, env, places)
    if loaded is None:
        from inferq.config.loading import load

        loaded = load(env=env, places=places)
    source = loaded.sources["store.url"]
    stored = Address(loaded.settings.store.url, _said(source))
    if source.kind in ("argument", "environment"):
        return _with_key(stored, api_key, env, places)
    named = env.get("INFERQ_PROFILE")
    if named:
        return _of_profile(named, f"profile {named} (INFERQ_PROFILE)", api_key, env, places)
    used = profiles.read(_directory(places)).use
    if used:
        return _of_profile(used, f"profile {used}", api_key, env, places)
    if source.kind == "default" and look and (found := _listening(loaded.settings.server.port)):
        return _with_key(Address(found, "a server found on this machine"), api_key, env, places)
    return _with_key(stored, api_key, env, places)


def _said(source: Source) -> str:
    return "the store of this user" if source.kind == "default" else str(source)


def _directory(places: Places | None) -> Path:
    """The user's directory of configuration."""
    if places is not None:
        return places.user
    import platformdirs

    return Path(platformdirs.user_config_dir("inferq", appauthor=False))


def _of_profile(name: str, source: str, api_key: str | Secret | None, env: Mapping[str, str], places: Places | None) -> Address:
    directory = _directory(places)
    profile = profiles.read(directory).named(name)
    key = _given(api_key, env) or profiles.key_of(profile, directory, env=env)
    return Address(profile.url, source, key)


def _given(api_key: str | Secret | None, env: Mapping[str, str]) -> Secret | None:
    if isinstance(api_key, Secret):
        return api_key
    text = api_key or env.get("INFERQ_API_KEY")
    return Secret(text) if text else None


def _with_key(address: Address, api_key: str | Secret | None, env: Mapping[str, str], places: Places | None) -> Address:
    if not address.is_server:
        return address
    key = _given(api_key, env)
    if key is None:
        directory = _directory(places)
        known = profiles.read(directory).profiles.values()
        same = next((profile for profile in known if profile.url.rstrip("/") == address.url.rstrip("/")), None)
        key = None if same is None else profiles.key_of(same, directory, env=env)
    return msgspec.structs.replace(address, api_key=key)


def _listening(port: int) -> str | None:
    """The address of a server of ours on this machine, if one listens on that port."""
    import socket

    if not port:
        return None
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as asking:
            asking.settimeout(_PATIENCE)
            asking.sendall(_LIVE)
            answer = b""
            while b"\r\n\r\n" not in answer and len(answer) < 4096 and (piece := asking.recv(4096)):
                answer += piece
    except OSError:
        return None
    head = answer.lower()
    return f"http://127.0.0.1:{port}" if head.startswith(b"http/1.1 200") and b"\r\nx-request-id:" in head else None
