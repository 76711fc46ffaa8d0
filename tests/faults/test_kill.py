"""SIGKILL at random moments: two workers, two submitters and a meddler on one file; the recorded history is judged after each round."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from faultkit.rounds import campaign

pytestmark = pytest.mark.faults

LONG = os.environ.get("INFERQ_FAULTS") == "long"
ROUNDS = int(os.environ.get("INFERQ_FAULTS_ROUNDS", "200" if LONG else "7"))


@pytest.mark.timeout(3 * 3600 if LONG else 150)
async def test_nothing_is_lost_and_nothing_is_done_twice_when_processes_are_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("INFERQ_FAULTS_SEED", random.SystemRandom().randrange(1_000_000)))
    told = await campaign(tmp_path, rounds=ROUNDS, seed=seed, tell=lambda line: print(line, flush=True))
    assert told[-1].complaints == []
    assert len(told) == ROUNDS
    kills = sum(sum(one.kills.values()) for one in told)
    assert kills >= ROUNDS, "a campaign that hardly killed anybody proves nothing"
