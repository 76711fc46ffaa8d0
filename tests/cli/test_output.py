"""One record, six formats; nothing that a terminal or a spreadsheet would obey."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys

import click
import pytest

from inferq.cli.output import Column, Output, cell, field, safe

RECORDS = [
    {"id": "a1", "name": "first, with a comma", "size": 3, "tags": ["x"]},
    {"id": "b2", "name": 'a "quote"\tand a tab\nand a line', "size": None, "tags": []},
]
COLUMNS = [Column("ID", field("id")), Column("NAME", field("name")), Column("SIZE", field("size"), wide=True)]


def printed(capsys: pytest.CaptureFixture[str], form: str, *fields: str) -> str:
    out = Output()
    out.choose(form, by="-o")
    out.fields = fields
    out.records(RECORDS, COLUMNS)
    return capsys.readouterr().out


def test_a_piped_table_is_tab_separated_with_one_line_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "table").splitlines()
    assert lines == ["ID\tNAME", "a1\tfirst, with a comma", 'b2\ta "quote"\\tand a tab\\nand a line']
    assert printed(capsys, "wide").splitlines()[1] == "a1\tfirst, with a comma\t3"


def test_json_holds_every_field_and_jsonl_one_record_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "json")) == RECORDS
    assert [json.loads(line) for line in printed(capsys, "jsonl").splitlines()] == RECORDS


def test_chosen_fields_come_in_the_order_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "json", "size", "id")) == [{"size": 3, "id": "a1"}, {"size": None, "id": "b2"}]
    assert printed(capsys, "csv", "size", "id") == "size,id\n3,a1\n,b2\n"


def test_an_unknown_field_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.UsageError, match="'nmae'; the fields are id, name, size, tags"):
        printed(capsys, "json", "nmae")


def test_csv_can_be_read_back_and_runs_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.reader(io.StringIO(printed(capsys, "csv"))))
    assert rows[0] == ["id", "name", "size"]
    assert rows[1] == ["a1", "first, with a comma", "3"]
    out = Output()
    out.choose("csv", by="-o")
    out.records([{"id": "=cmd()", "name": "@x", "size": -1}, {"id": "+cmd()", "name": "-1+cmd()", "size": "-"}], COLUMNS)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert rows == [["'=cmd()", "'@x", "-1"], ["'+cmd()", "'-1+cmd()", "-"]]


def test_ids_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "id") == "a1\nb2\n"


def test_two_formats_at_once_are_refused() -> None:
    out = Output()
    out.choose("csv", by="-o")
    with pytest.raises(click.UsageError, match="--quiet contradicts -o csv"):
        out.choose("id", by="--quiet")


def test_control_characters_are_shown_not_sent() -> None:
    assert cell("a\x1b[31mred\r\n\u202e") == "a\\e[31mred\\r\\n\\u202e"
    assert safe("line one\nline\ttwo\x1b]0;title\x07") == "line one\nline\ttwo\\e]0;title\\u0007"
    assert cell(None) == ""
    assert cell({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'


_ON_TERMINAL = """
import sys
from inferq.cli.output import Column, Output, field
out = Output()
if sys.argv[1] == "text":
    out.write("model says \\x1b[2J hello")
elif sys.argv[1].startswith("notes"):
    names = ("id", "type", "status", "created", "completed", "note")
    model = "a-long-name-of-a-model" if sys.argv[1] == "notes-wide" else "chat"
    values = ("0" * 18, model, "pending", "3s ago", "", "gpu-1 is down since 2027-01-15T07:59:00Z: connection refused")
    out.records([dict(zip(names, values))] * 2, [Column(name.upper(), field(name)) for name in names])
else:
    out.records(
        [{"id": "0" * 36, "name": "\\x1b[2J[bold]x[/bold] " + "long " * 40}], [Column("ID", field("id")), Column("NAME", field("name"))]
    )
"""


def on_terminal(what: str, **env: str) -> str:
    """What a program prints on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, what],
        stdin=follower,
        stdout=follower,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", **env},
    )
    os.close(follower)
    data = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        data += piece
    assert program.wait(30) == 0
    os.close(leader)
    return data.decode()


def test_a_terminal_table_fits_keeps_ids_whole_and_obeys_no_text_in_it() -> None:
    text = on_terminal("table", NO_COLOR="1")
    assert "\x1b" not in text
    assert "0" * 36 in text
    assert "\\e[2J[bold]x[/bold]" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_on_a_narrow_terminal_the_longest_column_goes_on_below_and_empty_ones_are_left_out() -> None:
    first, *rest = on_terminal("notes", NO_COLOR="1").splitlines()
    assert first.split() == ["ID", "TYPE", "STATUS", "CREATED", "NOTE"]
    assert rest[0].startswith(f"{'0' * 18}  chat  pending  3s ago   gpu-1 is down")
    assert all(len(line) <= 80 for line in rest)
    assert " ".join(rest).count("refused") == 2


def test_where_it_has_no_room_beside_the_others_it_stands_below_each_row() -> None:
    first, *rest = on_terminal("notes-wide", NO_COLOR="1").splitlines()
    assert first.split() == ["ID", "TYPE", "STATUS", "CREATED"]
    assert rest[0].split() == ["0" * 18, "a-long-name-of-a-model", "pending", "3s", "ago"]
    assert rest[1].rstrip() == "    gpu-1 is down since 2027-01-15T07:59:00Z: connection refused"
    assert len(rest) == 4


def test_text_of_a_model_cannot_clear_the_screen() -> None:
    assert on_terminal("text").strip() == "model says \\e[2J hello"
