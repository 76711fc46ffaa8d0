"""What a client says to begin a bulk operation. The operation itself is shown as it is (`inferq.operation.Operation`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferq.operation import Verb


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /api/operations. With `dry_run` nothing is changed or kept: the answer counts what passes and shows examples.

    Give `expected` and `bound` as the answer to a dry run said them: only tasks that were there then are touched, and when more than a
    tenth more pass by now the operation is refused (409).
    """

    verb: Verb
    q: Annotated[str, Meta(min_length=1, max_length=10_000, description="The filter, such as `state:failed tag:nightly`.")]
    priority: Annotated[int | str | None, Meta(description="Where to move the tasks: a name or a number; for the verb `priority`.")] = None
    reason: Annotated[str, Meta(max_length=2000, description="Kept with cancelled tasks.")] = ""
    dry_run: bool = False
    expected: Annotated[int, Meta(ge=0)] | None = None
    bound: Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)] | None = None
