"""output_dir: links to the artifacts that are shipped, and nothing of the user's touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.configure import configure
from pipeline.errors import RegrowError
from pipeline.options.catalogue import catalogue
from pipeline.options.recipe import load_recipe
from pipeline.output import LINKED
from pipeline.project import Project

PARAMS = "base_model: hub/model\ndatasets: [{path: hub/rows, type: chat_template}]\nlearning_rate: 1e-4\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / "requirements.lock").touch()
    return Project(root)


def set_up(project: Project, output_dir: str | None) -> None:
    """`regrow configure` with this output_dir."""
    project.params.write_text(PARAMS + ("" if output_dir is None else f"output_dir: {output_dir}\n"), encoding="utf-8")
    configure(project, load_recipe(project.params), [])


def publish(project: Project, name: str) -> None:
    (project.data / name).mkdir()
    (project.data / name / "model.txt").write_text(name, encoding="utf-8")


@pytest.mark.parametrize("place", ["./outputs/run", "../elsewhere/run"])
def test_links_lead_to_artifacts_as_soon_as_there_are_any(project: Project, place: str) -> None:
    set_up(project, place)
    folder = project.root / place
    assert sorted(link.name for link in folder.iterdir()) == sorted(LINKED)
    assert not (folder / "trained").exists() and not (folder / "trained").readlink().is_absolute()
    for name in LINKED:
        publish(project, name)
        assert (folder / name / "model.txt").read_text(encoding="utf-8") == name


def test_a_second_time_changes_nothing_and_the_users_files_stay(project: Project) -> None:
    folder = project.root / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    for _ in range(2):
        set_up(project, "out")
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine" and len(list(folder.iterdir())) == 5


def test_a_moved_project_keeps_its_links(project: Project) -> None:
    set_up(project, "out")
    publish(project, "merged")
    moved = project.root.rename(project.root.parent / "moved")
    assert (moved / "out/merged/model.txt").exists()


def test_without_it_nothing_is_made(project: Project) -> None:
    set_up(project, None)
    assert sorted(path.name for path in project.root.iterdir()) == ["data", "params.yaml", "requirements.lock"]


@pytest.mark.parametrize("kind", ["folder", "file", "other link"])
def test_what_is_there_already_is_not_replaced(project: Project, kind: str) -> None:
    folder = project.root / "out"
    folder.mkdir()
    if kind == "folder":
        (folder / "merged").mkdir()
    elif kind == "file":
        (folder / "merged").write_text("mine", encoding="utf-8")
    else:
        (folder / "merged").symlink_to("nowhere")
    with pytest.raises(RegrowError, match=r"output_dir: .*merged is (there already|a link to nowhere)[\s\S]*\./outputs/my-run"):
        set_up(project, "out")
    assert [path.name for path in folder.iterdir()] == ["merged"] and not project.sources.exists(), "nothing was done"


@pytest.mark.parametrize(
    ("place", "words"),
    [("data", "inside"), ("./data/x", "inside"), (".regrow", "inside"), ("params.yaml", "no folder"), ("~no-such-user-here/x", "no path")],
)
def test_places_that_cannot_be_used_are_refused(project: Project, place: str, words: str) -> None:
    with pytest.raises(RegrowError, match=rf"output_dir: .*{words}"):
        set_up(project, place)


def test_it_reruns_nothing() -> None:
    assert catalogue()["output_dir"].reruns == () and catalogue()["dataset_prepared_path"].reruns == ()
