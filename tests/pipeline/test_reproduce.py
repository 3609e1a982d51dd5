"""`regrow reproduce`: the same bytes in a clone that is run otherwise, and a difference named down to row and element."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from pipeline.commands.doors import STAGES, open_stage
from pipeline.options.recipe import load_recipe
from pipeline.project import Project
from pipeline.reproduction import otherwise
from pipeline.reproduction.clone import uncommitted
from pipeline.reproduction.compare import Verdict, compare
from pipeline.reproduction.difference import difference_in_file, first_difference
from pipeline.reproduction.levels import excuse, level, trained_on
from tests.pipeline.small import commit, run, small_project
from tests.tiny import publish_artifact

DATA = [open_stage(name) for name in STAGES[:4]]


def left_in(output: str) -> Path:
    kept = re.search(r"^The clone is left in (\S+)\.$", output, re.MULTILINE)
    assert kept, output
    return Path(kept[1])


def remove(clone: Path) -> None:
    shutil.rmtree(next(folder for folder in clone.parents if folder.name.startswith("regrow-reproduce-")))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project, str]]:
    """A project whose rows are not in git, the clone that reproduced its data stages, and what was printed."""
    root = small_project(tmp_path_factory.mktemp("reproduced") / "project")
    (root / "recipes/small/rows.jsonl").rename(root.parent / "rows.jsonl")
    edit(root, "recipes/small/rows.jsonl", "../rows.jsonl")
    commit(root)
    run(root, "dvc", "repro", "pack")
    output = run(root, "regrow", "reproduce", "--stages", "dedupe,pack", "--workers", "5", "--keep")
    yield Project(root), Project(left_in(output)), output
    remove(left_in(output))


def edit(root: Path, old: str, new: str) -> None:
    params = root / "params.yaml"
    assert old in params.read_text()
    params.write_text(params.read_text().replace(old, new))


@pytest.mark.slow
def test_a_clone_that_is_run_otherwise_has_the_same_digests(pair: tuple[Project, Project, str]) -> None:
    project, clone, output = pair
    verdicts = re.findall(r"^(\w+) +L0 +identical +dvc.lock", output, re.MULTILINE)
    assert verdicts == ["configure", "fetch", "tokenize", "dedupe", "pack"] and "5 of 5 stages are bit-identical (L0)" in output
    assert len(str(clone.root)) != len(str(project.root)) and not clone.root.is_relative_to(project.root)
    assert load_recipe(clone.params).options.dataset_num_proc == 5
    assert "PYTHONHASHSEED=" in output and "LC_ALL=" in output and "TZ=" in output
    ran = {path.name for path in clone.root.rglob("*.arrow")}
    assert "tokens-00000.arrow" in ran and not (clone.root / ".dvc/cache").exists(), "its cache is elsewhere, and was empty"
    assert (clone.root.parent / "rows.jsonl").is_symlink(), "rows that git does not have are linked where params.yaml looks for them"
    assert not (clone.data / "trained").exists()


@pytest.mark.slow
def test_a_row_format_that_depends_on_the_environment_is_caught(tmp_path: Path) -> None:
    """Python's hash() of text: found in tokenize, with the row, and what follows is not blamed."""
    root = small_project(tmp_path / "project")
    (root / "mine.py").write_text(
        "def convert(row):\n"
        "    tag = str(hash(row['messages'][0]['content']) % 1000)\n"
        "    return {'messages': [*row['messages'][:1], {'role': 'assistant', 'content': tag}]}\n"
    )
    edit(root, "type: chat_template", "type: mine.convert")
    commit(root)
    run(root, "dvc", "repro", "dedupe")
    output = run(root, "regrow", "reproduce", "--stages", "dedupe", code=1)
    assert re.search(r"^tokenize +L0 +DIFFERS", output, re.MULTILINE) and re.search(r"^fetch +L0 +identical", output, re.MULTILINE)
    assert re.search(r"^ +data/tokens/tokens-00000.arrow: row 0, column input_ids: ", output, re.MULTILINE), output
    assert re.search(r"^dedupe +L0 +inputs differ", output, re.MULTILINE)
    assert left_in(output).is_dir(), "one that differs is left to be looked at"
    remove(left_in(output))


