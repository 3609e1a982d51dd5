"""What measures and checks on a GPU runs on any machine as far as that goes, so that it works when there is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.slow
def test_both_sides_are_measured_and_what_is_missing_is_a_row() -> None:
    done = run("train.py", "--smoke")
    assert done.returncode == 0, done.stderr[-2000:]
    for side, name in (("regrow", "compiled"), ("TRL", "sdpa")):
        row = re.search(rf"^\| {side} \| {name} \| ([\d,]+) \| [\d.]+% \| [\d,]+ \| (\d+)% \|$", done.stdout, re.MULTILINE)
        assert row is not None and 60 < int(row[2]) < 90, done.stdout
    assert re.search(r"^\| TRL \| liger kernels, flash-attn \| \w+ is not installed ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
def test_every_check_passes_where_it_can_be_made() -> None:
    done = run("check.py", "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| ok |") > 12 and "0 checks failed" in done.stdout


@pytest.mark.parametrize("program", ["train.py", "check.py"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without one says")
def test_without_a_gpu_it_says_what_to_do(program: str) -> None:
    done = run(program)
    assert done.returncode == 2 and "need" in done.stderr and "--smoke" in done.stderr
