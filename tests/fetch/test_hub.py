"""Hub ids: resolved to a commit, downloaded as files, and clear within seconds when the hub cannot help."""

from __future__ import annotations

import hashlib
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
from stages.fetch import transfer
from tests.fetch.made import ROWS, fetch, link, write
from tests.fetch.rows import fetch_rows, write_lines

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

        def _info(
            self, kind: str, repo_id: str, revision: str | None, timeout: float, files_metadata: bool, token: bool | None
        ) -> SimpleNamespace:
            assert timeout <= 10 and files_metadata
            if token:
                raise errors.LocalTokenNotFoundError("Token is required, but no token found.")
            folder = root / kind / repo_id
            if not folder.is_dir():
                raise _http_error(errors.GatedRepoError if repo_id == "meta/gated" else errors.RepositoryNotFoundError)
            if revision not in (None, "main", COMMIT):
                raise _http_error(errors.RevisionNotFoundError)
            return SimpleNamespace(sha=COMMIT, siblings=[_sibling(folder, path) for path in folder.rglob("*") if path.is_file()])

    def download(repo_id: str, name: str, *, repo_type: str, revision: str, local_dir: Path, tqdm_class: Any, **keywords: Any) -> str:
        assert revision == COMMIT and keywords["etag_timeout"] <= 10
        if failures:
            raise failures.pop(0)
        target = local_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = (root / repo_type / repo_id / name).read_bytes()
        with tqdm_class(total=len(content), initial=0, unit="B", name="some bar") as bar:
            bar.update(len(content))
        target.write_bytes(damaged.pop(0) if damaged else content)
        return str(target)

    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


failures: list[Exception] = []
"""Raised by the next downloads."""

damaged: list[bytes] = []
"""What the next downloads bring instead."""


def _sibling(folder: Path, path: Path) -> SimpleNamespace:
    """Files of ten bytes and more are large ones, which the hub knows by SHA-256, the others by their name in Git."""
    content = path.read_bytes()
    lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if len(content) > 9 else None
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return SimpleNamespace(rfilename=path.relative_to(folder).as_posix(), size=len(content), lfs=lfs, blob_id=blob)


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
    assert (source["file"], source["revision"]) == ("data/train-00.jsonl", COMMIT)
    assert (artifacts["raw"].path / source["rows_file"]).read_text() == ROWS
    assert any("not on data/test-00.jsonl" in line for line in said)


def test_configurations_splits_and_slices_of_a_dataset(repositories: Path, tmp_path: Path) -> None:
    root = repositories / "dataset" / "some" / "rows"
    for name in ("en/train.jsonl", "en/test.jsonl", "de/train.jsonl"):
        write_lines(root / name, [{"n": f"{name} {number}"} for number in range(4)])
    fetched = fetch_rows(tmp_path, "some/rows", name=["de", "en"], split="train[:2]", revision="main")
    assert [row["n"] for row in fetched.rows] == ["de/train.jsonl 0", "de/train.jsonl 1", "en/train.jsonl 0", "en/train.jsonl 1"]
    assert {source["revision"] for source in fetched.sources} == {COMMIT} and fetched.numbers == [[0, 1], [0, 1]]
    assert fetched.said == [f"datasets[0].path some/rows: using commit {COMMIT}. datasets[0].revision: {COMMIT} pins it."]


@pytest.mark.parametrize("content", ["{}\n{}\n{}\n{}\n{}\n", "{}\n"])
def test_a_download_that_is_not_what_the_hub_says_is_made_again(repositories: Path, tmp_path: Path, content: str) -> None:
    write(repositories / "dataset" / "some" / "rows" / "train.jsonl", content)
    damaged[:] = [content.replace("}", "]").encode(), content.encode()[:-1]]
    assert fetch_rows(tmp_path, "some/rows").raw == [content.encode()]
    damaged[:] = [b"rubbish"] * 4
    with pytest.raises(
        RegrowError, match=r"train\.jsonl of the hub's dataset 'some/rows' cannot be had: size or digest is not what the hub"
    ):
        fetch_rows(tmp_path, "some/rows")


def test_a_broken_connection_is_tried_again(repositories: Path, tmp_path: Path) -> None:
    write(repositories / "dataset" / "some" / "rows" / "train.jsonl")
    failures[:] = [ConnectionResetError("reset"), errors.LocalEntryNotFoundError("cannot reach")]
    fetched = fetch_rows(tmp_path, "some/rows")
    assert fetched.raw == [ROWS.encode()] and sum("trying again" in text for text in fetched.said) == 2


def test_a_token_that_is_asked_for_and_not_there(repositories: Path, tmp_path: Path) -> None:
    write(repositories / "dataset" / "some" / "rows" / "train.jsonl")
    with pytest.raises(RegrowError, match=r"hf_use_auth_token is true, and no token is stored here.*\n.*hf auth login"):
        fetch_rows(tmp_path, "some/rows", more={"hf_use_auth_token": True})


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
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.path: the hub's dataset 'some/rows' cannot be had: .*\n.*pypi:"):
        fetch(workspace, datasets=[entry("rows.jsonl"), entry("some/rows")])
    assert time.monotonic() - started < 10
