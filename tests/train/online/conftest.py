from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.train.online.workspace import build


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual prompts, made once; tests that write take a copy."""
    return build(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="session")
def some_held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of which three are held out, made once."""
    return build(tmp_path_factory.mktemp("some_held_out"), prompts=15, held_out=(3, 7, 11))


@pytest.fixture
def asking(prompts: Path, tmp_path: Path) -> Path:
    """A copy of the usual prompts."""
    shutil.copytree(prompts / "data", tmp_path / "asking" / "data")
    return tmp_path / "asking"


@pytest.fixture
def answered(some_held_out: Path, tmp_path: Path) -> Path:
    """A copy of the prompts of which some are held out."""
    shutil.copytree(some_held_out / "data", tmp_path / "answered" / "data")
    return tmp_path / "answered"
