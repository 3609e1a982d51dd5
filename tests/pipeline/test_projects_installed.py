"""regrow installed from its wheel: projects, several in one repository, experiments, and the log of all that, by real `dvc repro`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.pipeline.projects import ALL, DATA, PARAMS, Installed, change, file_names, locked, options, stages_run

pytestmark = pytest.mark.slow

MORE = {"path": "../more.jsonl", "type": "recipes.tiny.rows.to_messages"}


class Shared:
    """One git and DVC repository with a project folder `a` in which everything ran once."""

    def __init__(self, parent: Path) -> None:
        self.regrow = Installed(parent)
        self.root = parent / "repository"
        self.root.mkdir()
        for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
            self.regrow.run(self.root, *command)
        (self.root / "more.jsonl").write_text(json.dumps({"number": 50}) + "\n", encoding="utf-8")
        (self.root / ".gitignore").write_text("more.jsonl\n", encoding="utf-8")
        self.a = self.regrow.new(self.root / "a")
        change(self.a, datasets=[*PARAMS["datasets"], MORE])
        assert self.regrow.repro(self.a) == ALL
        self.regrow.commit(self.root, "Everything ran")

    def log(self, folder: Path, *arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.regrow.run(folder, "regrow", "log", "--format", "json", *arguments))["runs"]
        return rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    parent = tmp_path_factory.mktemp("installed")
    yield Shared(parent)
    shutil.rmtree(parent)


def test_the_code_is_the_wheels_and_recipes_travel_in_it(shared: Shared) -> None:
    command = [str(shared.regrow.python), "-c", "import pipeline, stages; print(pipeline.__file__, stages.__file__)"]
    places = subprocess.run(command, cwd=shared.a, capture_output=True, text=True, check=True).stdout.split()
    assert all(Path(place).is_relative_to(shared.regrow.packages) for place in places)
    shipped = shared.regrow.packages / "pipeline" / "new" / "files"
    travelled = {name for name in file_names(shipped / "recipes") if "__pycache__" not in name}
    assert travelled == set(file_names(shared.regrow.source / "recipes"))
    listed = shared.regrow.run(shared.root, "regrow", "new", "--list")
    assert "tiny" in listed and "A tiny model says whether a number is even." in listed


def test_a_project_holds_what_its_recipe_needs_and_no_more(shared: Shared) -> None:
    names = set(file_names(shared.a / "recipes"))
    assert {"tiny/rows.jsonl", "tiny/rows.py", "tiny/words.py", "tiny/model/config.json"} <= names
    assert "tiny/not_needed.txt" not in names and not (shared.a / ".git").exists() and not (shared.a / ".dvc").exists()
    assert (shared.a / "dvc.yaml").read_bytes() == (shared.regrow.source / "dvc.yaml").read_bytes()


def test_digests_are_those_of_a_clone(shared: Shared) -> None:
    clone = shared.regrow.source
    with (clone / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(PARAMS | {"datasets": [*PARAMS["datasets"], MORE]}, stream)
    shutil.copyfile(shared.root / "more.jsonl", clone.parent / "more.jsonl")
    shared.regrow.run(clone, "git", "init", "--quiet")
    assert shared.regrow.repro(clone, "pack") == DATA
    assert options(clone) == options(shared.a)
    for stage in DATA:
        assert locked(clone)[stage] == locked(shared.a)[stage]


def test_a_second_recipe_takes_from_the_first_what_is_equal(shared: Shared) -> None:
    b = shared.regrow.new(shared.root / "b")
    change(b, datasets=[*PARAMS["datasets"], MORE], eval=PARAMS["eval"] | {"samples": 2})
    output = shared.regrow.run(shared.root, "dvc", "repro", "--recursive", ".")
    assert stages_run(output) == ["eval"]
    for stage in ALL[:-1]:
        assert locked(b)[stage] == locked(shared.a)[stage]
    assert (shared.root / ".dvc" / "cache").is_dir() and not list(shared.root.glob("?/.dvc"))
    row = shared.log(b)[0]
    assert row["stages"]["eval"]["ran"] and row["kind"] == "workspace" and row["metrics"]["merged"]["rows"] == 4


def test_experiments_run_in_workspaces_of_their_own(shared: Shared) -> None:
    """In copies, as those of the queue run; DVC's own worker can end before it sees the queue, and --run-all then waits for ever."""
    settings = {"faster": "learning_rate=0.02", "smaller": "+lora_r=4"}
    for name, setting in settings.items():
        shared.regrow.run(shared.a, "dvc", "exp", "run", "--queue", "--name", name, "--set-param", setting, "train")
    waiting = {row["name"]: row for row in shared.log(shared.a) if row["kind"] == "queued"}
    assert waiting["smaller"]["changed"] == {"lora_r": {"old": None, "new": 4}}
    before = (shared.a / "params.yaml").read_bytes(), (shared.a / "dvc.lock").read_bytes()
    shared.regrow.run(shared.a, "dvc", "queue", "remove", "--queued")
    for name, setting in settings.items():
        shared.regrow.run(shared.a, "dvc", "exp", "run", "--temp", "--name", name, "--set-param", setting, "train")
    assert ((shared.a / "params.yaml").read_bytes(), (shared.a / "dvc.lock").read_bytes()) == before
    rows = {row["name"]: row for row in shared.log(shared.a)}
    first = next(row for row in rows.values() if row["kind"] == "commit")
    for name, changed in {"faster": {"learning_rate": {"old": 0.01, "new": 0.02}}, "smaller": {"lora_r": {"old": None, "new": 4}}}.items():
        row = rows[name]
        assert row["kind"] == "experiment" and row["changed"] == changed and row["against"] == first["name"]
        assert [stage for stage, run in row["stages"].items() if run["seconds"]] == ["train"]
        assert {row["stages"][stage]["of"] for stage in DATA} == {first["name"]}
        assert row["metrics"] is None and "eval" not in row["digests"], "what was judged is another training"
        assert row["digests"]["packed"] == first["digests"]["packed"] and row["digests"]["trained"] != first["digests"]["trained"]
    assert rows["faster"]["digests"]["trained"] != rows["smaller"]["digests"]["trained"]


def test_the_table_says_what_ran_and_what_came_of_it(shared: Shared) -> None:
    table = shared.regrow.run(shared.a, "regrow", "log")
    first = next(line for line in table.splitlines() if "Everything ran" in line)
    digest = json.loads((shared.a / "data" / "trained" / "manifest.json").read_text())["artifact"]
    assert digest == "trained" and "fetch-eval" in first and "accuracy" in first and " s " in first
