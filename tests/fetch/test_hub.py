"""Hub ids: resolved to a commit, downloaded as files, and clear within seconds when the hub cannot help."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from tests.fetch.made import ROWS, fetch, link, write

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def repositories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands for the hub: ``model/<id>/`` and ``dataset/<id>/``; the library's functions read it."""
    root = tmp_path / "hub"

    class Api:
        def model_info(self, repo_id: str, **keywords: Any) -> SimpleNamespace:
            return self._info("model", repo_id, **keywords)

        def dataset_info(self, repo_id: str, **keywords: Any) -> SimpleNamespace:
            return self._info("dataset", repo_id, **keywords)

        def _info(self, kind: str, repo_id: str, revision: str | None, timeout: float) -> SimpleNamespace:
            assert timeout <= 10
            folder = root / kind / repo_id
            if not folder.is_dir():
                raise _http_error(errors.GatedRepoError if repo_id == "meta/gated" else errors.RepositoryNotFoundError)
            if revision not in (None, "main", COMMIT):
                raise _http_error(errors.RevisionNotFoundError)
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(repo_id: str, name: str, *, repo_type: str, revision: str, local_dir: Path, etag_timeout: float) -> str:
        assert revision == COMMIT
        target = local_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copyfile(root / repo_type / repo_id / name, target))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


def _http_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    return kind("404 Client Error", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]


def entry(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "type": "completion", **more}


def test_a_model_is_resolved_downloaded_and_recorded(repositories: Path, tmp_path: Path, model_folder: Path) -> None:
    shutil.copytree(model_folder, repositories / "model" / "some" / "model")
    write(repositories / "model" / "some" / "model" / "README.md")
    link(tmp_path / "project", "train-00", write(tmp_path / "rows.jsonl"))
    artifacts, _, said = fetch(tmp_path / "project", base_model="some/model")
    assert artifacts["base"].files["model.safetensors"]["sha256"] == digest_file(model_folder / "model.safetensors")
    assert artifacts["base"].content["revision"] == COMMIT
    assert f"base_model some/model: using commit {COMMIT}. revision_of_model: {COMMIT} pins it." in said
    _, _, said = fetch(tmp_path / "project", base_model="some/model", revision_of_model=COMMIT)
    assert said == []


def test_a_dataset_gives_its_training_files_and_its_commit(repositories: Path, workspace: Path) -> None:
    for name in ("data/train-00.jsonl", "data/test-00.jsonl", "dataset_infos.json", "README.md"):
        write(repositories / "dataset" / "some" / "rows" / name)
    artifacts, _, said = fetch(workspace, datasets=[entry("rows.jsonl"), entry("some/rows")])
    source = artifacts["raw"].content["sources"][1]
    assert (source["file"], source["format"], source["revision"]) == ("data/train-00.jsonl", "jsonl", COMMIT)
    assert (artifacts["raw"].path / "train-01" / "data" / "train-00.jsonl").read_text() == ROWS
    assert any("not on data/test-00.jsonl" in line for line in said)


def test_a_dataset_without_rows_that_can_be_read_lists_what_is_there(repositories: Path, workspace: Path) -> None:
    write(repositories / "dataset" / "some" / "rows" / "data" / "train.parquet")
    write(repositories / "dataset" / "some" / "rows" / "README.md")
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.path 'some/rows' has no \.jsonl.*\n.*data/train\.parquet.*data_files"):
        fetch(workspace, datasets=[entry("rows.jsonl"), entry("some/rows")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_model": "some/nothing"}, r"base_model: the hub's model 'some/nothing' is not there.*\n.*id"),
        ({"base_model": "meta/gated"}, r"base_model: the hub's model 'meta/gated' is gated.*\n.*HF_TOKEN"),
        ({"base_model": "some/model", "revision_of_model": "v9"}, r"'some/model' at revision 'v9' is not there.*\n.*tag"),
    ],
)
def test_what_the_hub_refuses_is_one_message(
    repositories: Path, tmp_path: Path, model_folder: Path, options: dict[str, str], message: str
) -> None:
    shutil.copytree(model_folder, repositories / "model" / "some" / "model")
    link(tmp_path / "project", "train-00", write(tmp_path / "rows.jsonl"))
    with pytest.raises(RegrowError, match=message):
        fetch(tmp_path / "project", **options)


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_it_fails_at_once(workspace: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    """The library itself, switched off by its own setting, and at an address where nothing listens."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.path: the hub's dataset 'some/rows' cannot be had: .*\n.*pypi:"):
        fetch(workspace, datasets=[entry("rows.jsonl"), entry("some/rows")])
    assert time.monotonic() - started < 10
