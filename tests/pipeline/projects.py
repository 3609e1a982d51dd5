"""regrow installed from its wheel into an environment of its own, and projects made with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.tiny import save_model, save_tokenizer

ROOT = Path(__file__).parents[2]
DATA = ["fetch", "tokenize", "dedupe", "pack"]
ALL = [*DATA, "train", "merge", "quantize", "eval"]

PARAMS: dict[str, Any] = {
    "base_model": "recipes/tiny/model",
    "tokenizer_config": "recipes/tiny/model",
    "datasets": [{"path": "recipes/tiny/rows.jsonl", "type": "recipes.tiny.rows.to_messages"}],
    "dataset_exact_deduplication": True,
    "val_set_size": 4,
    "sequence_len": 64,
    "sample_packing": True,
    "adapter": "lora",
    "lora_target_linear": True,
    "max_steps": 2,
    "learning_rate": 0.01,
    "quantize": ["q8_0"],
    "eval": {"samples": 1, "max_new_tokens": 4, "choices": ["yes", "no"]},
}

FORMAT = """from recipes.tiny.words import EVEN, ODD


def to_messages(row):
    answer = ODD if row["number"] % 2 else EVEN
    return {"messages": [{"role": "user", "content": f"is {row['number']} even"}, {"role": "assistant", "content": answer}]}
"""


def copy_sources(target: Path) -> None:
    """What git would have in a clone, and a recipe `tiny` with a model, rows and a format of its own."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        if not name.startswith(("tests/", "data/", "dvc.lock")) and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    tiny = target / "recipes" / "tiny"
    save_model(tiny / "model")
    save_tokenizer(tiny / "model")
    (tiny / "rows.jsonl").write_text("".join(json.dumps({"number": number}) + "\n" for number in range(24)), encoding="utf-8")
    (tiny / "rows.py").write_text(FORMAT, encoding="utf-8")
    (tiny / "words.py").write_text("EVEN, ODD = 'yes', 'no'\n", encoding="utf-8")
    (tiny / "not_needed.txt").write_text("nothing names this\n", encoding="utf-8")
    with (tiny / "params.yaml").open("w", encoding="utf-8") as stream:
        stream.write("# yaml-language-server: $schema=../../params.schema.json\n# A tiny model says whether a number is even.\n")
        YAML().dump(PARAMS, stream)


def environment(binaries: Path) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    names = ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL")
    path = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    return known | path | dict.fromkeys(names, "a@b") | {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


class Installed:
    """regrow from a wheel of ``source``, in an environment whose other packages are those of this one."""

    def __init__(self, parent: Path) -> None:
        self.source, self.wheels, venv = parent / "source", parent / "wheels", parent / "venv"
        copy_sources(self.source)
        building = shutil.copytree(self.source, parent / "building")  # setuptools leaves folders behind
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(self.wheels), str(building)]
        subprocess.run(wheel, check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        self.binaries = venv / "bin"
        self.python = self.binaries / "python"
        self.packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        # A path file that another one leads to is not read: an editable install there does not reach here.
        (self.packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        install = ["--python", str(self.python), "install", "--no-deps", "--no-index", str(next(self.wheels.glob("*.whl")))]
        subprocess.run([*pip, *install], check=True)

    def run(self, folder: Path, *command: str, code: int = 0) -> str:
        """Run a command as in an activated environment. `dvc` is this environment's."""
        words = [str(self.python), "-m", "dvc", *command[1:]] if command[0] == "dvc" else list(command)
        done = subprocess.run(
            words, cwd=folder, env=environment(self.binaries), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def new(self, folder: Path) -> Path:
        self.run(folder.parent, "regrow", "new", folder.name, "--recipe", "tiny")
        return folder

    def repro(self, folder: Path, *arguments: str) -> list[str]:
        """Run `dvc repro`; the stages that ran, without configure."""
        return stages_run(self.run(folder, "dvc", "repro", *arguments))

    def commit(self, folder: Path, message: str) -> None:
        self.run(folder, "git", "add", "--all")
        self.run(folder, "git", "commit", "--quiet", "--message", message)


def stages_run(output: str) -> list[str]:
    return [name for name in re.findall(r"Running stage '(?:[\w/.-]+:)?(\w+)'", output) if name != "configure"]


def locked(folder: Path) -> Mapping[str, Any]:
    """dvc.lock by stage."""
    stages: Mapping[str, Any] = YAML(typ="safe", pure=True).load(folder / "dvc.lock")["stages"]
    return stages


def options(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data" / "options").iterdir())}


def change(folder: Path, **changes: Any) -> None:
    """Edit params.yaml."""
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    values = YAML().load(text)
    values.update(changes)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(values, stream)


def file_names(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
