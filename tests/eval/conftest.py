"""One workspace and one run of it for all tests of this folder that only read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from stages.eval import STAGE
from tests.eval.workspace import make_workspace, replace
from tests.tiny import publish_bins, run_stage

OPTIONS = {"eval": {"choices": ["yes", "no"], "batch_size": 3, "samples": 3, "max_new_tokens": 6}}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten held-out rows of twelve; read only."""
    return make_workspace(tmp_path_factory.mktemp("eval"))


@pytest.fixture
def copy(workspace: Path, tmp_path: Path) -> Path:
    """A workspace of one's own."""
    shutil.copytree(workspace, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "data" / "eval", ignore_errors=True)
    return tmp_path / "copy"


@pytest.fixture
def nothing_held_out(copy: Path) -> Path:
    """A workspace of one's own whose rows are all trained: no model is opened, the report is made all the same."""
    replace(copy / "data", "packed", lambda: publish_bins(copy / "data", [list(range(12))]))
    return copy


@pytest.fixture(scope="session")
def evaluated(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/eval of a run with choices."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(workspace, folder)
    run_stage(STAGE, folder, OPTIONS)
    return folder / "data" / "eval"


@pytest.fixture(scope="session")
def metrics(evaluated: Path) -> Any:
    """metrics.json of that run."""
    return json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture
def read_parquet() -> Callable[[Path], list[dict[str, Any]]]:
    """Reader of Parquet files, as records."""

    def read(path: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return found

    return read


@pytest.fixture
def read_jsonl() -> Callable[[Path], list[dict[str, Any]]]:
    """Reader of JSON lines."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
