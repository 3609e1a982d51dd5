"""SIGKILL in every stage, two in a row; ``make faults`` does ten in each."""

from __future__ import annotations

import pytest

from tests.faults.kill_matrix import drawn, kill_stage
from tests.faults.project import ALL, Built

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", ALL)
def test_a_killed_stage_completes_with_the_same_digests(kept: Built, stage: str) -> None:
    tally = kill_stage(kept, stage, *drawn(stage, 2), in_a_row=2)
    assert tally.lost == []
    assert tally.survived == tally.moments == 2
