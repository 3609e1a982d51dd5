"""The folder of tokenized blocks: what others do to it never reaches an artifact, and they may use it at the same time."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RegrowError
from pipeline.tokens import TokenRows
from stages.tokenize import cache as module
from stages.tokenize.cache import BlockCache, Tokens
from tests.tokenize.test_blocks import chats, run

KEYS = [f"{number:064x}" for number in range(4)]


def tokens(value: int, count: int = 100) -> Tokens:
    rows = TokenRows(np.dtype(np.uint16))
    rows.add(np.full(count, value), np.ones(count, np.uint8), 0, 0)
    return Tokens(rows.batch(), [(1, "blank")], 2)


def first_id(found: Tokens | None) -> int:
    assert found is not None and found.batch is not None
    return int(found.batch["input_ids"][0].as_py()[0])


def test_a_block_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    with BlockCache(tmp_path) as cache:
        cache.save(KEYS[0], tokens(7))
        cache.save(KEYS[1], Tokens(None, [(0, "no trained token")]))
        found, empty = cache.load(KEYS[0]), cache.load(KEYS[1])
    assert found is not None and first_id(found) == 7 and (found.rejected, found.slow) == ([(1, "blank")], 2)
    assert empty is not None and empty.batch is None and empty.rejected == [(0, "no trained token")]


@pytest.mark.parametrize("harm", ["cut", "empty", "other bytes", "another block's", "a folder"])
def test_a_file_that_is_not_what_was_kept_counts_as_missing(tmp_path: Path, harm: str) -> None:
    with BlockCache(tmp_path) as cache:
        for value, key in enumerate(KEYS[:2]):
            cache.save(key, tokens(value))
        path, other = (next(tmp_path.rglob(f"{key[2:]}.tokens")) for key in KEYS[:2])
        if harm == "a folder":
            path.unlink()
            path.mkdir()
        elif harm == "another block's":
            shutil.copy(other, path)
        else:
            path.write_bytes({"cut": path.read_bytes()[:-40], "empty": b"", "other bytes": b"?" * 500}[harm])
        assert cache.load(KEYS[0]) is None
        assert first_id(cache.load(KEYS[1])) == 1


def test_what_was_used_least_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    with BlockCache(tmp_path) as cache:
        for value, key in enumerate(KEYS):
            cache.save(key, tokens(value))
            os.utime(next(tmp_path.rglob(f"{key[2:]}.tokens")), (value, value))
        (tmp_path / "00" / "left.partial").write_bytes(b"x")
        cache.prune([KEYS[0]], 0)
        assert [cache.has(key) for key in KEYS] == [True, False, False, False]
        assert not list(tmp_path.rglob("*.partial"))


def test_nothing_is_removed_while_another_run_uses_the_folder(tmp_path: Path) -> None:
    with BlockCache(tmp_path) as cache:
        cache.save(KEYS[0], tokens(1))
        (tmp_path / "00" / "somebodys.partial").write_bytes(b"x")
        with BlockCache(tmp_path) as other:
            other.prune([], 0)
            assert cache.has(KEYS[0]) and list(tmp_path.rglob("*.partial"))
        cache.prune([], 0)
        assert not cache.has(KEYS[0])


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file can be longer than ``most`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        BlockCache(tmp_path) as cache,
        small_disk(5000),
        pytest.raises(RegrowError, match=r"cannot be kept in .*\n.*dataset_prepared_path"),
    ):
        cache.save(KEYS[0], tokens(1, 50_000))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".gitignore"]


def test_a_folder_that_cannot_be_written_still_gives_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = chats(range(60))
    first, _ = run(tmp_path / "first", rows, cache=tmp_path / "cache")

    def refuse(*arguments: Any, **further: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "tempfile", SimpleNamespace(NamedTemporaryFile=refuse))
    monkeypatch.setattr(module, "os", SimpleNamespace(**vars(os) | {"utime": refuse, "open": refuse}))
    again, _ = run(tmp_path / "again", rows, cache=tmp_path / "cache")
    assert again == first
    with pytest.raises(RegrowError, match=r"cannot be kept in .*Permission denied"):
        run(tmp_path / "more", chats(range(70)), cache=tmp_path / "cache")
