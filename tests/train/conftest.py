from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

from tests.train.workspace import pairs


@pytest.fixture(scope="session", autouse=True)
def _few_objects_to_collect() -> None:
    """accelerate collects garbage at the start of every run: 0.4 s each over all that the libraries' import left, 0 without."""
    import stages.train.session  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual workspace, made once; tests that write take a copy."""
    return pairs(tmp_path_factory.mktemp("published"))


@pytest.fixture
def workspace(published: Path, tmp_path: Path) -> Path:
    """A copy of the usual workspace."""
    shutil.copytree(published / "data", tmp_path / "work" / "data")
    return tmp_path / "work"
