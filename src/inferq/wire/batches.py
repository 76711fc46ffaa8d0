"""Batches as server and client say them: bodies, parameters and answers. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferq.batch import Batch, Form, LineError
from inferq.errors import InvalidRequest
from inferq.given import checked_instant
from inferq.task import priority_number
from inferq.wire.native import Instant, Priority

Name = Annotated[str, Meta(min_length=1, max_length=200, description="A name of the caller's own, unique among its batches.")]
Seconds = Annotated[float, Meta(gt=0, description="seconds")]
JsonText = Annotated[str, Meta(description="a JSON object as text")]


class BatchView(msgspec.Struct, kw_only=True):
    """A batch: `state` is open, running, paused, cancelled or finished; `done` counts what has ended. Instants are Unix milliseconds."""

    id: str
    name: str | None
    state: Literal["open", "running", "paused", "cancelled", "finished"]
    done: int
    total: int
    waiting: int
    running: int
    completed: int
    failed: int
    cancelled: int
    pruned: int
    input_tokens: int
    output_tokens: int
    lines: int
    created: int
    sealed: int | None
    finished: int | None
    held: bool
    reason: str | None
    tenant: str
    source: str
    digest: str
    metadata: dict[str, Any]


def batch_view(batch: Batch) -> BatchView:
    return msgspec.convert(batch.to_dict(), BatchView)


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """A new batch that takes lines until it is sealed (POST /api/batches)."""

    name: Name | None = None
    metadata: dict[str, Any] = {}


class LoadQuery(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a file's lines mean and how it becomes a batch (POST /api/batches/import); see docs/batches.md.

    `fields` are further fields of a submission for lines that do not set them, `metadata` is the batch's own; both JSON objects.
    """

    name: Name | None = None
    prompt: str | None = None
    system: str | None = None
    action: Literal["chat", "generate", "embed"] = "chat"
    key: str | None = None
    model: str = ""
    executor: str = ""
    priority: Priority | None = None
    at: Instant | None = None
    resume: bool = False
    skip_errors: bool = False
    max_errors: Annotated[int, Meta(ge=0, le=10_000)] = 100
    seal: bool = True
    source: Annotated[str, Meta(max_length=5000)] = ""
    fields: JsonText = "{}"
    metadata: JsonText = "{}"

    def form(self) -> Form:
        """Raises InvalidRequest."""
        fields = _object(self.fields, "fields")
        if self.priority is not None:
            try:
                fields["priority"] = priority_number(self.priority)
            except ValueError as error:
                raise InvalidRequest(str(error), parameter="priority") from None
        if self.at is not None:
            fields["scheduled_at"] = checked_instant(self.at, "at")
        return Form(
            prompt=self.prompt,
            system=self.system,
            action=self.action,
            key=self.key,
            model=self.model,
            executor=self.executor,
            fields=fields,
        )

    def own(self) -> dict[str, Any]:
        """The batch's metadata. Raises InvalidRequest."""
        return _object(self.metadata, "metadata")


def _object(text: str, parameter: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"expected a JSON object, got: {error}", parameter=parameter) from None


class LoadView(msgspec.Struct):
    """What an import did: lines added, lines that were there already, and wrong lines that were left out (the first of them listed)."""

    batch: BatchView
    added: int
    skipped: int = 0
    wrong: int = 0
    errors: list[LineError] = []


class Added(msgspec.Struct):
    """How many of the lines were new."""

    added: int


class Counted(msgspec.Struct):
    """How many tasks were changed."""

    count: int


class SealBody(msgspec.Struct, forbid_unknown_fields=True):
    """False: it takes lines again."""

    sealed: bool = True


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which ended tasks are made again: failed ones, `only` those with these codes; `cancelled` ones too."""

    only: list[str] = []
    cancelled: bool = False
