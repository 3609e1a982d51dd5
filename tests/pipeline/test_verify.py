"""`regrow verify` on a project in which all eight stages ran: whichever byte is changed, the file it is in is named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.commands.doors import STAGES, open_stage
from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.progress import Progress
from pipeline.project import Project
from pipeline.verification.verify import Verified, verify
from tests.pipeline.small import run, small_project

pytestmark = pytest.mark.slow

ALL = [open_stage(name) for name in STAGES]
ARTIFACTS = [name for stage in ALL for name in stage.writes]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small_project(tmp_path_factory.mktemp("verified") / "project")
    run(root, "dvc", "repro")
    return root


def check(root: Path, target: str | None = None) -> Verified:
    return verify(Project(root), ALL, target, Progress())


def files_of(root: Path) -> list[Path]:
    """Every file that verify answers for, and that is somebody's own bytes."""
    found = [path for name in ARTIFACTS for path in sorted((root / "data" / name).rglob("*")) if path.is_file()]
    return [*found, *sorted((root / "data/options").iterdir()), *sorted((root / "data/sources").rglob("*.*")), root / "dvc.lock"]


def harder_to_tell(root: Path) -> list[Path]:
    """Of every artifact the manifest and the largest file, where it has one; the sources; dvc.lock."""
    folders = [root / "data" / name for name in ARTIFACTS]
    largest = [max(folder.rglob("*"), key=lambda path: path.stat().st_size * path.is_file()) for folder in folders]
    manifests = [folder / "manifest.json" for folder in folders]
    return [*dict.fromkeys([*manifests, *largest]), *sorted((root / "data/sources").rglob("*.*")), root / "dvc.lock"]


@contextmanager
def changed(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """While the block runs, ``path`` (or what it leads to) has other bytes. The file is a new one: caches keep theirs."""
    place, before = path.resolve(), path.read_bytes()
    place.unlink()
    place.write_bytes(change(before))
    try:
        yield
    finally:
        place.write_bytes(before)


def flip(chance: random.Random) -> Callable[[bytes], bytes]:
    """One bit or more of one byte; of an empty file, a byte that was not there."""

    def change(data: bytes) -> bytes:
        if not data:
            return b"x"
        at = chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]

    return change


