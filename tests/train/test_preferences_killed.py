"""DPO and KTO killed at random steps end with the bytes of runs that were not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.preferences import FULL, LORA, build, feedback_rows, pair_rows
from tests.train.workspace import Heard, train

ROOT = Path(__file__).parents[2]

LONG: dict[str, Any] = {"num_epochs": 6, "save_steps": 3, "eval_steps": 4}
"""Twelve steps, two an epoch: checkpoints within epochs and at their ends."""
DROPOUT: dict[str, Any] = LORA | LONG | {"lora_dropout": 0.2}
KILLED: dict[str, dict[str, Any]] = {
    "dpo": FULL | LONG | {"rl": "dpo"},
    "dpo, an adapter with dropout, the reference asked beforehand": DROPOUT | {"rl": "dpo", "precompute_ref_log_probs": True},
    "kto": FULL | LONG | {"rl": "kto"},
    "kto, an adapter with dropout": DROPOUT | {"rl": "kto"},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each run is trained from, never trained in."""
    folder = tmp_path_factory.mktemp("published")
    made = {"dpo": build(folder / "pairs", pair_rows()), "kto": build(folder / "feedback", feedback_rows())}
    return {name: made[options["rl"]] for name, options in KILLED.items()}


@pytest.fixture(scope="module")
def remains(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What runs left that were killed at five random steps, one after the other."""
    folder, rng = tmp_path_factory.mktemp("killed"), random.Random(7)
    places = {name: folder / str(number) for number, name in enumerate(KILLED)}
    for name, place in places.items():
        shutil.copytree(published[name] / "data", place / "data")
    jobs = [(str(places[name]), options, sorted(rng.sample(range(1, 13), 5))) for name, options in KILLED.items()]
    command = [sys.executable, "-m", "tests.train.killed", json.dumps(jobs)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    return places


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_killed_five_times_it_ends_with_the_same_bytes(
    published: dict[str, Path], remains: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """In two processes and two directories: killed and resumed in the one, undisturbed in the other."""
    heard = Heard()
    resumed, metrics = train(remains[name], KILLED[name], progress=heard)
    assert heard.said[0].startswith("Continuing from the checkpoint of step ") and metrics["steps"] == 12
    shutil.copytree(published[name] / "data", tmp_path / "data")
    assert resumed.files == train(tmp_path, KILLED[name])[0].files
