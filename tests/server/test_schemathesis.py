"""Schemathesis over the OpenAPI document: no 5xx, no undocumented status, no answer that its schema forbids, with keys and without."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

# Rules that no schema can say, such as "an Idempotency-Key with one task only", refuse data that fits the schema: 400 is right there.
UNSAYABLE = "positive_data_acceptance"
# Streams of what has not ended have no end: their own tests read them.
ENDLESS = r"^/api/events$|/stream$|/batches/.*/results$"

Open = Callable[..., Awaitable[Any]]


async def schemathesis(site: Any, place: Path, *further: str, without: str = ENDLESS, phases: str = "examples,fuzzing") -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{site.url}/openapi.json",
        *("--exclude-path-regex", without, "--exclude-checks", UNSAYABLE, "--phases", phases),
        *("--max-examples", os.environ.get("INFERQ_FUZZ", "4"), "--workers", "1", "--warnings", "off", "--request-timeout", "20"),
        *("--generation-database", "none", "--no-color", *further),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=place,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_lines.py"))},
    )
    assert child.stdout is not None
    said = (await child.stdout.read()).decode(errors="replace")
    return await child.wait(), said


@pytest.mark.timeout(300)
async def test_without_keys_every_answer_is_one_that_the_document_says(open_site: Open, tmp_path: Path) -> None:
    site = await open_site(max_wait=0.01)

    # With the first key that is made, everybody would need one.
    code, said = await schemathesis(site, tmp_path, without=f"{ENDLESS}|^/api/keys", phases="examples,coverage,fuzzing")

    assert code == 0, said


@pytest.mark.timeout(300)
async def test_with_keys_every_answer_is_one_that_the_document_says(open_site: Open, tmp_path: Path) -> None:
    site = await open_site(max_wait=0.01)
    made = await site.queue.keys.create("root", role="admin")

    code, said = await schemathesis(site, tmp_path, "-H", f"Authorization: Bearer {made.secret}")

    assert code == 0, said


@pytest.mark.timeout(300)
async def test_with_a_key_that_may_only_read_every_answer_is_one_that_the_document_says(open_site: Open, tmp_path: Path) -> None:
    site = await open_site(max_wait=0.01)
    await site.queue.keys.create("root", role="admin")
    made = await site.queue.keys.create("reader", role="read", tenant="elsewhere")

    code, said = await schemathesis(site, tmp_path, "-H", f"Authorization: Bearer {made.secret}")

    assert code == 0, said
