"""docs/features.md names tests that exist, and every gap that can be shown without a server has a test of its number."""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest

from inferq import AsyncQueue

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "features.md"


@cache
def _functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 60
    missing = [f"{file}::{name}" for file, name in named if not (TESTS / file).is_file() or name not in _functions(TESTS / file)]
    assert missing == []


GAPS = [
    *(f"a{number:02}" for number in range(1, 23)),
    *(f"b{number:02}" for number in range(1, 20) if number not in (9, 17)),  # those two are of web pages
    *(f"c{number:02}" for number in range(1, 12)),
]


@pytest.mark.parametrize("gap", GAPS)
def test_each_gap_has_a_test_of_its_number(gap: str) -> None:
    names = {name for file in TESTS.rglob("test_*.py") for name in _functions(file)}
    assert any(name.startswith(f"test_{gap}_") for name in names)


async def test_a_tasks_submission_can_be_submitted_again(opened: Callable[..., Awaitable[AsyncQueue]]) -> None:
    queue = await opened()
    first = await queue.chat("m", "hi", executor="echo", priority="high", tags=["a"])
    task = await first.refresh()
    (second,) = await queue.submit_many([task.spec])
    assert second.id != first.id
    assert (await second.refresh()).spec == task.spec
    assert (await second.result()).text == "hi"
