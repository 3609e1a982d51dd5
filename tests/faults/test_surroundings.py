"""What a project may find around it: no right to write, another `dvc repro`, jumping clocks, moving sources, odd folders, no git."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.kill_matrix import until_started
from tests.faults.project import Built
from tests.test_pipeline import row

pytestmark = pytest.mark.slow


def as_ordinary_user() -> list[str]:
    """What to put before a command so that permissions bind it: root's own files are read-only to it without this capability."""
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("place", ["data", "data/packed"])
def test_where_nothing_may_be_written_a_stage_says_so(kept: Built, place: str) -> None:
    before, folder = kept.lock(), kept.root / place
    folder.chmod(0o555)
    ending = kept.attempt(*as_ordinary_user(), "dvc", "repro", "--single-item", "--force", "pack")
    folder.chmod(0o755)
    assert ending.code and "Permission denied" in ending.output and "Traceback" not in ending.output, ending.output
    assert kept.attempt("dvc", "repro", "pack").code == 0
    assert kept.lock() == before and not list((kept.root / "data/.partial").iterdir())


def test_of_two_at_once_none_spoils_the_other(project: Built) -> None:
    """The second starts while the first is in tokenize, and then again in pack: it does what is left, or says who is at work."""
    before = project.lock()
    project.forget("tokenize", "pack")
    first = project.start("dvc", "repro", "--no-run-cache", "pack")
    for stage in ("tokenize", "pack"):
        for _ in until_started(first, stage):
            pass
        second = project.attempt("dvc", "repro", "--no-run-cache", "pack")
        assert "Traceback" not in second.output
        assert second.code == 0 or "is busy, it is being blocked by" in second.output or "Unable to acquire lock" in second.output
    output, _ = first.communicate(timeout=300)
    assert "Traceback" not in output
    assert first.returncode == 0 or "is busy, it is being blocked by" in output or "Unable to acquire lock" in output, output
    assert project.attempt("dvc", "repro", "pack").code == 0
    assert project.lock() == before


CLOCK = """
import time
_true, _calls = time.time, 0

def _jumping():
    global _calls
    _calls += 1
    return _true() + (-1) ** _calls * 3e8

time.time = _jumping
"""
"""Nine years to and fro with every look at the clock."""


def test_clocks_decide_nothing(project: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = project.lock()
    project.forget("tokenize", "pack")
    for number, path in enumerate(sorted(project.root.rglob("*"))):
        if ".git" not in path.parts and not path.is_symlink():
            os.utime(path, (moment := 1_000 if number % 2 else 2**32, moment))
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ending = project.attempt("dvc", "repro", "--no-run-cache", "pack")
    assert ending.code == 0 and "Traceback" not in ending.output, ending.output
    monkeypatch.delenv("PYTHONPATH")
    assert project.attempt("dvc", "repro", "pack").code == 0
    assert project.lock() == before


def test_a_source_that_changes_while_it_is_read_is_refused(project: Built) -> None:
    before, rows = project.lock(), project.rows.read_bytes()
    project.forget("fetch")
    process = project.start("regrow", "fetch")
    while process.poll() is None and not list((project.root / "data/.partial/raw").glob("*/*")):
        time.sleep(0.01)
    with project.rows.open("a", encoding="utf-8") as stream:
        stream.write(row(1000))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 70, output
    assert "error: Something that fetch reads changed while it ran; its result is not used." in output and "Traceback" not in output
    assert not (project.root / "data/raw").exists() and not list((project.root / "data/.partial").iterdir())
    project.rows.write_bytes(rows)
    assert project.attempt("dvc", "repro", "fetch").code == 0 and project.lock() == before


ODD = " two  words 'and' \"quotes\" $HOME & # % 🦎 é\n.yaml"
"""A folder's name may hold anything but a slash and a zero."""


@pytest.mark.parametrize("length", [0, 3500], ids=["odd", "odd and near the longest path there is"])
def test_a_project_may_lie_anywhere(built: Built, tmp_path: Path, length: int) -> None:
    place = tmp_path / ODD
    while len(os.fsencode(place)) < length:
        place /= "long" * 50
    place.mkdir(parents=True)
    project = Built(place, built)
    ending = project.attempt("regrow", "pack", "--force")
    assert ending.code == 0, ending.output
    assert project.lock() == built.lock()
    shutil.rmtree(tmp_path / ODD)


def test_without_git(project: Built) -> None:
    before = project.lock()
    shutil.rmtree(project.root / ".git")
    refused = project.attempt("regrow", "pack")
    assert refused.code == 2 and "git init" in refused.error and "dvc config core.no_scm true" in refused.error, refused.output
    project.run("dvc", "config", "core.no_scm", "true")
    project.forget("pack")
    assert project.attempt("regrow", "pack").code == 0 and project.lock() == before
