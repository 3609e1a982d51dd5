"""The plan of files: every tensor once, in order, and no file over the limit unless one tensor alone is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.progress import Task
from stages.merge.shards import plan_files, write_files

SIZES = st.dictionaries(st.text("abcdé.0123", min_size=1, max_size=40), st.integers(0, 3000), min_size=1, max_size=30)


@given(SIZES, st.integers(500, 6000))
def test_every_tensor_is_placed_once_in_order(sizes: dict[str, int], limit: int) -> None:
    assert [name for file in plan_files(sizes, limit) for name in file] == list(sizes)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(500, 6000))
def test_no_file_is_larger_than_asked(sizes: dict[str, int], limit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder, sizes, limit, lambda tensor: torch.zeros(sizes[tensor], dtype=torch.uint8), Task("", None, ""))
        for file, members in zip(files, plan_files(sizes, limit), strict=True):
            assert (folder / file).stat().st_size <= limit or len(members) == 1
