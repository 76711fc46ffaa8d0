"""docs/filters.md: its table is the table of fields, and each of its examples finds what it says."""

from __future__ import annotations

import re
from pathlib import Path

from inferq.query import FIELDS, TABLE, field_named, matches, parse, search
from inferq.task import FlowKey, State, Submission, Task, lane_of

PAGE = Path(__file__).parents[2] / "docs" / "filters.md"
_FIELDS = re.compile(r"(<!-- fields -->\n)(.*?)(<!-- /fields -->)", re.DOTALL)
NOW = 1_790_000_000_000


def table() -> str:
    """The table of fields as Markdown."""
    lines = ["| field | other names | says | example | indexed |", "|---|---|---|---|---|"]
    for field in TABLE:
        others = ", ".join(f"`{name}`" for name in field.others)
        lines.append(f"| `{field.name}` | {others} | {field.meaning} | `{field.example}` | {'yes' if field.indexed else ''} |")
    return "\n".join(lines) + "\n"


def renew() -> None:
    """`python -c "import sys; sys.path.insert(0, 'tests/unit'); import test_filters_page as page; page.renew()"`"""
    PAGE.write_text(_FIELDS.sub(lambda found: found[1] + table() + found[3], PAGE.read_text()))


def test_the_table_of_the_page_is_the_table_of_fields() -> None:
    found = _FIELDS.search(PAGE.read_text())
    assert found is not None
    assert found[2] == table(), f"renew it with {renew.__doc__}"


def test_every_example_of_a_field_is_a_filter_of_that_field() -> None:
    for field in TABLE:
        (term,) = parse(field.example).terms
        assert field_named(term.field) is not None
        assert term.field == field.name or (field.name.startswith("meta.") and term.field.startswith("meta."))
        for other in field.others:
            assert (field_named(other.replace("<key>", "x")) or field).name == field.name.replace("<key>", "x"), other
    assert len(FIELDS) == len(TABLE) - 1


def tasks() -> list[Task]:
    """A few that the examples of the page are about."""
    made = []
    for seq, (state, more) in enumerate(
        [
            (State.FAILED, {"tags": ["nightly"], "metadata": {"customer": 42}}),
            (State.PENDING, {"model": "qwen3:8b", "priority": 10}),
            (State.PENDING, {"estimate": 5000}),
            (State.COMPLETED, {"tags": ["two words"], "batch": "b"}),
            (State.SCHEDULED, {"payload": {"prompt": "The sky, wait a minute"}}),
        ]
    ):
        spec = Submission(**{"executor": "ollama", "action": "chat", "model": "m", **more})
        ended = state in (State.FAILED, State.COMPLETED)
        made.append(
            Task(
                id=f"019ab3c4-d5e6-7f01-8000-00000000000{seq}",
                seq=seq,
                state=state,
                flow=FlowKey(lane_of(spec.executor, spec.model), spec.priority, "low", ""),
                spec=spec,
                estimate=spec.estimate or 10,
                created=NOW - 3_600_000,
                finished=NOW - 1000 if ended else None,
                due=NOW + 60_000 if state is State.SCHEDULED else None,
                code="timeout" if state is State.FAILED else None,
            )
        )
    return made


def test_every_filter_of_the_page_finds_something() -> None:
    text = PAGE.read_text()
    filters = re.findall(r"^\| `([^`]+)` \|", text.split("## Fields")[0], re.MULTILINE)
    assert len(filters) > 10
    for example in filters:
        asked = search(parse(example), NOW)
        assert [task for task in tasks() if matches(task, asked)], example
    for example in re.findall(r"--query '([^']+)'", text):
        search(parse(example), NOW)
