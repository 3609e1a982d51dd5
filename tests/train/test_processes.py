"""Several processes train what one process with the same global batch trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.workspace import build, make_rows, read_log, train

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Seven bins, so that the last step of an epoch has an empty place; only the leading process writes."""
    bins = [[2 * number, 2 * number + 1] for number in range(7)]
    workspace = build(tmp_path / "one", make_rows(18), bins, [[14], [15, 16], [17]])
    shared: dict[str, Any] = {"num_epochs": 2, "learning_rate": 1e-2, "logging_steps": 1, "eval_steps": 1}
    shutil.copytree(workspace, tmp_path / "two")
    alone, metrics = train(workspace, shared | {"micro_batch_size": 4})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = json.dumps(shared | {"micro_batch_size": 1, "gradient_accumulation_steps": 2})
    arguments = ["-m", "tests.train.child", str(tmp_path / "two"), options]
    subprocess.run([*command, *arguments], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    assert list((tmp_path / "two" / "trained-1").iterdir()) == []
    together = tmp_path / "two" / "trained-0"
    found = json.loads((tmp_path / "two" / "metrics-0.json").read_text())
    assert {name: found[name] for name in ("steps", "tokens", "trained_tokens")} == {
        name: metrics[name] for name in ("steps", "tokens", "trained_tokens")
    }
    measured = [line.split(",") for line in (together / "eval.csv").read_text().splitlines()[1:]]
    assert [float(loss) for _, _, loss, *_ in measured] == pytest.approx(
        [line["eval_loss"] for line in read_log(alone, "eval.csv")], abs=1e-5
    )
    expected, lines = read_log(alone), (together / "log.csv").read_text().splitlines()[1:]
    assert [float(line.split(",")[2]) for line in lines] == pytest.approx([line["loss"] for line in expected], abs=1e-5)
    weights = load_file(together / "model.safetensors")
    for name, weight in load_file(alone.path / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=1e-3)
