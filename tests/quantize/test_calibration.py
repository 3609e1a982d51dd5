"""The rows that a library calibrates with: trained ones, drawn by a seed, known by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.tokens import TokenTable
from stages.quantize.calibration import Calibration, draw_calibration
from tests.quantize.merged import publish_rows


def draw(workspace: Path, stretches: int = 3, length: int = 16, seed: int = 42) -> Calibration:
    data = workspace / "data"
    return draw_calibration(open_artifact(data / "tokens"), open_artifact(data / "packed"), stretches=stretches, length=length, seed=seed)


def test_rows_are_trained_ones_joined_in_the_order_told(tmp_path: Path) -> None:
    publish_rows(tmp_path)
    found = draw(tmp_path)
    table = TokenTable(tmp_path / "data" / "tokens")
    joined = np.concatenate([table.ids(row) for row in found.rows])
    assert found.ids.shape == (3, 16) and found.ids.reshape(-1).tolist() == joined[:48].tolist()
    assert len(joined) - table.lengths[found.rows[-1]] < 48, "no row more than it takes"
    assert len(set(found.rows)) == len(found.rows) and max(found.rows) < 16


def test_a_seed_decides_which(tmp_path: Path) -> None:
    publish_rows(tmp_path)
    assert draw(tmp_path).facts() == draw(tmp_path).facts() != draw(tmp_path, seed=7).facts()
    assert draw(tmp_path).rows != draw(tmp_path, seed=7).rows


def test_few_rows_make_fewer_stretches(tmp_path: Path) -> None:
    publish_rows(tmp_path)
    trained = sum(10 + row for row in range(16))
    assert draw(tmp_path, stretches=99).ids.shape == (trained // 16, 16)
    assert draw(tmp_path, stretches=99, length=trained).ids.shape == (1, trained)
    with pytest.raises(RegrowError, match=f"have {trained} tokens, fewer than one stretch of calibration_length {trained + 1}"):
        draw(tmp_path, length=trained + 1)
