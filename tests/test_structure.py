"""The walls of the house: who may import whom, what dvc.yaml says, and that starting is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.commands.doors import STAGES, open_stage

ROOT = Path(__file__).parent.parent


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"


def test_no_stage_imports_another_and_pipeline_imports_none() -> None:
    for path in [*ROOT.glob("stages/**/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        own = path.relative_to(ROOT).parts[:2]
        for name in imports(path):
            assert not name.startswith("."), f"{path}: relative import {name}"
            if name.split(".")[0] == "stages":
                assert own[0] == "stages" and name.split(".")[1] == own[1], f"{path} imports {name}"


def test_there_is_one_door_from_pipeline_to_stages() -> None:
    for path in ROOT.glob("pipeline/**/*.py"):
        opens = "import_module" in path.read_text(encoding="utf-8")
        assert not opens or path.name in ("doors.py", "own_code.py"), f"{path} imports dynamically"  # own_code: the user's modules


@pytest.mark.parametrize("name", STAGES)
def test_dvc_yaml_says_what_the_stage_says(name: str) -> None:
    stage = open_stage(name)
    declared = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"][name]
    sources = ["data/sources"] if name == "fetch" else []
    assert declared["cmd"] == f"python -m pipeline run {name}" and stage.name == name
    assert declared["deps"] == [f"data/options/{name}.json", *sources, *(f"data/{read}" for read in stage.reads)]
    assert declared["outs"] == [f"data/{written}" for written in stage.writes]


@pytest.mark.parametrize("command", [["--help"], ["check", "params.yaml"]])
def test_starting_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys, runpy; sys.argv = ['regrow', *sys.argv[1:]]\n"
        "try: runpy.run_module('pipeline', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'trl', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_opening_every_stage_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipeline.commands.doors import STAGES, open_stage\nfor name in STAGES: open_stage(name)\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
