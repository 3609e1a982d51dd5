"""PoSE: positions that skip, by the seed alone, below the context length that is trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifact import open_artifact
from pipeline.bins import Bins
from pipeline.kept import KeptRows
from stages.pack import STAGE
from tests.tiny import publish_artifact, publish_tokens, run_stage


def pack(workspace: Path, rows: list[list[int]], **options: Any) -> Bins:
    publish_tokens(workspace / "data", [(ids, [1] * len(ids)) for ids in rows])
    publish_artifact(workspace / "data", "dedupe", lambda folder: KeptRows.all_of(len(rows)).save(folder / "index.arrow"))
    run_stage(STAGE, workspace, {"sequence_len": 32, "min_sample_len": 1, "use_pose": True, "pose_max_context_len": 64} | options)
    return Bins.load(workspace / "data/packed/train.arrow")


def jumps(bins: Bins) -> dict[int, list[tuple[int, int]]]:
    """(token, skipped positions) of each row, from its position ids."""
    found = {}
    for number in range(len(bins)):
        ends = np.cumsum(bins.seq_lengths(number))
        for (row, _, _), positions in zip(bins.spans(number), np.split(bins.position_ids(number), ends[:-1]), strict=True):
            assert positions[0] == 0 and positions[-1] < 64
            steps = np.diff(positions) - 1
            assert (steps >= 0).all()
            found[row] = [(int(at) + 1, int(steps[at])) for at in np.flatnonzero(steps)]
    return found


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.lists(st.integers(1, 32), min_size=1, max_size=20), st.sampled_from([None, 2, 3, 8]), st.integers(0, 2**32 - 1), st.booleans())
def test_positions_skip_between_equal_pieces_only(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chunks: int | None, seed: int, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("pose")
    options: dict[str, Any] = {"pose_num_chunks": chunks, "seed": seed, "sample_packing": packed}
    bins, again = (pack(folder / name, [[5] * length for length in lengths], **options) for name in "ab")
    found = jumps(bins)
    assert found == jumps(again) and sorted(found) == list(range(len(lengths)))
    for row, places in found.items():
        piece = lengths[row] // (chunks or 2)
        assert {at for at, _ in places} <= {piece * number for number in range(1, chunks or 2)}


def test_positions_skip_before_the_tokens_asked_for_and_never_first(tmp_path: Path) -> None:
    rows = [[7, 1, 7, 2, 3, 8, 1], [1, 2, 3], [8, 7]] * 20
    found = jumps(pack(tmp_path, rows, pose_split_on_token_ids=[7, 8]))
    for kind, allowed in enumerate(({2, 5}, set(), {1})):
        places = {at for row, jumped in found.items() if row % 3 == kind for at, _ in jumped}
        assert places == allowed


def test_all_distances_up_to_the_context_are_met_evenly(tmp_path: Path) -> None:
    rows = [[5] * 16] * 3000
    skipped = np.array([sum(by for _, by in places) for places in jumps(pack(tmp_path, rows)).values()])
    counts = np.bincount(skipped, minlength=49)
    assert len(counts) == 49 and counts.min() > 25 and counts.max() < 110  # 61 each, were they all the same


def test_skips_leave_rows_order_and_bins_as_they_are(tmp_path: Path) -> None:
    rows = [[5] * length for length in (9, 30, 4, 17, 8, 25, 3)]
    plain, skipping, other = (
        pack(tmp_path / name, rows, sample_packing=True, **more)
        for name, more in (("a", {"use_pose": False}), ("b", {}), ("c", {"pose_max_context_len": 64, "pose_num_chunks": 3}))
    )
    assert plain.skips is None and skipping.skips is not None
    assert plain.row.tolist() == skipping.row.tolist() == other.row.tolist()
    assert plain.offsets.tolist() == skipping.offsets.tolist()
    contents = [open_artifact(tmp_path / name / "data/packed").content for name in "abc"]
    assert len({content["content_digest"]["train"] for content in contents}) == 3
    assert contents[1]["train"]["skips"]["positions"] == int(skipping.skips.by.sum()) and "skips" not in contents[0]["train"]


def test_rows_as_long_as_the_context_and_held_out_rows_keep_their_positions(tmp_path: Path) -> None:
    bins = pack(tmp_path, [[5] * 32] * 6 + [[5] * 64], sequence_len=64, val_set_size=2, shuffle_merged_datasets=False)
    assert jumps(bins).keys() == {0, 1, 2, 3, 4}
    held_out = Bins.load(tmp_path / "data/packed/eval.arrow")
    assert held_out.skips is None and held_out.position_ids(1).tolist() == list(range(64))
    whole = pack(tmp_path / "whole", [[5] * 64], sequence_len=64)
    assert whole.position_ids(0).tolist() == list(range(64))
