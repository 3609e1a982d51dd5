"""One build for all tests of faults, whichever process they run in."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.faults.project import Built


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Built:
    """Not to be changed: tests change copies of it."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "faults-built"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            Built(place)
            (place / "done").touch()
    return Built.at(place / "project")


@pytest.fixture
def project(built: Built, tmp_path: Path) -> Built:
    """A copy to break."""
    return Built(tmp_path / "copy", built)


@pytest.fixture(scope="module")
def kept(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A copy that the tests of a module share: each leaves it as it found it."""
    return Built(tmp_path_factory.mktemp("kept") / "copy", built)
