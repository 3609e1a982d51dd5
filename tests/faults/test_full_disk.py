"""A disk that is full: one clear message, nothing half-written, and the same digests when there is room.

The project lies on a tmpfs of its own in a mount namespace of its own, which ends with the test. Where the system allows no such
namespace (some containers), the stage may write no file beyond a size instead: the same errors, by RLIMIT_FSIZE.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.faults.kill_matrix import half_written, leftovers
from tests.faults.project import Built, Ending

pytestmark = pytest.mark.slow

FREE = {"fetch": 20, "pack": 16, "train": 500, "merge": 100}
"""KB that are free when a stage starts: too few for the tokenizer; an Arrow file; the last checkpoint; the weights."""
LIMIT = {"fetch": 4_000, "pack": 1_000, "train": 20_000, "merge": 100_000}
"""The largest file that a stage may write, where a limit stands in for the disk, in bytes."""

_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
_SCRIPT = """
set -e
mount -t tmpfs -o size=256m none "$1"
cp -a "$2/." "$1"
cd "$1"
mount -o remount,size=$(( $(df -k --output=used . | tail -1) + $3 ))k "$1"
code=0
dvc repro --single-item --no-run-cache "$4" || code=$?
mount -o remount,size=256m "$1"
cp -a "$1/." "$5"
exit $code
"""


def on_full_disk(project: Built, stage: str, folder: Path) -> tuple[Ending, Built]:
    """Run a stage without room. How it ended, and the project as it was left, on a disk with room."""
    mount, after = folder / "disk", folder / "after"
    mount.mkdir(), after.mkdir()
    if subprocess.run([*_NAMESPACE, "mount", "-t", "tmpfs", "none", str(mount)], capture_output=True).returncode:
        inside = ["env", f"DVC_STAGE={stage}", "DVC_ROOT=.", "prlimit", f"--fsize={LIMIT[stage]}"]
        return project.attempt(*inside, "python", "-m", "pipeline", "run", stage), project
    given = [str(mount), str(project.root), str(FREE[stage]), stage, str(after)]
    ending = project.attempt(*_NAMESPACE, "bash", "-c", _SCRIPT, "-", *given)
    return ending, Built.at(after)


@pytest.mark.parametrize("stage", FREE)
def test_a_full_disk_is_one_message_and_costs_nothing(project: Built, tmp_path: Path, stage: str) -> None:
    before = project.lock()
    project.forget(stage)
    ending, after = on_full_disk(project, stage, tmp_path)
    assert ending.code and "Traceback" not in ending.output, ending.output
    assert "could not" in ending.error and "MB free" in ending.error and "Make room" in ending.error, ending.output
    assert not list((after.root / "data/.partial").iterdir()), "what was written would keep the disk full"
    assert half_written(after, stage) == []
    assert after.attempt(*after.single(stage)).code == 0
    assert after.lock() == before and leftovers(after, stage) == []
