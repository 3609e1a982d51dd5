"""A finished project, made once for all who only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.traced import build


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("project"))


@pytest.fixture
def here(finished_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is the finished project's."""
    monkeypatch.chdir(finished_project)
    return finished_project
