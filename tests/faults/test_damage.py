"""Bytes that change where nobody looks: in an artifact, its manifest, DVC's cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.project import Built, flip, stored

pytestmark = pytest.mark.slow


def test_a_flipped_byte_in_a_shard_stops_who_reads_it(kept: Built) -> None:
    """Size and time of change are as before, so that DVC does not see it."""
    before = kept.lock()
    shard = kept.root / "data/tokens/tokens-00000.arrow"
    assert kept.attempt("dvc", "status").code == 0
    flip(shard)
    ending = kept.attempt("regrow", "dedupe", "--force")
    assert ending.code == 2 and "Traceback" not in ending.output
    assert str(shard) in ending.error and "is not what its stage wrote" in ending.error and "Remove" in ending.error
    follow(kept, "tokens")
    assert kept.attempt("regrow", "dedupe", "--force").code == 0 and kept.lock() == before


def test_a_damaged_cache_does_not_bring_the_damage_back(kept: Built) -> None:
    """DVC takes a read-only file of its cache for whole, and would restore the flipped byte for ever."""
    before = kept.lock()
    listing = stored(kept.root / ".dvc/cache", before["tokenize"]["outs"][0]["md5"])
    shard = next(entry for entry in json.loads(listing.read_text()) if entry["relpath"].startswith("tokens-"))
    flip(stored(kept.root / ".dvc/cache", shard["md5"]))
    follow(kept, "tokens")
    ending = kept.attempt("regrow", "dedupe", "--force")
    assert ending.code == 2 and "DVC's cache held the same damage" in ending.error, ending.output
    follow(kept, "tokens")
    assert kept.attempt("regrow", "dedupe", "--force").code == 0 and kept.lock() == before


def follow(project: Built, artifact: str) -> None:
    """Do as the message says."""
    path = project.root / "data" / artifact
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    ending = project.attempt("dvc", "repro", "dedupe")
    assert ending.code == 0 and path.exists(), ending.output


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b'{"artifact": "tokens"}',
        b'{"artifact": "", "content": {}, "inputs": {}, "files": {"a": 1}}',
    ],
    ids=["empty", "cut", "not text", "a list", "a string", "no files", "files without digests"],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    from pipeline.artifact import DamagedArtifact, open_artifact

    (tmp_path / "manifest.json").write_bytes(content)
    for verify in (True, False):
        with pytest.raises(DamagedArtifact, match=r"manifest\.json cannot be read") as caught:
            open_artifact(tmp_path, verify=verify)
        assert "Remove" in str(caught.value) and "dvc repro" in str(caught.value)


def test_a_damaged_manifest_comes_back(kept: Built) -> None:
    before = kept.lock()
    (kept.root / "data/packed/manifest.json").write_text("{")
    assert kept.attempt("dvc", "repro", "pack").code == 0
    assert kept.lock() == before and json.loads((kept.root / "data/packed/manifest.json").read_text())
    assert not list((kept.root / "data/.partial").iterdir())


@pytest.mark.parametrize("left", [0, 300], ids=["empty", "cut"])
def test_a_lock_that_a_kill_cut_short_is_mended(kept: Built, left: int) -> None:
    """DVC writes dvc.lock in place; on an empty one it refuses every command."""
    before, lock = kept.lock(), kept.root / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[:left])
    ending = kept.attempt("regrow", "eval")
    assert ending.code == 0 and "Traceback" not in ending.output, ending.output
    assert kept.lock() == before and "Running stage 'train'" not in ending.output
    assert left or "was cut short" in ending.output
