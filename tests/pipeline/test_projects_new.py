"""`regrow new` without running anything: recipes and the files they need, the lock, git and DVC, what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import errors
from pipeline.cli import app
from pipeline.commands.doors import STAGES
from pipeline.configure import own_files
from pipeline.errors import RegrowError
from pipeline.identity import code_identity, read_lock
from pipeline.local_files import local_files
from pipeline.new import create
from pipeline.new import lock as locking
from pipeline.new.lock import lock_installed
from pipeline.new.recipes import find_recipe, ready_recipes
from pipeline.new.repository import prepare
from pipeline.options.recipe import load_recipe
from pipeline.project import Project

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(ready_recipes()))
def test_a_recipe_brings_what_it_names(name: str, tmp_path: Path) -> None:
    recipe = ready_recipes()[name]
    assert len(recipe.summary) > 20, "its first comment says what it does"
    for place, file in recipe.files().items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tmp_path / place)
    (tmp_path / "params.yaml").write_text(recipe.params(), encoding="utf-8")
    project, loaded = Project(tmp_path), load_recipe(tmp_path / "params.yaml")
    at_home = local_files(Project(ROOT), load_recipe(recipe.file))
    assert local_files(project, loaded).keys() == at_home.keys()
    assert set(own_files(project, loaded, read_lock(ROOT / "requirements.lock"))) <= set(recipe.files())
    assert "../" not in recipe.params() and "cp recipes" not in recipe.params()


def test_recipes_are_found_by_name_and_by_its_last_part(tmp_path: Path) -> None:
    assert find_recipe("dpo").name == find_recipe("preferences/dpo").name == "preferences/dpo"
    with pytest.raises(RegrowError, match="Did you mean grpo_arithmetic"):
        find_recipe("grpo_arithmetics")
    for name in ("recipes/one/same.yaml", "recipes/two/same.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(RegrowError, match=r"several recipes.\n.*one/same or two/same"):
        find_recipe("same", tmp_path)


def test_installed_code_has_the_digests_of_a_clone(tmp_path: Path) -> None:
    lock = read_lock(ROOT / "requirements.lock")
    for stage in ("tokenize", "pack"):
        assert code_identity(tmp_path, [f"stages.{stage}"], lock) == code_identity(ROOT, [f"stages.{stage}"], lock)


def test_a_clone_inside_runs_its_own_code(tmp_path: Path) -> None:
    for name, text in {"pipeline/__init__.py": "", "stages/__init__.py": "", "stages/one.py": "A = 1\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert set(code_identity(tmp_path, ["stages.one"], {})["code"]) == {"stages/__init__.py", "stages/one.py"}


def test_the_lock_has_the_versions_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = ROOT / "requirements.lock"
    genuine = locking._installed
    answers = {"numpy": "9.9", "torchao": None, "ruff": None}
    monkeypatch.setattr(locking, "_installed", lambda name: answers[name] if name in answers else genuine(name))
    found = lock_installed(tested, STAGES)
    lines = found.text.splitlines()
    assert "numpy==9.9" in lines and f"torch=={read_lock(tested)['torch']}" in lines
    assert f"torchao=={read_lock(tested)['torchao']}" in lines, "quantize imports it where it is asked for"
    assert not any(line.startswith("ruff==") for line in lines)
    assert found.differing == [f"numpy 9.9 (tested: {read_lock(tested)['numpy']})"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_folder_of_its_own_becomes_a_repository(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert (tmp_path / ".git").is_dir()
    assert (tmp_path / ".dvc" / "config").read_text() == (ROOT / ".dvc" / "config").read_text()
    before = git(tmp_path, "status", "--porcelain")
    (tmp_path / "b").mkdir()
    assert "shared" in prepare(tmp_path / "b")[-1]
    assert git(tmp_path, "status", "--porcelain") == before and not list((tmp_path / "b").iterdir())


def test_in_a_git_repository_without_dvc_the_rest_is_left_alone(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/ignored/\n")
    for name in ("plain", "ignored"):
        (tmp_path / name).mkdir()
        prepare(tmp_path / name)
        assert (tmp_path / name / ".dvc").is_dir() and not (tmp_path / ".dvc").exists()
    assert not (tmp_path / "plain" / ".git").exists()
    assert (tmp_path / "ignored" / ".git").exists(), "a repository that ignores the folder cannot keep its files"


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "git is not installed" in prepare(tmp_path)[0]
    assert "no_scm = true" in (tmp_path / ".dvc" / "config").read_text() and not (tmp_path / ".git").exists()


@pytest.mark.parametrize(("name", "words"), [
    ("params.yaml", "params.yaml is there already"),
    ("dvc.yaml", "dvc.yaml is there already"),
    ("pipeline/__init__.py", "Python would take it for regrow's own package"),
    ("stages.py", "Python would take it for regrow's own package"),
])  # fmt: skip
def test_nothing_is_overwritten_and_nothing_begun(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(RegrowError, match=words):
        create(tmp_path, find_recipe("dpo"), STAGES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine\n"


def test_the_command(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["new", "--list"]).output.splitlines()
    assert len(listed) == len(ready_recipes()) and any(line.startswith("preferences/dpo ") for line in listed)
    missing = CliRunner().invoke(app, ["new"])
    assert isinstance(missing.exception, errors.RegrowError) and "DIR is missing" in str(missing.exception)
    made = CliRunner().invoke(app, ["new", str(tmp_path / "deep" / "er"), "--recipe", "dpo"])
    assert made.exit_code == 0 and f"cd {tmp_path / 'deep' / 'er'} && dvc repro" in made.output
    again = CliRunner().invoke(app, ["new", str(tmp_path / "deep" / "er"), "--recipe", "dpo"])
    assert again.exit_code == 0, "what is equal is no conflict"