def name_of(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def test_what_nobody_touched_is_verified(project: Path) -> None:
    found = check(project)
    assert found.broken == []
    assert [row.what for row in found.rows] == ["data/options", "data/sources", *(f"data/{name}" for name in ARTIFACTS)]
    assert {row.state for row in found.rows} == {"verified"}
    sizes = {row.what: (row.files, row.size) for row in found.rows}
    tokens = list((project / "data/tokens").iterdir())
    assert sizes["data/tokens"] == (len(tokens), sum(path.stat().st_size for path in tokens))
    assert "verified" in run(project, "regrow", "verify")


@pytest.mark.parametrize("cache", ["with DVC's cache", "without"])
def test_a_byte_changed_in_any_file_is_found_and_the_file_named(project: Path, cache: str) -> None:
    """Without the cache, which lists the files of every folder, manifests have to tell which file it is."""
    hidden = project / ".dvc/hidden"
    if cache == "without":
        (project / ".dvc/cache").rename(hidden)
    chance, tried = random.Random(3), 0
    try:
        for path in files_of(project) if cache != "without" else harder_to_tell(project):
            with changed(path, flip(chance)):
                found = check(project)
            assert found.broken, f"{path} was changed, and nothing was found"
            assert found.broken[0].file == name_of(project, path), found.broken[0]
            tried += 1
    finally:
        if hidden.exists():
            hidden.rename(project / ".dvc/cache")
    assert tried >= (60 if cache != "without" else 2 * len(ARTIFACTS) - 2) and check(project).broken == []


def test_a_byte_changed_anywhere_in_dvc_lock_is_found(project: Path) -> None:
    """Every 131st byte, so that over many entries each kind of line has its turn: blanks, names, digests, sizes, line ends."""
    lock, chance = project / "dvc.lock", random.Random(4)
    text = lock.read_bytes()
    for at in range(0, len(text), 131):
        other = text[:at] + bytes([text[at] ^ 1 << chance.randrange(8)]) + text[at + 1 :]
        with changed(lock, lambda _, other=other: other):  # type: ignore[misc]
            found = check(project)
        assert found.broken, f"byte {at}, in {text[at - 30 : at + 30]!r}"
        assert "dvc.lock" in found.broken[0].problem, found.broken[0]
    assert check(project).broken == []


@pytest.mark.parametrize("artifact", ["raw", "quantized", "eval"])
def test_a_file_too_many_or_too_few_is_named(project: Path, artifact: str) -> None:
    folder = project / "data" / artifact
    (folder / "more.txt").write_text("not ours")
    assert check(project).broken[0].file == f"data/{artifact}/more.txt"
    (folder / "more.txt").unlink()
    victim = next(path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
    moved = victim.rename(project / "moved")
    found = check(project).broken[0]
    moved.rename(victim)
    assert found.file == name_of(project, victim) and "missing" in found.problem
    moved = folder.rename(project / "moved")
    found = check(project).broken[0]
    moved.rename(folder)
    assert found.file == f"data/{artifact}" and "is not there" in found.problem and "dvc checkout" in found.remedy
    assert check(project).broken == []


def test_the_first_broken_link_is_the_first_in_the_pipeline(project: Path) -> None:
    both = flip(random.Random(5))
    with changed(project / "data/eval/metrics.json", both), changed(project / "data/tokens/tokens-00000.arrow", both):
        found = check(project)
        assert found.broken[0].file == "data/tokens/tokens-00000.arrow"
        assert {row.what for row in found.rows if row.state == "broken"} >= {"data/tokens", "data/eval"}
        assert next(row.state for row in found.rows if row.what == "data/raw") == "verified"
        output = run(project, "regrow", "verify", code=1)
        assert "The first broken link is in tokenize: data/tokens/tokens-00000.arrow" in output
        assert "data/eval/metrics.json" in output[output.index("After it:") :]
        assert check(project, "fetch").broken == [], "fetch does not stand on tokenize"
        assert check(project, "dedupe").broken[0].stage == "tokenize"
    with changed(project / "data/eval/metrics.json", both):
        assert check(project, "quantize").broken == [] and run(project, "regrow", "verify", "quantize")


def test_a_changed_params_file_is_named(project: Path) -> None:
    with changed(project / "params.yaml", lambda data: data.replace(b"seed: 42", b"seed: 43")):
        first = check(project).broken[0]
    assert (first.stage, first.file) == ("configure", "params.yaml") and "dvc repro" in first.remedy


def test_a_pair_that_was_made_to_fit_is_found(project: Path, tmp_path: Path) -> None:
    """`dvc commit --force` records whatever is there; manifests still say what an artifact was made from."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    path = copy / "data/dedupe/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["tokens"] = "0" * 64
    path.write_text(canonical_json(manifest))
    run(copy, "dvc", "commit", "--force", "dedupe", "pack")
    first = check(copy).broken[0]
    assert (first.stage, first.file) == ("dedupe", "data/dedupe/manifest.json") and "data/tokens" in first.problem
    assert first.remedy == "Run: dvc repro dedupe"


def test_what_has_not_run_is_not_broken_and_not_verified(tmp_path: Path) -> None:
    root = small_project(tmp_path / "new")
    assert "nothing has run" in check(root).broken[0].problem
    run(root, "dvc", "repro", "tokenize")
    found = check(root)
    assert found.broken == []
    assert {row.what for row in found.rows if row.state == "not run"} == {f"data/{name}" for name in ARTIFACTS[ARTIFACTS.index("dedupe") :]}
    with pytest.raises(RegrowError, match="pack has not run"):
        check(root, "pack")
    (root / "data/sources/train-00/rows.jsonl").resolve().write_text('{"messages": []}\n')
    shutil.rmtree(root / "data/metrics")  # as after `dvc pull`: then the folder is all that can be named
    assert check(root).broken[0].file == "data/sources"
    assert "is not a stage" in run(root, "regrow", "verify", "merged", code=2)
