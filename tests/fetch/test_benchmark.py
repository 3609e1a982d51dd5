"""data/benchmark: rows of `bench_dataset` and the files of `eval.lm_eval.include_path`, from this disk or from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Draft
from pipeline.configure import link_all
from pipeline.errors import RegrowError
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.options.views import FetchOptions
from pipeline.project import Project
from stages.fetch import STAGE
from stages.fetch.benchmark import write_benchmark
from stages.fetch.locate import Locator
from tests.fetch.made import Heard, fetch, link, write
from tests.fetch.rows import write_lines
from tests.fetch.test_hub import COMMIT
from tests.fetch.test_hub import repositories as repositories

QUESTIONS = [{"question": f"q{number}", "choices": ["a", "b"], "answer": 0} for number in range(5)]


def fetch_benchmark(root: Path, **options: Any) -> tuple[Draft, list[str]]:
    """Of a params.yaml at ``root``, checked and linked by what `configure` does; and what was said."""
    text: Mapping[str, Any] = {"base_model": "owner/name", "learning_rate": 1.0, "datasets": [{"path": "some/rows", "type": "completion"}]}
    (root / "params.yaml").write_text(json.dumps({**text, **options}))
    project, recipe = Project(root), load_recipe(root / "params.yaml")
    link_all(project.sources, local_files(project, recipe))
    heard, draft = Heard(), Draft("benchmark", root / "benchmark")
    write_benchmark(recipe.view(FetchOptions), Locator(project.sources, root / "scratch", heard), draft)
    return draft, heard.lines


def rows_of(draft: Draft) -> list[Any]:
    lines = [line for source in draft.content["sources"] for line in (draft.path / source["rows_file"]).read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_file_of_this_disk_with_a_slice(tmp_path: Path) -> None:
    write_lines(tmp_path / "exams/mmlu.jsonl", QUESTIONS)
    draft, _ = fetch_benchmark(tmp_path, do_bench_eval=True, bench_dataset="exams/mmlu.jsonl", bench_split="train[1:3]")
    assert rows_of(draft) == QUESTIONS[1:3]
    (source,) = draft.content["sources"]
    assert (source["name"], source["path"], source["file"]) == ("bench", "exams/mmlu.jsonl", "mmlu.jsonl")


def test_of_a_folder_the_test_split_is_taken(tmp_path: Path) -> None:
    write_lines(tmp_path / "exam/train.jsonl", QUESTIONS[:1])
    write_lines(tmp_path / "exam/test.jsonl", QUESTIONS[1:])
    draft, _ = fetch_benchmark(tmp_path, do_bench_eval=True, bench_dataset="./exam")
    assert rows_of(draft) == QUESTIONS[1:]


def test_a_file_of_a_hub_dataset(tmp_path: Path, repositories: Path) -> None:
    write_lines(repositories / "dataset/cais/mmlu/all/test.jsonl", QUESTIONS)
    write_lines(repositories / "dataset/cais/mmlu/law/test.jsonl", QUESTIONS[:1])
    draft, said = fetch_benchmark(tmp_path, do_bench_eval=True, bench_dataset="cais/mmlu/all/test.jsonl", bench_split="all[:2]")
    assert rows_of(draft) == QUESTIONS[:2]
    assert (draft.content["sources"][0]["path"], draft.content["sources"][0]["revision"]) == ("cais/mmlu", COMMIT)
    assert said == [f"bench_dataset cais/mmlu: using commit {COMMIT}."]


def test_what_is_on_this_disk_is_no_file_of_the_hub(tmp_path: Path) -> None:
    write_lines(tmp_path / "cais/mmlu/all/test.jsonl", QUESTIONS)
    draft, said = fetch_benchmark(tmp_path, do_bench_eval=True, bench_dataset="cais/mmlu/all/test.jsonl")
    assert rows_of(draft) == QUESTIONS and said == []


def test_without_do_bench_eval_nothing_is_looked_for(tmp_path: Path) -> None:
    draft, _ = fetch_benchmark(tmp_path, bench_dataset="./not-there.jsonl")
    assert draft.content == {"sources": []}


def test_a_benchmark_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"params.yaml: bench_dataset: './mmlu.jsonl' does not exist"):
        fetch_benchmark(tmp_path, do_bench_eval=True, bench_dataset="./mmlu.jsonl")


def test_task_files_are_copied_as_they_lie(tmp_path: Path) -> None:
    write(tmp_path / "tasks/own.yaml", "task: own\n")
    write(tmp_path / "tasks/data/rows.jsonl", "{}\n")
    draft, _ = fetch_benchmark(tmp_path, eval={"lm_eval": {"tasks": ["own"], "include_path": "./tasks"}})
    assert (draft.path / "lm-eval/own.yaml").read_text() == "task: own\n"
    assert (draft.path / "lm-eval/data/rows.jsonl").read_text() == "{}\n"
    assert draft.content == {"sources": []}


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "tasks/rows.jsonl", "{}\n")
    with pytest.raises(RegrowError, match=r"eval.lm_eval.include_path: './tasks' holds no task"):
        fetch_benchmark(tmp_path, eval={"lm_eval": {"tasks": ["own"], "include_path": "./tasks"}})


def test_the_stage_writes_it_and_what_is_trained_stays_the_same(workspace: Path, tmp_path: Path) -> None:
    plain, _, _ = fetch(workspace)
    link(workspace, "bench", write_lines(tmp_path / "elsewhere/exam.jsonl", QUESTIONS))
    with_benchmark, _, _ = fetch(workspace, do_bench_eval=True, bench_dataset="./exam.jsonl")
    assert "benchmark" in STAGE.writes and plain["benchmark"].content == {"sources": []}
    assert len(with_benchmark["benchmark"].files) == 1
    for name in ("raw", "tokenizer", "base"):
        assert with_benchmark[name].digest == plain[name].digest
