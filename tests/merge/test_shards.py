"""The plan of files: every tensor once, in order, and no file over the limit unless one tensor alone is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.progress import Task
from stages.merge.checkpoint import DTYPES, Checkpoint, Form
from stages.merge.shards import plan_files, write_files

FORMS = st.dictionaries(
    st.text('abé."\\ 0', min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from([*DTYPES.values()]), st.lists(st.integers(0, 4), max_size=3)),
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(FORMS)
def test_a_file_is_what_safetensors_writes(forms: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = {name: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) for name, (dtype, shape) in forms.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(tensors, folder / "expected", metadata={"format": "pt"})
        described = {name: Form(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        write_files(folder, described, 10**6, tensors.__getitem__, Task("", None, ""))
        assert (folder / "model.safetensors").read_bytes() == (folder / "expected").read_bytes()


def test_rows_are_read_alone(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(12, dtype=torch.bfloat16).reshape(4, 3), "b": torch.arange(5.0)}
    save_file(tensors, tmp_path / "model.safetensors")
    stored = Checkpoint(tmp_path)
    for name, tensor in tensors.items():
        for part in (slice(0, 2), slice(1, 2), slice(2, 9), slice(None)):
            assert stored.rows(name, part).equal(tensor[part])


SIZES = st.dictionaries(st.text("abcdé.0123", min_size=1, max_size=40), st.integers(0, 3000), min_size=1, max_size=30)


@given(SIZES, st.integers(500, 6000))
def test_every_tensor_is_placed_once_in_order(sizes: dict[str, int], limit: int) -> None:
    assert [name for file in plan_files(sizes, limit) for name in file] == list(sizes)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(500, 6000))
def test_no_file_is_larger_than_asked(sizes: dict[str, int], limit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(
            folder,
            {name: Form(torch.uint8, (size,)) for name, size in sizes.items()},
            limit,
            lambda name: torch.zeros(sizes[name], dtype=torch.uint8),
            Task("", None, ""),
        )
        for file, members in zip(files, plan_files(sizes, limit), strict=True):
            assert (folder / file).stat().st_size <= limit or len(members) == 1
