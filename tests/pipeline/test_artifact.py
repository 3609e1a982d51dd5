"""Artifacts are published whole, verified on opening, and equal content has an equal digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.artifact import Artifact, open_artifact
from pipeline.errors import RegrowError
from pipeline.options.views import DedupeOptions
from pipeline.stage import Job, Stage
from tests.tiny import publish_artifact, run_stage


def make(data: Path, text: str = "hello") -> Artifact:
    return publish_artifact(data, "thing", lambda folder: (folder / "a.txt").write_text(text), rows=1)


def test_equal_content_has_an_equal_digest_and_nothing_of_the_place_is_in_it(tmp_path: Path) -> None:
    first, second, other = make(tmp_path / "x"), make(tmp_path / "elsewhere"), make(tmp_path / "z", "hullo")
    assert first.digest == second.digest != other.digest
    assert (tmp_path / "x/thing/manifest.json").read_bytes() == (tmp_path / "elsewhere/thing/manifest.json").read_bytes()


@pytest.mark.parametrize("damage", ["edit", "delete", "add", "truncate", "no manifest", "bad manifest"])
def test_a_damaged_artifact_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    folder = make(tmp_path).path
    {
        "edit": lambda: (folder / "a.txt").write_text("hullo"),
        "delete": lambda: (folder / "a.txt").unlink(),
        "add": lambda: (folder / "b.txt").write_text(""),
        "truncate": lambda: (folder / "a.txt").write_text(""),
        "no manifest": lambda: (folder / "manifest.json").unlink(),
        "bad manifest": lambda: (folder / "manifest.json").write_text(json.dumps({"files": {}})),
    }[damage]()
    with pytest.raises(RegrowError, match=r"thing.*(differs|missing|not in|cannot be read)"):
        open_artifact(folder)


def test_a_link_is_no_part_of_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="symbolic link"):
        publish_artifact(tmp_path, "thing", lambda folder: (folder / "link").symlink_to("/etc/hostname"))


def test_a_stage_that_fails_publishes_nothing_and_the_next_run_starts_fresh(tmp_path: Path) -> None:
    fail = True

    def run(job: Job[DedupeOptions]) -> dict[str, int]:
        draft = job.outputs["dedupe"].path
        assert not list(draft.iterdir())
        (draft / "half").write_text("written")
        (job.scratch / "kept").touch()
        if fail:
            raise RuntimeError("killed")
        return {}

    publish_artifact(tmp_path / "data", "tokens", lambda folder: None)
    stage = Stage("dedupe", DedupeOptions, ("tokens",), ("dedupe",), run)
    with pytest.raises(RuntimeError):
        run_stage(stage, tmp_path)
    assert not (tmp_path / "data/dedupe").exists() and (tmp_path / ".regrow/dedupe/kept").exists()
    fail = False
    outputs, _ = run_stage(stage, tmp_path)
    assert list(outputs["dedupe"].files) == ["half"] and not (tmp_path / ".regrow/dedupe").exists()
    assert outputs["dedupe"].inputs == {"tokens": open_artifact(tmp_path / "data/tokens").digest}
