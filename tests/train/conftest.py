from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

from tests.train.workspace import evaluated, pairs


@pytest.fixture(scope="session", autouse=True)
def _few_objects_to_collect() -> None:
    """accelerate collects garbage at the start of every run: 0.4 s each over all that the libraries' import left, 0 without."""
    import stages.train.session  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual workspace, made once; tests that write take a copy."""
    return pairs(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with rows to evaluate on, made once; tests that write take a copy."""
    return evaluated(tmp_path_factory.mktemp("held_out"))


@pytest.fixture
def measured(held_out: Path, tmp_path: Path) -> Path:
    """A copy of the workspace with rows to evaluate on."""
    shutil.copytree(held_out / "data", tmp_path / "measured" / "data")
    return tmp_path / "measured"


@pytest.fixture
def workspace(published: Path, tmp_path: Path) -> Path:
    """A copy of the usual workspace."""
    shutil.copytree(published / "data", tmp_path / "work" / "data")
    return tmp_path / "work"
