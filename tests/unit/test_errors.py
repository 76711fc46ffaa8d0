"""An error about a field keeps its sense when what it is about is part of something larger."""

from __future__ import annotations

import pytest

from inferq.errors import InvalidTask, PayloadTooLarge


@pytest.mark.parametrize(
    ("field", "inside", "text"),
    [
        ("payload.messages", "submissions[3].payload.messages", "submissions[3].payload.messages: expected a list"),
        ("", "submissions[3]", "submissions[3]: expected a list"),
    ],
)
def test_an_error_of_a_part_names_its_place_in_the_whole_and_can_be_taken_out_again(field: str, inside: str, text: str) -> None:
    error = PayloadTooLarge("expected a list", field=field)
    alone = str(error)
    moved = error.within("submissions[3]")
    assert type(moved) is PayloadTooLarge
    assert (moved.field, str(moved), moved.reason) == (inside, text, "expected a list")
    back = moved.out_of("submissions[3]")
    assert (back.field, str(back), back.reason) == (field, alone, "expected a list")


def test_an_error_of_another_place_stays_as_it_is() -> None:
    error = InvalidTask("expected less", field="submissions[30].payload")
    assert str(error.out_of("submissions[3]")) == "submissions[30].payload: expected less"
