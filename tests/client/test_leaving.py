"""A short program that asked a server ends as it should: the HTTP library's threads do not abort it on the way out."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from served import Site

PROGRAM = """
import asyncio, sys, inferq
async def main():
    async with inferq.AsyncClient(sys.argv[1]) as queue:
        print((await queue.stats()).total)
asyncio.run(main())
"""
_RUNS = 12
"""A library whose threads outlive the event loop lost about one run in seven."""


@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_run_of_a_short_program_is_aborted_at_its_end(site: Site, at_once: int) -> None:
    ends: list[tuple[int, str, str]] = []

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, site.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        ends.append((process.returncode or 0, out.decode(), err.decode()))

    for _ in range(_RUNS // 2 // at_once):
        await asyncio.gather(*(run() for _ in range(at_once)))
    assert ends == [(0, "0\n", "")] * len(ends)
