"""What opens a door is in no byte that the pipeline writes, whichever way it was given: a whole run, and then every file is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.test_pipeline import ALL, Clone, stages_run

pytestmark = pytest.mark.slow

MARK = "s3cr3t-dc0ffee"
"""Begins every secret that is planted."""

ENVIRONMENT = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "COMET_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING"),
    *("GOOGLE_API_KEY", "OPENAI_API_KEY", "OCI_CLI_PASS_PHRASE", "REGROW_SOMETHING_ELSE"),
)
PARAMS = {
    "comet_api_key": f"{MARK}-comet-option",
    "comet_experiment_config": {"api_key": f"{MARK}-comet-config"},
    "mlflow_tracking_uri": f"http://user:{MARK}-mlflow@127.0.0.1:9",
    "max_steps": 2,
    "save_steps": 2,
    "quantize": ["q8_0"],
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Secrets in every place that programs of this field look into: variables, the hub's file, ~/.netrc, ~/.aws."""
    home = tmp_path / "home"
    for name, text in {
        ".netrc": f"machine api.wandb.ai login user password {MARK}-netrc\n",
        ".aws/credentials": f"[default]\naws_access_key_id = {MARK}-id\naws_secret_access_key = {MARK}-key\n",
        ".cache/huggingface/token": f"{MARK}-hub-file",
        ".comet.config": f"[comet]\napi_key = {MARK}-comet-file\n",
        ".gitconfig": "[user]\nname = a\nemail = a@b.c\n",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, f"{MARK}-{name}")
    for name, value in {"HOME": str(home), "HF_HOME": str(home / ".cache" / "huggingface"), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{MARK}-uri@127.0.0.1:9")
    return home


def test_a_secret_reaches_no_artifact_no_cache_and_no_log(planted: Path, tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    clone.write(PARAMS)
    printed = clone.run("dvc", "repro")
    assert stages_run(printed) == ALL
    for command in (("regrow", "check", "--resolved"), ("regrow", "plan"), ("regrow", "explain", "comet_api_key"), ("dvc", "status")):
        process = clone.start(*command)
        printed += process.communicate()[0]
    assert MARK not in printed
    assert MARK in (clone.root / "params.yaml").read_text(encoding="utf-8")  # where it was put, and nowhere else
    _commit_all_but(clone.root, "params.yaml")
    holding = [name for name, raw in {**_files(clone.root), **_git_objects(clone.root)}.items() if MARK.encode() in raw]
    assert holding == ["params.yaml"]
    assert {"data", ".dvc", ".regrow", "dvc.lock"} <= {path.name for path in clone.root.iterdir()}


def _files(root: Path) -> Mapping[str, bytes]:
    """Every file of the project by its name, those of DVC and the caches too."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and ".git" not in path.relative_to(root).parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(found)}


def _git_objects(root: Path) -> Mapping[str, bytes]:
    """Every object of git, unpacked: on the disk they are compressed."""
    return dict(_objects(root))


def _objects(root: Path) -> Iterator[tuple[str, bytes]]:
    listing = ["git", "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]
    for line in subprocess.run(listing, cwd=root, capture_output=True, check=True, text=True).stdout.splitlines():
        name, kind = line.split()
        yield f"git {name}", subprocess.run(["git", "cat-file", kind, name], cwd=root, capture_output=True, check=True).stdout


def _commit_all_but(root: Path, left_out: str) -> None:
    for command in (("add", "--all", ".", f":!{left_out}"), ("commit", "--quiet", "--message", "all")):
        subprocess.run(["git", *command], cwd=root, check=True, env=os.environ | {"GIT_CONFIG_NOSYSTEM": "1"})