@pytest.mark.slow
def test_a_project_whose_data_or_lock_are_others_is_told_from_one_that_is_reproduced(
    pair: tuple[Project, Project, str], tmp_path: Path
) -> None:
    project, clone, _ = pair
    other = Project(shutil.copytree(project.root, tmp_path / "other", symlinks=True))
    assert [verdict.verdict for verdict in compare(other, clone, DATA)] == ["identical"] * 5
    lock = (other.root / "dvc.lock").read_text()
    entry = re.search(r"- path: data/packed\n +hash: md5\n +md5: (\w+)", lock)
    assert entry
    (other.root / "dvc.lock").write_text(lock.replace(entry[1], "0" * 32))
    packed = compare(other, clone, DATA)[-1]
    assert packed.verdict == "DIFFERS" and not packed.holds and "dvc.lock has another digest" in packed.lines[0]
    (other.root / "dvc.lock").write_text(lock)
    shutil.rmtree(other.data / "packed")
    assert compare(other, clone, DATA)[-1].compared == "dvc.lock"
    (other.root / "dvc.lock").unlink()
    alone = by_stage(compare(other, clone, DATA))
    assert alone["pack"].verdict == "nothing to compare with" and alone["tokenize"].compared == "manifests"
    never = Project(shutil.copytree(clone.root, tmp_path / "never", symlinks=True))
    (never.root / "dvc.lock").unlink()
    assert by_stage(compare(project, never, DATA))["pack"].verdict == "did not run"


