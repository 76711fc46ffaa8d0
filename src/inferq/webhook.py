"""Webhooks: which events a receiver is told, in which words, signed how. Pure.

Bodies and signatures follow Standard Webhooks (https://www.standardwebhooks.com, specification 1.0): headers `webhook-id`,
`webhook-timestamp` and `webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`, secrets `whsec_<base64>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from inferq.config.secret import MASK, looks_secret
from inferq.errors import InvalidSignature, InvalidTask
from inferq.events import EVENT_TYPES, Event, RecordChanged, type_filter
from inferq.query import Query, matches, parse, search
from inferq.task import FlowKey, NewTask, Submission, Task, labels_of, lane_of, new_id

KIND: Final = "webhook"
"""The kind of the records that hold webhooks; their id is the webhook's name."""
CURSOR: Final = "webhook.cursor"
"""The kind of the one record that says up to which event deliveries have been made."""
EXECUTOR: Final = "webhook"
ACTION: Final = "deliver"
LANES: Final = f"{EXECUTOR}/"
"""How the lanes of deliveries begin: one lane a webhook."""
TEST: Final = "webhook.test"
"""The type of the event that `test` sends."""
TOLERANCE: Final = 300.0
"""Seconds by which a message's time may differ from the receiver's."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:.+|credential:[A-Za-z0-9_.-]+", re.DOTALL)
_FILE: Final = "file:"
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_OURS: Final = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_SECRET: Final = "whsec_"  # noqa: S105 - the prefix of secrets, not one
_LEAST, _MOST = 24, 64
_OWN: Final = frozenset({KIND, CURSOR})

_encode: Final = msgspec.json.Encoder().encode


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is stored. `secret` is the secret itself or a reference (`${NAME}`, `file:NAME`, `credential:NAME`) that the delivering process
    resolves.

    Events after the log's position `since` are delivered. `failing_since` (Unix milliseconds) is set while deliveries fail.
    """

    name: str
    url: str
    events: tuple[str, ...] = ("*",)
    query: str = ""
    headers: dict[str, str] = {}
    secret: str
    enabled: bool = True
    reason: str = ""
    since: int = 0
    created: int = 0
    failing_since: int | None = None

    def wants(self, event: Event) -> bool:
        """Whether an event of this type is to be delivered; tasks are judged by `passes`."""
        return self.enabled and event.position > self.since and not is_own(event) and _filter(self.events)(event.type)

    def passes(self, task: Task | None, now: int) -> bool:
        """Whether the task of an event passes the filter; what has no task passes no filter."""
        if not self.query:
            return True
        return task is not None and matches(task, search(_parsed(self.query), now))

    @property
    def view(self) -> WebhookView:
        headers = {name: MASK if looks_secret(name) else value for name, value in self.headers.items()}
        reference = self.secret if is_reference(self.secret) else None
        return WebhookView(
            name=self.name,
            url=self.url,
            events=self.events,
            query=self.query,
            headers=headers,
            secret_from=reference,
            enabled=self.enabled,
            reason=self.reason,
            created=self.created,
            failing_since=self.failing_since,
        )


