"""Secrets as a type: they hold a value, show a mask, and give the value away only when asked by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

MASK: Final = "***"

_SECRET_WORDS: Final = frozenset(
    {
        "token",
        "tokens",
        "secret",
        "secrets",
        "password",
        "passwd",
        "passphrase",
        "authorization",
        "credential",
        "credentials",
        "cookie",
        "apikey",
    }
)
_KEY_OWNERS: Final = frozenset({"api", "access", "private", "signing", "secret", "auth"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#@:\s]*):(?P<password>[^/?#\s]*)@")


class Secret:
    """A text that is never shown. `reference` is how it was written where it was not written out (`${NAME}`, `file:/run/key`)."""

    __slots__ = ("_value", "reference")

    def __init__(self, value: str, reference: str | None = None) -> None:
        self._value = value
        self.reference = reference

    def reveal(self) -> str:
        """The text itself. Call this at the last moment, where it leaves for the backend."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.shown!r})"

    def __str__(self) -> str:
        return self.shown

    @property
    def shown(self) -> str:
        """What may be displayed: the mask, or a URL with only its password masked."""
        masked_url = _mask_url(self._value)
        return MASK if masked_url == self._value else masked_url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self.reference) == (other._value, other.reference)

    def __hash__(self) -> int:
        return hash((self._value, self.reference))


def looks_secret(name: str) -> bool:
    """Whether a value under this name is to be kept secret: `api_key`, `X-Auth-Token`, `PASSWORD`, `privateKey`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    return any(word == "key" and owner in _KEY_OWNERS for owner, word in pairwise(words))


def has_password(text: str) -> bool:
    """Whether it is a URL that carries a password."""
    return _USERINFO.search(text) is not None


def masked(value: Any) -> Any:
    """The value for a text form: secrets stay `Secret` (which masks itself), passwords in URLs are masked. Never changes the original."""
    if isinstance(value, str):
        return _mask_url(value)
    if isinstance(value, dict):
        return {name: masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def shown(value: Any) -> Any:
    """The value as JSON-ready words with every secret masked."""
    if isinstance(value, Secret):
        return value.shown
    if isinstance(value, str):
        return _mask_url(value)
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value


def reveal(value: Any) -> Any:
    """The value with every secret in plain text."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: reveal(item) for name, item in value.items()}
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def secret_texts(value: Any) -> Iterator[str]:
    """Every secret inside, in plain text: for whoever must keep them out of something."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, dict):
        for item in value.values():
            yield from secret_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secret_texts(item)


def _mask_url(text: str) -> str:
    return _USERINFO.sub(rf"\g<scheme>\g<user>:{MASK}@", text) if "@" in text else text
