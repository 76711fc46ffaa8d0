"""The house keeps its rules: exports, errors, events, and what an import costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_args

import pytest

import inferq
from inferq import errors, events


def test_the_public_names_are_sorted_and_load() -> None:
    assert list(inferq.__all__) == sorted(inferq.__all__)
    for name in inferq.__all__:
        assert getattr(inferq, name) is not None
    assert set(inferq.__all__) < set(dir(inferq))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = inferq.nothing


def every_error(base: type[errors.InferqError] = errors.InferqError) -> list[type[errors.InferqError]]:
    return [
        base,
        *(found for child in base.__subclasses__() for found in every_error(child) if child.__module__.startswith("inferq.errors.")),
    ]


def test_every_error_says_its_code_status_and_whether_to_try_again() -> None:
    found = every_error()
    assert len(found) > 25
    for error in found:
        assert error.code
        assert error.code.islower()
        assert 400 <= error.status < 600
        assert isinstance(error.retryable, bool)
        assert error.__doc__
        assert error.__name__ in (errors.__doc__ or ""), f"{error.__name__} is missing in the tree at the top of errors.py"


def test_every_event_is_named_and_documented() -> None:
    for event in get_args(events.Event):
        assert event.__doc__
        assert event().type in events.EVENT_TYPES


def test_importing_inferq_is_light() -> None:
    program = (
        "import sys, inferq\n"
        "heavy = {'aiohttp', 'asyncio', 'click', 'msgspec', 'rich', 'sqlite3', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr


def test_every_public_name_and_each_of_its_methods_says_what_it_is() -> None:
    silent = []
    for name in inferq.__all__:
        offered = getattr(inferq, name)
        if not inspect.getdoc(offered):
            silent.append(name)
        for member, value in inspect.getmembers(offered) if inspect.isclass(offered) else ():
            function = value.fget if isinstance(value, property) else value
            ours = inspect.isfunction(function) and function.__module__.startswith("inferq.")
            if ours and not member.startswith("_") and not inspect.getdoc(value):
                silent.append(f"{name}.{member}")
    assert silent == []
