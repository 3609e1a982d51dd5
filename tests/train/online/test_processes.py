"""Two processes learn from the answers to their prompts what one process learns from all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.online.workspace import REWARDS, build, completions, grpo
from tests.train.workspace import read_log, train

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_processes_learn_like_one(tmp_path: Path) -> None:
    """Answers that are no matter of chance, so that both learn from the same."""
    workspace = build(tmp_path / "one", prompts=10, held_out=(3, 7))
    shutil.copytree(workspace, tmp_path / "two")
    trl = {"rollout_func": f"{REWARDS}.recite_unevenly", "beta": 0.1, "num_iterations": 2}
    shared = {"max_steps": 4, "eval_steps": 2, "logging_steps": 1, "eval_batch_size": 4, "trl": trl}
    alone, metrics = train(workspace, grpo(**shared, micro_batch_size=8, gradient_accumulation_steps=1))
    options = json.dumps(grpo(**shared, micro_batch_size=2, gradient_accumulation_steps=2))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = ["-m", "tests.train.child", str(tmp_path / "two"), options]
    subprocess.run([*command, *arguments], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    assert list((tmp_path / "two" / "trained-1").iterdir()) == []
    together = tmp_path / "two" / "trained-0"
    found = json.loads((tmp_path / "two" / "metrics-0.json").read_text())
    same = ("steps", "tokens", "trained_tokens", "evaluations", "eval_reward")
    assert {name: found[name] for name in same} == {name: metrics[name] for name in same}
    assert completions(together) == completions(alone.path)
    header, *lines = (together / "log.csv").read_text().splitlines()
    for line, expected in zip(lines, read_log(alone), strict=True):
        values = dict(zip(header.split(","), map(float, line.split(",")), strict=True))
        for name in ("loss", "reward", "reward_std", "rewards/digits", "completion_length", "tokens", "trained_tokens"):
            assert values[name] == pytest.approx(expected[name], abs=1e-4), name
    weights = load_file(together / "model.safetensors")
    for name, weight in load_file(alone.path / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight, atol=1e-3, rtol=1e-2)
