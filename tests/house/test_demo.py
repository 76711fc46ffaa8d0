"""`make demo` is true: it runs to its end, its verdict is 0 and 0, and its exit code says so."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest


@pytest.mark.e2e
def test_the_demo_loses_nothing_and_does_nothing_twice() -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        if os.environ.get("INFERQ_E2E") == "required":
            pytest.fail("the extra `local` is not installed")
        pytest.skip("the extra `local` is not installed")
    ran = subprocess.run([sys.executable, "-m", "inferq.demo"], capture_output=True, text=True, timeout=115)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "was killed with SIGKILL" in ran.stdout
    assert "\nlost 0, done twice 0\n" in ran.stdout
    table = ran.stdout.split("answer\n", 1)[1].split("\n\n", 1)[0].splitlines()
    assert len(table) == 14
    assert {line.split()[0] for line in table} == {"chat", "generate", "embed", "script.execu"}
    assert any(re.search(r"\b(low|normal|high|critical)\s+2\b", line) for line in table), "the kill cut off at least one attempt"
