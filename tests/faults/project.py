"""One built project, and copies of it to break."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.test_pipeline import ALL, Clone

INSIDE = {"base_model": "./model", "tokenizer_config": "./model", "datasets": [{"path": "./rows.jsonl", "type": "chat_template"}]}


class Built(Clone):
    """A project that holds its data and model, in which everything ran: made anew, or a copy of one in another folder."""

    def __init__(self, parent: Path, of: Clone | None = None, name: str = "project") -> None:
        self.root, self.rows = parent / name, parent / name / "rows.jsonl"
        if of is not None:
            shutil.copytree(of.root, self.root, symlinks=True)
        else:
            super().__init__(parent)
            for place in ("model", "rows.jsonl"):
                (parent / place).rename(self.root / place)
            self.rows = self.root / "rows.jsonl"
            self.write({})
            assert self.repro() == ALL

    @classmethod
    def at(cls, root: Path) -> Built:
        """One that is there already."""
        project = cls.__new__(cls)
        project.root, project.rows = root, root / "rows.jsonl"
        return project

    def write(self, changes: Mapping[str, Any]) -> None:
        super().write(INSIDE | dict(changes))

    def outs(self, stage: str) -> list[Path]:
        """The artifacts that a stage writes, as dvc.yaml has them."""
        stages = YAML(typ="safe", pure=True).load(self.root / "dvc.yaml")["stages"]
        return [self.root / name for name in stages[stage]["outs"]]

    def forget(self, *stages: str) -> None:
        """Remove what these stages wrote, and DVC's cache, which would give it back without a run."""
        for stage in stages:
            for path in self.outs(stage):
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.root / ".dvc" / "cache", ignore_errors=True)

    def single(self, stage: str) -> tuple[str, ...]:
        """The command that makes DVC run one stage, and truly run it."""
        return ("dvc", "repro", "--single-item", "--no-run-cache", stage)

    def usual_seconds(self, stage: str) -> float:
        """About how long a stage runs once DVC has called it: what its record says, and a second for its imports."""
        return 1 + float(json.loads((self.root / f"data/metrics/{stage}.json").read_text())["seconds"])

    def attempt(self, *command: str) -> Ending:
        """Run a command that may fail."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=300)
        return Ending(process.returncode, output)


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code and all that it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """What regrow said was wrong, its remedy too; empty when it said nothing."""
        lines = self.output.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        return "\n".join(lines[starts[0] : starts[0] + 2]) if starts else ""


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and neither its size nor its time of change."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(place: Path, md5: str) -> Path:
    """Where a DVC cache or a local remote keeps something."""
    return place / "files/md5" / md5[:2] / md5[2:]
