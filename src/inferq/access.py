"""Who asks and what they may: keys, roles, and what a key's limits do to a submission. Pure: decisions over values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from inferq.bounds import REACH_ANYTHING, fits_any, models_in
from inferq.errors import Forbidden, InvalidTask, TaskNotFound, Unauthenticated
from inferq.task import Submission, Task, priority_name

Role = Literal["read", "submit", "operator", "admin"]
"""What a key may do, each role including the ones before it.

`read` asks and watches; `submit` adds work and changes its own; `operator` changes everybody's work, schedules, backends and
webhooks; `admin` also makes and revokes keys and reads the audit log.
"""
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_PREFIX: Final = "iq"
_ID_BYTES: Final = 10
_SECRET_BYTES: Final = 20


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who makes a request, and the bounds of what it may ask for.

    `tenant` None sees and touches everything; with a tenant nothing else exists for it. `models` and `executors` are names or
    beginnings such as `qwen3*`; empty means any. `expires` is Unix milliseconds.
    """

    id: str
    name: str
    role: Role
    tenant: str | None = None
    max_priority: int | None = None
    models: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    expires: int | None = None


class Key(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A key as it is listed: everything but its secret, which nobody has any more. Instants are Unix milliseconds."""

    id: str
    name: str
    role: Role
    tenant: str | None = None
    max_priority: int | None = None
    models: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    created: int
    expires: int | None = None
    revoked: int | None = None
    last_used: int | None = None
    """When it last opened something, to the minute; None where it never did."""

    @property
    def principal(self) -> Principal:
        return Principal(self.id, self.name, self.role, self.tenant, self.max_priority, self.models, self.executors, self.expires)

    def state(self, now: int) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything at this moment (Unix milliseconds)."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was just made. `secret` is the whole text to send as `Authorization: Bearer …`; it is told this once."""

    key: Key
    secret: str


class StoredKey(msgspec.Struct, frozen=True):
    """The body of a record of kind `key`."""

    digest: str
    key: Key


KEY: Final = "key"
"""The kind of the records that hold keys; their id is the key's."""
KEY_USED: Final = "key_used"
"""The kind of the records that tell when a key was last used: apart, because it changes all the time and the key does not."""


class AuditEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One state-changing call of a server: who, what, on which things, how it ended. Never a payload, a secret or an answer.

    `number` is its place in the log, `at` Unix milliseconds, `key` the id of the key (`local` without one), `targets` the ids and names
    that the call was about (the first ones of many), `code` the error's where it was refused.
    """

    number: int = 0
    at: int = 0
    who: str
    key: str
    tenant: str | None = None
    method: str
    route: str
    targets: tuple[str, ...] = ()
    status: int
    code: str | None = None
    request: str = ""


class TenantLimits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many tasks of a tenant may run and wait at a time, over all processes; None is unbounded. Kept as a record of kind `tenant`."""

    concurrency: int | None = None
    max_queued: int | None = None


TENANT: Final = "tenant"
"""The kind of the records that hold tenants' limits; their id is `limits_place` of the tenant."""
_DEFAULT_ACCOUNT: Final = " "
"""No tenant's name has blanks around it, and no record an empty id."""


def limits_place(tenant: str) -> str:
    """Under what the limits of a tenant are kept; of the default account (tasks without a tenant) too."""
    return tenant or _DEFAULT_ACCOUNT


def tenant_at(place: str) -> str:
    """The tenant whose limits are kept there."""
    return "" if place == _DEFAULT_ACCOUNT else place


LOCAL: Final = Principal("local", "local", "admin")
"""Everybody who reaches a loopback server that has no keys."""


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class NewKey(msgspec.Struct, frozen=True):
    """A key just made: `text` is shown to its owner once and kept nowhere; `digest` is what is stored."""

    id: str
    text: str
    digest: str


def new_key() -> NewKey:
    """A key `iq_<id>_<secret>` from the system's randomness: 80 bits of id, 160 bits of secret."""
    id, secret = _word(_ID_BYTES), _word(_SECRET_BYTES)
    text = f"{_PREFIX}_{id}_{secret}"
    return NewKey(id, text, digest_of(text))


def _word(count: int) -> str:
    return base64.b32encode(secrets.token_bytes(count)).decode().lower()


def digest_of(key: str) -> str:
    """What is stored of a key.

    A plain SHA-256: the secret has 160 random bits, which no one can guess however fast the hash is. Slow hashes protect what people
    choose, and would cost every request a tenth of a second.
    """
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def same_digest(one: str, other: str) -> bool:
    """Whether two digests are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def id_in(key: str) -> str | None:
    """The id in a key's text, None where it is no key of ours."""
    prefix, _, rest = key.partition("_")
    id, _, secret = rest.partition("_")
    return id if prefix == _PREFIX and id.isalnum() and id.isascii() and len(id) <= 64 and secret else None


def bearer_in(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer …` (RFC 6750) of headers with lower-case names; None where there is none.

    `X-API-Key` is read too, for tools that can send nothing else. Raises Unauthenticated for another scheme.
    """
    given = headers.get("authorization")
    if given is None:
        return headers.get("x-api-key")
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("expected the header `Authorization: Bearer iq_…`, got another scheme; give a key of this server")
    return token.strip()


# ── what a principal may ────────────────────────────────────────────────────────────────────────────────────────────


def may(principal: Principal, role: Role) -> bool:
    """Whether the principal's role includes this one."""
    return ROLES.index(principal.role) >= ROLES.index(role)


def require(principal: Principal, role: Role) -> None:
    """Raises Forbidden, naming both roles, where the principal's role does not include this one."""
    if not may(principal, role):
        raise Forbidden(f"expected a key of role {role} or above, but key {principal.name!r} has role {principal.role}")


def require_everything(principal: Principal) -> None:
    """For what concerns all tenants together (pauses, backends, schedules of others): raises Forbidden for a tenant's key."""
    if principal.tenant is not None:
        raise Forbidden(f"this concerns all tenants, and key {principal.name!r} belongs to tenant {principal.tenant!r} only")


def sees(principal: Principal, tenant: str) -> bool:
    """Whether tasks of that tenant exist for this principal."""
    return principal.tenant is None or principal.tenant == tenant


def require_visible(principal: Principal, id: str, tenant: str) -> None:
    """Raises for another tenant's task the very error that an unknown id raises."""
    if not sees(principal, tenant):
        raise TaskNotFound.of(id)


def check_priority(principal: Principal, priority: int) -> None:
    """Raises Forbidden for a priority above the key's ceiling. It is refused and not lowered: silence would be a lie about the order."""
    ceiling = principal.max_priority
    if ceiling is not None and priority > ceiling:
        raise Forbidden(
            f"expected a priority of at most {priority_name(ceiling)} ({ceiling}), the ceiling of key {principal.name!r}, got {priority}"
        )


def authorise(principal: Principal, submission: Submission) -> Submission:
    """The submission as this principal may make it: with its tenant, whatever the caller named.

    Raises Forbidden where the role, the priority ceiling, the models or the executors do not cover it, or where it names another
    tenant than the key's; InvalidTask for what only the queue itself may set.
    """
    require(principal, "submit")
    if submission.tenant and not sees(principal, submission.tenant):
        raise Forbidden(
            f"expected tenant {principal.tenant!r}, the one of key {principal.name!r}, got {submission.tenant!r}; leave the tenant out"
        )
    if submission.schedule is not None:
        raise InvalidTask("only schedules themselves set this; leave it out", field="schedule")
    check_priority(principal, submission.priority)
    check_executor(principal, submission.executor)
    if principal.models:
        if submission.executor in REACH_ANYTHING and not principal.executors:
            raise Forbidden(
                f"expected an executor that names its model, since key {principal.name!r} is bounded to models "
                f"({', '.join(principal.models)}), got {submission.executor!r}; a key may use it whose executors name it"
            )
        for model in models_in(submission):
            check_model(principal, model)
    if principal.tenant is None or submission.tenant == principal.tenant:
        return submission
    return msgspec.structs.replace(submission, tenant=principal.tenant)


def authorise_again(principal: Principal, task: Task) -> None:
    """Raises Forbidden for a task that this principal could not submit itself: making it run once more is no way around a key."""
    authorise(principal, msgspec.structs.replace(task.spec, schedule=None, priority=task.priority, tenant=task.flow.tenant))


def may_make_again(principal: Principal, task: Task) -> bool:
    """Whether `authorise_again` lets it pass."""
    try:
        authorise_again(principal, task)
    except Forbidden:
        return False
    return True


def check_model(principal: Principal, model: str) -> None:
    """Raises Forbidden for a model that the key does not cover."""
    if principal.models and not fits_any(model, principal.models):
        raise Forbidden(_not_among("models", principal, principal.models, model))


def check_executor(principal: Principal, executor: str) -> None:
    """Raises Forbidden for an executor that the key does not cover."""
    if principal.executors and not fits_any(executor, principal.executors):
        raise Forbidden(_not_among("executors", principal, principal.executors, executor))


def is_bounded(principal: Principal) -> bool:
    """Whether there are tasks of its tenant that the principal could not submit itself."""
    return bool(principal.models or principal.executors) or principal.max_priority is not None


def _not_among(what: str, principal: Principal, allowed: Iterable[str], got: str) -> str:
    return f"expected one of the {what} of key {principal.name!r} ({', '.join(allowed)}), got {got or 'none'!r}"


def describe_key(
    made: NewKey,
    name: str,
    now: int,
    *,
    role: Role,
    tenant: str | None,
    max_priority: int | None,
    models: Iterable[str],
    executors: Iterable[str],
    expires: int | None,
) -> Key:
    """What is kept and shown of a new key; raises InvalidTask naming the wrong field.

    A submit key without a tenant gets one of its own, its name: two programs must not be able to cancel each other's work by accident.
    """
    _check_name(name, "name")
    if role not in ROLES:
        raise InvalidTask(f"expected one of {', '.join(ROLES)}, got {role!r}", field="role")
    if tenant is None and role == "submit":
        tenant = name
    if tenant is not None:
        _check_name(tenant, "tenant")
        if role == "admin":
            raise InvalidTask("expected no tenant for an admin key, which may do everything; give role operator", field="tenant")
    if expires is not None and expires <= now:
        raise InvalidTask("expected a moment in the future", field="expires")
    return Key(
        id=made.id,
        name=name,
        role=role,
        tenant=tenant,
        max_priority=max_priority,
        models=tuple(check_pattern(model, "models") for model in models),
        executors=tuple(check_pattern(executor, "executors") for executor in executors),
        created=now,
        expires=expires,
    )


def check_limits(tenant: str, limits: TenantLimits) -> TenantLimits:
    """Raises InvalidTask for bounds that are not numbers from 1 on (of waiting tasks: from 0), or what no tenant is called. The empty name
    is the default account: tasks without a tenant."""
    if tenant != "":
        _check_name(tenant, "tenant")
    for field, least in (("concurrency", 1), ("max_queued", 0)):
        bound = getattr(limits, field)
        if bound is not None and not (type(bound) is int and least <= bound < 2**53):
            raise InvalidTask(f"expected a number of tasks from {least} on, or none, got {bound!r}", field=field)
    return limits


def _check_name(name: Any, field: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise InvalidTask(f"expected 1 to 100 printable characters without blanks around them, got {name!r}", field=field)


def check_pattern(pattern: str, field: str) -> str:
    """A name, or a beginning with `*` at its end. Raises InvalidTask for a `*` elsewhere and for an empty text."""
    if not pattern or "*" in pattern[:-1] or not pattern.isprintable():
        raise InvalidTask(f"expected a name, or the beginning of one with * at its end, got {pattern!r}", field=field)
    return pattern