@lru_cache(maxsize=256)
def _filter(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    return type_filter(patterns)


@lru_cache(maxsize=256)
def _parsed(query: str) -> Query:
    return parse(query)


class WebhookView(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A webhook as it is shown: without its secret. `reason` says why it is disabled where that was not asked for."""

    name: str
    url: str
    events: tuple[str, ...]
    query: str = ""
    headers: dict[str, str] = {}
    secret_from: str | None = None
    enabled: bool
    reason: str = ""
    created: int = 0
    failing_since: int | None = None


class MadeWebhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """A webhook just put, and the secret that was made for it, told this once; None where the caller or an earlier put gave it."""

    webhook: WebhookView
    secret: str | None = None


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message to one receiver: a task of the executor `webhook`. `event` is the position in the event log, `status` the HTTP status
    of the last attempt, `due` when the next one comes. Instants are Unix milliseconds."""

    id: str
    webhook: str
    type: str
    event: int
    state: str
    attempts: int = 0
    status: int | None = None
    error: str = ""
    created: int = 0
    due: int | None = None
    finished: int | None = None


def is_file(secret: str) -> bool:
    """Whether it names a file that holds the secret."""
    return secret.startswith(_FILE)


def is_reference(secret: str) -> bool:
    """Whether it names where a secret is, instead of being one."""
    return _REFERENCE.fullmatch(secret) is not None


def is_own(event: Event) -> bool:
    """Whether webhooks themselves made the event: such are never delivered, or each delivery would bring further ones."""
    if isinstance(event, RecordChanged):
        return event.kind in _OWN
    lane = getattr(event, "lane", "")
    return event.type.startswith("webhook.") or lane.startswith(LANES)


# ── making one ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_name(name: Any) -> str:
    """Raises InvalidTask."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidTask(f"expected letters, digits and . _ - (at most 100), a letter or digit first, got {name!r}", field="name")
    return name


def check_url(url: Any, is_public: Callable[[str], bool] | None) -> str:
    """Raises InvalidTask for what cannot be called. `is_public` judges literal addresses; names are judged when they are connected to."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidTask(f"expected an address such as https://ops.example/hook, got {url!r} ({error})", field="url") from None
    if parts.scheme not in ("http", "https") or not host or len(url) > 2000 or re.search(r"[\x00-\x20\x7f\\]", url):
        raise InvalidTask(f"expected an address such as https://ops.example/hook, got {url!r}", field="url")
    if "@" in parts.netloc or "%" in parts.netloc or parts.fragment:
        raise InvalidTask("expected an address without credentials and fragment; give credentials as a header", field="url")
    literal = re.fullmatch(r"[0-9.]+|.*:.*", host) is not None
    if is_public is not None and (host == "localhost" or host.endswith(".localhost") or (literal and not is_public(host))):
        raise InvalidTask("this address is private, loopback or reserved; set webhooks.allow_private to allow such receivers", field="url")
    return str(url)


def check_events(patterns: Iterable[str]) -> tuple[str, ...]:
    """Raises InvalidTask for a pattern that fits no event that can be delivered."""
    found = tuple(patterns)
    for pattern in found or [""]:
        try:
            fits = type_filter([pattern]) if pattern else None
        except (ValueError, TypeError) as error:
            raise InvalidTask(str(error), field="events") from None
        if fits is None or all(name.startswith("webhook.") for name in EVENT_TYPES if fits(name)):
            raise InvalidTask(
                f"expected types or patterns such as task.* or batch.finished (never webhook.*), got {pattern!r}", field="events"
            )
    return found


def check_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Raises InvalidTask for a header that cannot be sent or is the delivery's own."""
    for name, value in headers.items():
        if not isinstance(value, str) or not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise InvalidTask("not a header that can be sent", field=f"headers.{name}")
        if name.lower() in _OURS or name.lower().startswith("webhook-"):
            raise InvalidTask("this header is set by the delivery itself", field=f"headers.{name}")
    return dict(headers)


def check_secret(secret: Any, folder: str) -> str:
    """Raises InvalidTask for what is neither a secret nor a reference to one, nor to a file in `folder`; the message never repeats it, and
    says nothing of what is on the disk."""
    if not isinstance(secret, str) or not (_REFERENCE.fullmatch(secret) or _key_of(secret)):
        raise InvalidTask(
            f"expected whsec_ and {_LEAST} to {_MOST} bytes in base64, or a reference such as ${{OPS_SECRET}}, file:ops or credential:ops",
            field="secret",
        )
    if is_file(secret):
        secret_file(secret, folder)
    return str(secret)


def secret_file(reference: str, folder: str) -> str:
    """The path that a reference `file:NAME` means. Raises InvalidTask for one outside of the folder, whatever is there."""
    root = os.path.normpath(folder)
    path = os.path.normpath(os.path.join(root, reference.removeprefix(_FILE)))
    if "\0" in path or os.path.commonpath((root, path)) != root or path == root:
        raise InvalidTask(f"expected a file in {root} (webhooks.secret_dir), got one in another place", field="secret")
    return path


def new_secret() -> str:
    """A secret of 256 random bits."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def make_delivery(
    name: str,
    event_type: str,
    at: int,
    data: Mapping[str, Any],
    *,
    now: int,
    retries: int,
    give_up: float,
    position: int = 0,
    mark: str = "",
) -> NewTask:
    """The task that tells one receiver of one event. `mark` tells a webhook from an earlier one of its name; with it the task is made
    once for a position, whoever tries. `give_up` is seconds after which it is not tried any more."""
    id = new_id()
    moment = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = _encode({"type": event_type, "timestamp": moment, "data": data}).decode()
    payload = {"webhook": name, "message": f"msg_{id}", "type": event_type, "event": position, "body": body}
    return _task(id, name, payload, now, retries, give_up, f"webhook:{name}:{mark}:{position}" if mark else None)


def make_again(task: Task, *, now: int, retries: int, give_up: float) -> NewTask:
    """The same message once more, with the id that its receiver knows it by."""
    return _task(new_id(), task.model, task.spec.payload, now, retries, give_up, None)


def _task(id: str, name: str, payload: dict[str, Any], now: int, retries: int, give_up: float, key: str | None) -> NewTask:
    ends = now + round(give_up * 1000)
    spec = Submission(
        EXECUTOR, ACTION, name, payload, tags=[tag_of(name)], key=key, max_retries=retries, deadline=ends, estimate=0, size="low"
    )
    return NewTask(
        id=id,
        flow=FlowKey(lane_of(EXECUTOR, name), spec.priority, "low", ""),
        action=ACTION,
        spec=_encode(spec),
        estimate=0,
        key=key,
        digest=hashlib.blake2b((key or "").encode(), digest_size=16).digest() if key is not None else None,
        expires=ends,
        labels=labels_of(spec),
    )


def tag_of(name: str) -> str:
    """The tag that finds a webhook's deliveries."""
    return f"webhook:{name}"


def data_of(event: Event, task: Task | None) -> dict[str, Any]:
    """What a message says of an event: its fields, and of its task what tells whose it is; never a payload or a result."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    fields.pop("type", None)
    fields.pop("at", None)
    if task is not None:
        spec = task.spec
        about = {"executor": spec.executor, "action": spec.action, "model": spec.model, "priority": task.priority}
        more = {"tenant": task.flow.tenant, "tags": spec.tags, "metadata": spec.metadata, "key": spec.key}
        more |= {"batch": spec.batch, "schedule": spec.schedule}
        fields["task"] = about | {name: value for name, value in more.items() if value}
    return fields


# ── signatures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`. Raises InvalidSignature for a secret that is none."""
    key = _key_of(secret)
    if key is None:
        raise InvalidSignature(f"expected a secret of whsec_ and {_LEAST} to {_MOST} bytes in base64")
    mac = hmac.new(key, b"%s.%d.%s" % (id.encode(), timestamp, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> dict[str, Any]:
    """Check a message that was received, and give its content: `{"type": ..., "timestamp": ..., "data": {...}}`.

        message = inferq.verify_webhook(await request.body(), request.headers, os.environ["OPS_SECRET"])

    `body` is the body exactly as it came; `headers` any mapping, whatever the case of its names; several secrets may hold while one
    is replaced. `tolerance` is in seconds, `now` in Unix seconds (default: this machine's clock). A message may come more than once:
    remember `webhook-id`. Raises InvalidSignature.
    """
    known = {name.lower(): value for name, value in headers.items()}
    try:
        id, stamp, given = known["webhook-id"], known["webhook-timestamp"], known["webhook-signature"]
    except KeyError as missing:
        raise InvalidSignature(f"expected the header {missing.args[0]}, got none") from None
    raw = body.encode() if isinstance(body, str) else bytes(body)
    if not stamp.isascii() or not stamp.isdecimal() or len(stamp) > 15:
        raise InvalidSignature("expected Unix seconds in webhook-timestamp")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise InvalidSignature(f"expected a message of the last {tolerance:g} s; its time says otherwise, or the clocks differ")
    offered = given.split()
    wanted = [sign(one, id, int(stamp), raw) for one in ([secret] if isinstance(secret, str) else secret)]
    if not any(hmac.compare_digest(one.encode(), other.encode("utf-8", "replace")) for one in wanted for other in offered):
        raise InvalidSignature("expected a signature of this secret over this very body, got another")
    try:
        content = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidSignature(f"expected JSON, got: {error}") from None
    if not isinstance(content, dict):
        raise InvalidSignature("expected a JSON object")
    return content


def _key_of(secret: str) -> bytes | None:
    """The bytes of a secret; None where it is none."""
    if not secret.startswith(_SECRET):
        return None
    try:
        key = base64.b64decode(secret[len(_SECRET) :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if _LEAST <= len(key) <= _MOST else None