def by_stage(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {verdict.stage: verdict for verdict in verdicts}


@pytest.mark.slow
def test_what_is_not_committed_and_decides_is_named(pair: tuple[Project, Project, str], tmp_path: Path) -> None:
    project = Project(shutil.copytree(pair[0].root, tmp_path / "project", symlinks=True))
    shutil.copyfile(pair[0].root.parent / "rows.jsonl", tmp_path / "rows.jsonl")

    def changed() -> list[str]:
        return uncommitted(project, load_recipe(project.params))

    (project.root / "notes.md").write_text("decides nothing\n")
    assert changed() == [], "nor do dvc.lock and data/options, which are results"
    edit(project.root, "seed: 42", "seed: 43")
    (project.root / "recipes/small/model/config.json").write_text("{}")
    assert changed() == ["params.yaml", "recipes/small/model/config.json"]
    refused = run(project.root, "regrow", "reproduce", code=2)
    assert "Not committed: params.yaml, recipes/small/model/config.json" in refused and "--with-changes" in refused
    shutil.rmtree(project.root / ".git")
    assert "is not in a git repository" in run(project.root, "regrow", "reproduce", code=2)


def write_tensors(path: Path, **tensors: Any) -> Path:
    save_file({name: np.asarray(values, np.float32) for name, values in tensors.items()}, path)
    return path


def test_the_first_tensor_and_element_that_differ_are_named(tmp_path: Path) -> None:
    first = write_tensors(tmp_path / "a.safetensors", one=[1, 2], two=[[1, 2, 3], [4, 5, 6]], zero=[0])
    other = write_tensors(tmp_path / "b.safetensors", one=[1, 2], two=[[1, 2, 3], [4, 5.5, 7]], zero=[1])
    assert difference_in_file(first, first) is None
    assert difference_in_file(first, other) == "tensor two F32 [2, 3]: element (1, 1): 5 before, 5.5 now; 2 of 6 differ"
    shorter = write_tensors(tmp_path / "c.safetensors", one=[1, 2], two=[[1, 2, 3]], zero=[0])
    assert difference_in_file(first, shorter) == "tensor two is F32 [2, 3] before, F32 [1, 3] now"
    fewer = write_tensors(tmp_path / "d.safetensors", one=[1, 2], zero=[0])
    assert difference_in_file(first, fewer) == "tensor two is not there now"


def test_half_precision_is_read_as_numbers(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save

    for name, value in {"a": 1.0, "b": 1.5}.items():
        save({"w": torch.tensor([[0.0, value]], dtype=torch.bfloat16)}, tmp_path / f"{name}.safetensors")
    found = difference_in_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found == "tensor w BF16 [1, 2]: element (0, 1): 1 before, 1.5 now; 1 of 2 differ"


def write_arrow(path: Path, rows: list[list[int]], batch: int) -> Path:
    table = pa.table({"number": list(range(len(rows))), "ids": rows})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


@pytest.mark.parametrize("at", [0, 1, 499, 998, 999])
def test_the_first_row_and_column_that_differ_are_named(tmp_path: Path, at: int) -> None:
    rows = [[number, number + 1] for number in range(1000)]
    changed = [[*ids, 7] if number in (at, 999) else ids for number, ids in enumerate(rows)]
    left, right = write_arrow(tmp_path / "a.arrow", rows, 64), write_arrow(tmp_path / "b.arrow", changed, 100)
    assert difference_in_file(left, right) == f"row {at}, column ids: [{at}, {at + 1}] before, [{at}, {at + 1}, 7] now"
    for path, values in ((tmp_path / "a.parquet", rows), (tmp_path / "b.parquet", changed)):
        pq.write_table(pa.table({"ids": values}), path)
    assert str(difference_in_file(tmp_path / "a.parquet", tmp_path / "b.parquet")).startswith(f"row {at}, column ids")
    assert difference_in_file(left, write_arrow(tmp_path / "c.arrow", rows[:900], 64)) == "1000 rows before, 900 now"


@pytest.mark.parametrize(("name", "before", "now", "where"), [
    ("rows.jsonl", '{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n', "row 1: '{\"a\": 2}' before, '{\"a\": 3}' now"),
    ("rows.jsonl", "1\n2\n", "1\n", "row 1 is in one of them only"),
    ("log.csv", "step,loss\n1,0.5\n", "step,loss\n1,0.25\n", "line 2: '1,0.5' before, '1,0.25' now"),
    ("m.json", '{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', "a.b[1]: 2 before, 3 now"),
    ("m.json", '{"a": 1}', '{"a":  1}', "byte 6 (8 bytes before, 9 now)"),
    ("m.json", '{"a": 1}', '{"a": ', "byte 6 (8 bytes before, 6 now)"),
    ("model.gguf", "GGUF....", "GGUF...!", "byte 7 (8 bytes before, 8 now)"),
])  # fmt: skip
def test_other_files_differ_in_a_line_a_field_or_a_byte(tmp_path: Path, name: str, before: str, now: str, where: str) -> None:
    folders = tmp_path / "before", tmp_path / "now"
    for folder, text in zip(folders, (before, now), strict=True):
        folder.mkdir()
        (folder / name).write_text(text)
        (folder / "manifest.json").write_text(json.dumps({"files": text}))
    assert first_difference(*folders) == f"{name}: {where}"
    (folders[1] / name).unlink()
    assert first_difference(*folders) == f"{name}: was there before, and is not written now"


CPU = {"cpu": "AVX512", "threads": 2, "processes": 1, "torch": "2.13.0"}
GPU = {"gpu": "NVIDIA H200", "cuda": "13.0", "processes": 1, "torch": "2.13.0"}


@pytest.mark.parametrize(("stage", "before", "now", "reason"), [
    ("train", CPU, CPU, None),
    ("train", CPU, CPU | {"cpu": "AVX2"}, "another machine: cpu AVX512 before, AVX2 here"),
    ("merge", CPU, CPU | {"threads": 8}, "another machine: threads 2 before, 8 here"),
    ("quantize", CPU, CPU | {"cpu": "AVX2"}, None),
    ("quantize", CPU, GPU, "another class of device"),
    ("eval", GPU, GPU, None),
    ("pack", CPU, GPU, None),
])  # fmt: skip
def test_who_may_differ_where(stage: str, before: Mapping[str, Any], now: Mapping[str, Any], reason: str | None) -> None:
    records = [{"holds_on": machine, "prevented": []} for machine in (before, now)]
    assert excuse(stage, records[0], records[1]) == reason
    assert excuse(stage, {}, records[1]) is None, "a machine that nothing is known of excuses nothing"


def test_what_torch_has_no_deterministic_form_of_is_not_promised() -> None:
    records = [{"holds_on": GPU, "prevented": reasons} for reasons in ([], ["index_put has none"])]
    assert excuse("train", *records) == "not promised: index_put has none"
    assert excuse("tokenize", *records) is None


def test_a_run_record_speaks_for_the_weights_that_are_there_alone(tmp_path: Path) -> None:
    artifact = publish_artifact(tmp_path, "trained", lambda folder: (folder / "log.csv").write_text("step\n"))
    record = {"determinism": {"holds_on": CPU, "prevented": []}, "outputs": {"trained": artifact.digest}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/train.json").write_text(json.dumps(record))
    assert trained_on(tmp_path)["holds_on"] == CPU
    (tmp_path / "metrics/train.json").write_text(json.dumps(record | {"outputs": {"trained": "0" * 64}}))
    assert trained_on(tmp_path) == {}
    assert trained_on(tmp_path / "nowhere") == {}


def test_every_stage_has_its_level() -> None:
    assert [level(name, CPU) for name in STAGES] == ["L0", "L0", "L0", "L0", "L1", "L3", "L4", "L1"]
    assert level("train", GPU) == level("eval", GPU) == "L2"


def test_a_clone_waits_for_no_other_machine(tmp_path: Path) -> None:
    """How many there are is no part of identity, and nobody could join in a folder for temporary files."""
    train = "train: {num_processes: 4, num_machines: 2, main_process_port: 29500}"
    (tmp_path / "params.yaml").write_text(f"base_model: m\n{train}\n", encoding="utf-8")
    otherwise.prepare(Project(tmp_path), otherwise.choose(3))
    assert YAML(typ="safe").load(tmp_path / "params.yaml") == {"base_model": "m", "train": {"num_processes": 4}, "dataset_num_proc": 3}
