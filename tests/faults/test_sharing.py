"""What one has built, others get: over a folder and over S3, nothing runs twice, and a byte that changed on the way is noticed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.project import Built, flip, stored
from tests.test_pipeline import stages_run

pytestmark = pytest.mark.slow

IDENTITY = ("-c", "user.name=regrow", "-c", "user.email=regrow@localhost")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this computer that speaks S3 and has a bucket named store."""
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    import boto3

    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="store")
    yield f"http://{host}:{port}"
    server.stop()


def publish(project: Built, *remote: str) -> None:
    """Everything of a project to its remote, as docs/sharing.md says: sources by `dvc add`, outputs, run cache; the rest by git."""
    for command in ("dvc add model rows.jsonl", " ".join(remote), "dvc remote modify store verify true", "git add --all"):
        project.run(*command.split())
    project.run("git", *IDENTITY, "commit", "--quiet", "--message", "built")
    project.run("dvc", "push", "--run-cache")


def cloned(project: Built, place: Path) -> Built:
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(place)], check=True)
    return Built.at(place)


def test_a_clone_gets_all_from_a_folder_and_runs_nothing(project: Built, tmp_path: Path) -> None:
    store = tmp_path / "store"
    publish(project, "dvc", "remote", "add", "--default", "store", str(store))
    clone = cloned(project, tmp_path / "clone")
    clone.run("dvc", "pull")
    assert stages_run(clone.run("dvc", "repro")) == []
    assert clone.lock() == project.lock()

    model = next(entry for entry in listing(store, project) if entry["relpath"] == "model.safetensors")
    flip(stored(store, model["md5"]))
    checked, unchecked = cloned(project, tmp_path / "checked"), cloned(project, tmp_path / "unchecked")
    pulled = checked.attempt("dvc", "pull")
    assert pulled.code == 1 and "data/merged" in pulled.output and "Traceback" not in pulled.output
    assert stages_run(checked.run("dvc", "repro")) == ["merge"], "what did not come whole is made anew"
    assert checked.lock() == project.lock()

    unchecked.run("dvc", "remote", "modify", "store", "verify", "false")
    unchecked.run("dvc", "pull")
    assert stages_run(unchecked.run("dvc", "repro")) == [], "DVC believes what it fetched"
    verified = unchecked.attempt("regrow", "verify")
    assert verified.code == 1 and "data/merged/model.safetensors" in verified.output and "Traceback" not in verified.output
    read = unchecked.attempt("regrow", "quantize", "--force")
    assert read.code == 2 and "data/merged/model.safetensors is not what its stage wrote" in read.error, read.output


def listing(store: Path, project: Built) -> list[dict[str, str]]:
    """The files of data/merged, as the remote lists them."""
    listed: list[dict[str, str]] = json.loads(stored(store, project.lock()["merge"]["outs"][0]["md5"]).read_text())
    return listed


def test_a_clone_gets_all_from_s3_and_what_others_tried_from_the_run_cache(project: Built, tmp_path: Path, s3: str) -> None:
    project.run("dvc", "remote", "add", "--default", "store", "s3://store/regrow")
    publish(project, "dvc", "remote", "modify", "store", "endpointurl", s3)
    project.write({"sequence_len": 48})
    assert stages_run(project.run("dvc", "repro", "pack")) == ["pack"]
    project.run("dvc", "push", "--run-cache")

    clone = cloned(project, tmp_path / "clone")
    clone.run("dvc", "pull")
    assert stages_run(clone.run("dvc", "repro")) == []
    clone.write({"sequence_len": 48})
    clone.run("dvc", "fetch", "--run-cache")
    assert stages_run(clone.run("dvc", "repro", "--pull", "pack")) == []
    assert clone.lock()["pack"] == project.lock()["pack"]
