"""A project in which everything ran once and whose last four stages take a moment, and edits of it: what tests of `regrow plan` share.

DVC, configure, the runner, fetch, tokenize, dedupe and pack are the real ones. The others write down what they were given.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pipeline.cli import app
from tests.test_pipeline import PARAMS, Clone, row

DATA = ["fetch", "tokenize", "dedupe", "pack"]
QUICK = {
    "train": ("TrainOptions", ("base", "tokenizer", "tokens", "packed"), "trained"),
    "merge": ("MergeOptions", ("base", "trained"), "merged"),
    "quantize": ("QuantizeOptions", ("merged", "tokens", "packed"), "quantized"),
    "eval": (
        "EvalOptions",
        ("base", "benchmark", "tokenizer", "tokens", "dedupe", "packed", "trained", "merged", "quantized"),
        "eval",
    ),
}
ALL = [*DATA, *QUICK]

_BODY = '''"""Writes down what it was given."""

from pipeline.digest import canonical_json
from pipeline.options.views import {options}
from pipeline.stage import Stage


{more}def run(job):
    given = {{"options": job.options.canonical(), "inputs": {{name: found.digest for name, found in job.inputs.items()}}}}
    (job.outputs["{writes}"].path / "given.json").write_text(canonical_json(given))
    return {{"steps": 6, "tokens": 600, "epochs": 2.0}}


STAGE = Stage("{stage}", {options}, reads={reads!r}, writes=("{writes}",), run=run)
'''


_DRAWING = """def draw():
    import matplotlib


"""


@dataclass(frozen=True)
class Outcome:
    """What `dvc repro` did: stages that ran, and those whose outputs it took from a cache."""

    ran: list[str]
    cached: list[str]


class Planned(Clone):
    """A project with a copy of itself as it was when everything had run."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent)
        for stage, (options, reads, writes) in QUICK.items():
            text = _BODY.format(stage=stage, options=options, reads=reads, writes=writes, more=_DRAWING if stage == "eval" else "")
            (self.root / f"stages/{stage}/__init__.py").write_text(text, encoding="utf-8")
        assert self.repro() == ALL
        self.kept = parent / "kept"
        for name in ("data", "dvc.lock", "params.yaml", "dvc.yaml", "requirements.lock", "stages"):
            _copy(self.root / name, self.kept / name)

    def restore(self) -> None:
        """Everything as it was when all had run, but for the caches."""
        for path in self.kept.iterdir():
            _remove(self.root / path.name)
            _copy(path, self.root / path.name)
        for path in self.root.glob("*.dist-info"):
            shutil.rmtree(path)
        self.rows.write_text("".join(row(number) for number in range(40)), encoding="utf-8")

    def plan(self, code: int = 3) -> dict[str, dict[str, Any]]:
        """Stages of `regrow plan --format json`, by name. The command is called in this process, which spares a second for each."""
        with chdir(self.root):
            done = CliRunner().invoke(app, ["plan", "--format", "json"])
        assert done.exit_code == code, done.output
        found = json.loads(done.stdout)
        assert found["work"] == (code == 3)
        return {entry["stage"]: entry for entry in found["stages"]}

    def outcome(self, *arguments: str) -> Outcome:
        """Run `dvc repro`."""
        output = self.run("dvc", "repro", *arguments)
        ran, cached = re.findall(r"Running stage '(\w+)'", output), re.findall(r"Stage '(\w+)' is cached", output)
        return Outcome([name for name in ran if name != "configure"], cached)

    def read(self, name: str) -> Any:
        return json.loads((self.root / name).read_text(encoding="utf-8"))

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write(**changes: Any) -> Callable[[Planned], None]:
    """Options in params.yaml; those of a group are added to the group's."""
    merged = {name: PARAMS.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()}
    return lambda project: project.write(merged)


def append_row(number: int) -> Callable[[Planned], None]:
    def apply(project: Planned) -> None:
        with project.rows.open("a", encoding="utf-8") as stream:
            stream.write(row(number))

    return apply


def tamper(project: Planned) -> None:
    """One bit of one byte, and not a byte more or less."""
    path = project.root / "data/tokens/ids.arrow"
    path = path if path.exists() else max((project.root / "data/tokens").glob("*.arrow"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def remove(*names: str) -> Callable[[Planned], None]:
    def apply(project: Planned) -> None:
        for name in names:
            _remove(project.root / name)

    return apply


def forget(name: str) -> Callable[[Planned], None]:
    """Take an output out of DVC's cache, and leave it in the folder."""

    def apply(project: Planned) -> None:
        value = next(out["md5"] for stage in project.lock().values() for out in stage["outs"] if out["path"] == name)
        (project.root / f".dvc/cache/files/md5/{value[:2]}/{value[2:]}").unlink()

    return apply


def touch(project: Planned) -> None:
    for path in [project.rows, *(project.root / "data/tokens").iterdir(), *(project.root / "stages").rglob("*.py")]:
        path.touch()


def upgrade(version: str, *, installed: bool = True) -> Callable[[Planned], None]:
    """Another version of a library in the lock, which the last stage imports."""

    def apply(project: Planned) -> None:
        locked = re.search(r"^matplotlib==\S+", (project.root / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
        assert locked is not None
        project.replace("requirements.lock", locked[0], f"matplotlib=={version}")
        if installed:
            folder = project.root / f"matplotlib-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: matplotlib\nVersion: {version}\n")

    return apply


def both(*edits: Callable[[Planned], None]) -> Callable[[Planned], None]:
    def apply(project: Planned) -> None:
        for edit in edits:
            edit(project)

    return apply


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Every file, link and folder is the same before and after: bytes, kind and time of change. Python's own caches apart."""
    before = _states(folder)
    yield
    after = _states(folder)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set()


def _states(folder: Path) -> Mapping[str, tuple[Any, ...]]:
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.is_file() and path.read_bytes()) for path in paths}
