"""`make bench`: measures inferq against peers and physical limits in one run and prints the comparison. See README.md beside this file."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import Bench, Mode
from processes import ChildFailed
from report import Row, save, table
from scenarios import backlog, batch_import, busy_loop, growth, idle, life, listing, server, slow_disk, startup, streams, submit
from scenarios.slow_disk import sync_ms

FOLDER = Path(__file__).resolve().parent.parent / ".bench"

SCENARIOS: dict[str, tuple[str, Callable[[Bench], list[Row]]]] = {
    "submit": ("durable submits, in bulk and from 100 coroutines", submit.measure),
    "life": ("whole life of no-op tasks and worker CPU, 1 KB and 20 B, against pgqueuer, SAQ and huey", life.measure),
    "slow-disk": ("whole life when every disk sync takes 1 ms longer", slow_disk.measure),
    "idle": ("idle submit to handler start, against SAQ, taskiq and huey", idle.measure),
    "busy-loop": ("commit while the event loop is 95 % busy", busy_loop.measure),
    "backlog": ("a million waiting, 10,000 flows; memory and start with a million", backlog.measure),
    "streams": ("400 streams of 50 chunks a second, log kept, 400 followers", streams.measure),
    "import": ("a file of 100,000 JSON lines becomes a batch, against raw inserts; memory it takes", batch_import.measure),
    "list": ("pages of 50 by every kind of filter, a million tasks, against a bare keyset page", listing.measure),
    "startup": ("start of the command line: help, a listing over HTTP, against an empty Python", startup.measure),
    "server": ("durable submits over HTTP, a task's status, 1,000 followers of events", server.measure),
    "growth": ("cost a task from 10^3 to 10^6 tasks (only with --long or --only)", growth.measure),
}
ONLY_LONG = frozenset({"growth"})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure inferq against peers and limits in one run.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small counts, under two minutes; ratios are rough")
    size.add_argument("--long", action="store_true", help="also the growth to a million tasks")
    parser.add_argument("--only", metavar="NAME", action="append", choices=SCENARIOS, help="this scenario only; may be repeated")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rows and samples there")
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.list:
        for name, (what, _) in SCENARIOS.items():
            print(f"{name:10} {what}")
        return 0
    mode: Mode = "quick" if options.quick else "long" if options.long else "full"
    chosen = options.only or [name for name in SCENARIOS if mode == "long" or name not in ONLY_LONG]
    # Ended from outside like from inside: servers and workers of this run are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with Bench(mode, FOLDER) as bench:
        print(f"mode {mode}; {_machine(bench)}\n", file=sys.stderr)
        rows = [row for name in chosen for row in _measured(bench, name)]
    seconds = time.monotonic() - begun
    print(table(rows))
    print(f"\n{_verdict(rows)} in {seconds:.0f} s" + ("; quick mode: small counts, ratios are rough" if mode == "quick" else ""))
    if options.json:
        save(options.json, rows, mode=mode, seconds=seconds)
    return 1 if any(row.note.startswith("FAILED") for row in rows) else 0


def _measured(bench: Bench, name: str) -> list[Row]:
    begun = time.monotonic()
    try:
        rows = SCENARIOS[name][1](bench)
    except ChildFailed as error:
        rows = [Row(name, SCENARIOS[name][0], None, "", note=f"FAILED: {error}")]
    print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    for row in rows:
        if row.figure is None:
            print(f"  {row.what}: {row.note}", file=sys.stderr)
    return rows


def _machine(bench: Bench) -> str:
    """What shows whether the figures can be trusted: other load and the disk's own speed."""
    with tempfile.TemporaryDirectory(dir=bench.data) as folder:
        sync = sync_ms(Path(folder))
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, a 4 KB append and sync takes {sync:.3f} ms"


def _verdict(rows: list[Row]) -> str:
    judged = [row for row in rows if row.met is not None]
    out = [row for row in rows if row.figure is None]
    left = f", {len(out)} SKIPPED OR FAILED" if out else ""
    return f"{sum(bool(row.met) for row in judged)} of {len(judged)} goals met{left}"


if __name__ == "__main__":
    sys.exit(main())
