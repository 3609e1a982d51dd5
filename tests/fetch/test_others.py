"""data/others: adapters and models of `merge.others`, from this disk or from the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Draft
from pipeline.configure import link_all
from pipeline.errors import RegrowError
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.options.views import FetchOptions, MergeOptions
from pipeline.project import Project
from stages.fetch import STAGE
from stages.fetch.locate import Locator
from stages.fetch.others import write_others
from tests.fetch.made import Heard, write
from tests.fetch.test_hub import COMMIT
from tests.fetch.test_hub import repositories as repositories
from tests.tiny import save_model

MINIMAL: dict[str, Any] = {"base_model": "owner/name", "learning_rate": 1.0, "datasets": [{"path": "some/rows", "type": "completion"}]}


def fetch_others(root: Path, *entries: dict[str, Any]) -> Draft:
    """Of a params.yaml at ``root``, checked and linked by what `configure` does."""
    merge = {"method": "linear", "weight": 0.5, "others": [{"weight": 0.5} | entry for entry in entries]}
    (root / "params.yaml").write_text(json.dumps(MINIMAL | ({"merge": merge} if entries else {})))
    project, recipe = Project(root), load_recipe(root / "params.yaml")
    link_all(project.sources, local_files(project, recipe))
    draft = Draft("others", root / "others")
    draft.path.mkdir()
    write_others(recipe.view(FetchOptions), Locator(project.sources, root / "scratch", Heard()), draft)
    return draft


def adapter(folder: Path, manifest: str | None = None) -> None:
    write(folder / "adapter_config.json", "{}")
    write(folder / "adapter_model.safetensors", "tensors")
    write(folder / "tokenizer.json", "{}")
    if manifest is not None:
        write(folder / "manifest.json", manifest)


def test_adapters_and_models_of_this_disk(tmp_path: Path) -> None:
    adapter(tmp_path / "mine")
    save_model(tmp_path / "model")
    draft = fetch_others(tmp_path, {"path": "./mine"}, {"path": "model"})
    first, second = draft.content["sources"]
    assert first == {"folder": "00", "kind": "adapter", "path": None, "revision": None, "base": None}
    assert (second["folder"], second["kind"]) == ("01", "model")
    assert sorted(path.name for path in (draft.path / "00").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in (draft.path / "01").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("manifest", "base"), [('{"inputs": {"base": "abc"}}', "abc"), ('{"files": []}', None), ("[", None), ('{"inputs": {"base": 1}}', None)]
)
def test_what_regrow_trained_says_on_which_base(tmp_path: Path, manifest: str, base: str | None) -> None:
    adapter(tmp_path / "mine", manifest)
    draft = fetch_others(tmp_path, {"path": "./mine"})
    assert draft.content["sources"][0]["base"] == base and not (draft.path / "00" / "manifest.json").exists()


def test_an_adapter_of_the_hub(tmp_path: Path, repositories: Path) -> None:
    adapter(repositories / "model" / "owner" / "adapter")
    draft = fetch_others(tmp_path, {"path": "owner/adapter", "revision": "main"})
    (source,) = draft.content["sources"]
    assert source == {"folder": "00", "kind": "adapter", "path": "owner/adapter", "revision": COMMIT, "base": None}
    assert (draft.path / "00" / "adapter_model.safetensors").read_text() == "tensors"


def test_nothing_is_nothing(tmp_path: Path) -> None:
    draft = fetch_others(tmp_path)
    assert draft.content == {"sources": []} and not list(draft.path.iterdir()) and "others" in STAGE.writes


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rows": (lambda folder: write(folder / "rows.jsonl"), "neither an adapter nor a model"),
    "an adapter's pickle": (
        lambda folder: [write(folder / name, "{}") for name in ("adapter_config.json", "adapter_model.bin", "config.json")],
        "save them as safetensors",
    ),
    "a pointer in place of weights": (
        lambda folder: [write(folder / name, "{}") for name in ("config.json", "model.safetensors")],
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_merged(tmp_path: Path, case: str) -> None:
    fill, expected = REFUSED[case]
    fill(tmp_path / "mine")
    with pytest.raises(RegrowError) as caught:
        fetch_others(tmp_path, {"path": "./mine"})
    assert "merge.others[0].path './mine'" in str(caught.value) and expected in str(caught.value)


def test_a_revision_of_what_has_none(tmp_path: Path) -> None:
    adapter(tmp_path / "mine")
    with pytest.raises(RegrowError, match=r"merge.others\[0\].revision"):
        fetch_others(tmp_path, {"path": "./mine", "revision": "main"})


def test_what_this_run_writes_is_not_merged_with_itself(tmp_path: Path) -> None:
    adapter(tmp_path / "data" / "trained")
    with pytest.raises(RegrowError, match="which regrow itself writes"):
        fetch_others(tmp_path, {"path": "./data/trained"})


def test_where_an_adapter_lies_is_no_identity_of_merge(tmp_path: Path) -> None:
    for name in ("a", "b"):
        adapter(tmp_path / name)
    drafts = {}
    for name in ("a", "b"):
        drafts[name] = fetch_others(tmp_path, {"path": f"./{name}"})
        drafts[name].path.rename(tmp_path / f"others-{name}")
    assert drafts["a"].content == drafts["b"].content
    view = load_recipe(tmp_path / "params.yaml").view(MergeOptions).canonical()
    assert view["merge"]["others"] == [{"weight": 0.5}]
