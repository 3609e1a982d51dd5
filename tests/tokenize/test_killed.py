"""A tokenize run that is killed at any moment leaves nothing that the next run could be misled by, and loses little."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tokenize.test_blocks import chats, run

_KILLED_RUNS = """
import os, signal, sys
from pathlib import Path
from stages.tokenize import blocks, cache
from tests.tokenize.test_blocks import chats, run

workspace, moments = Path(sys.argv[1]), [int(value) for value in sys.argv[2:]]
blocks._LEAST, blocks._MOST, blocks._PER_BYTE = 64, 2048, 2**32 // 512
steps = 0
for moment in moments:
    child = os.fork()
    if not child:
        class Mortal:
            # Every look at the disk by the cache is a moment at which the process may die.
            def __getattr__(self, name):
                global steps
                steps += 1
                if steps == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return getattr(os, name)
        cache.os = Mortal()
        original = cache._checksum
        def checksum(key, content):
            cache.os.getpid
            return original(key, content)
        cache._checksum = checksum
        run(workspace, chats(range(400)), cache=workspace / "cache")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else "finished")
"""


@pytest.mark.slow
def test_killed_at_ten_moments_it_completes_with_the_same_digest(tmp_path: Path) -> None:
    draw = random.Random(3)
    moments = sorted(draw.sample(range(1, 150), 10))
    workspace = tmp_path / "killed"
    command = [sys.executable, "-c", _KILLED_RUNS, str(workspace), *map(str, moments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split().count("9") >= 8, done.stdout + done.stderr
    rows = chats(range(400))
    after, facts = run(workspace, rows, cache=workspace / "cache")
    cold, also = run(tmp_path / "cold", rows)
    assert after == cold
    assert facts == also
    assert not list((workspace / "cache").rglob("*.partial"))
