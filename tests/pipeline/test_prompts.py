"""Prompts that the model answers itself, in commands that look at rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.export import export_packed
from pipeline.inspection.opened import open_tokens
from pipeline.inspection.rows import records
from pipeline.progress import Progress
from tests.train.online.workspace import build


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("asked")) / "data"


def test_inspect_shows_the_columns(data: Path) -> None:
    (line,) = records(open_tokens(data / "tokens"), [3])
    assert line.endswith('"reference": {"answer": 6, "prompt": "3 + 3 ="}}')


def test_export_has_no_place_for_them(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="have columns for who scores answers to them"):
        export_packed(data, tmp_path / "out", "jsonl", Progress())
