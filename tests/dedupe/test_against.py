"""Rows held apart: they are fetched and tokenized, never trained, and training rows that repeat them go."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bins import Bins
from pipeline.kept import APART, EXACT, OVERLAP
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.options.views import TokenizeOptions
from pipeline.project import Project
from stages.pack import STAGE as PACK
from tests.dedupe.workspace import VOCABULARY, Deduped, dedupe, edited, grams, near
from tests.options.configs import accepted
from tests.tiny import run_stage

BENCHMARK = list(range(1000, 1060))


def overlap(ngram: int = 5, limit: float = 0.5) -> dict[str, object]:
    return {"dedupe": {"against": [{"path": "b", "type": "completion"}], "overlap": {"ngram": ngram, "limit": limit}}}


def against(found: Deduped) -> dict[str, object]:
    return dict(json.loads((found.folder / "report.json").read_text())["against"])


def test_a_row_that_holds_a_benchmark_row_goes_and_names_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    long = random.integers(VOCABULARY // 2, VOCABULARY, size=400).tolist()
    training = [long, long[:200] + BENCHMARK + long[200:], BENCHMARK[10:30], long[:50] + BENCHMARK[:20]]
    found = dedupe(tmp_path, [("train", training), ("against", [[7] * 30, BENCHMARK])], overlap())
    assert found.kept == {(0, 0), (0, 3)}
    assert found.removed == {(0, 1): (OVERLAP, (1, 1), 1.0), (0, 2): (OVERLAP, (1, 1), 1.0)}
    assert found.metrics == {"rows": 4, "kept": 2, "removed": {OVERLAP: 2}, "held_apart": 2}
    assert found.index.left_out() == {APART: 2, OVERLAP: 2}
    shares = len(grams(BENCHMARK[:20], 5)) / len(grams(BENCHMARK, 5))
    report = against(found)
    assert report["sources"] == [
        {"source": "dedupe.against[0] against0.jsonl", "rows": 2, "covered": 1, "overlapping": 1, "training_rows_removed": 2}
        | {"mean_share_found": 0.5}
    ]
    assert [(row["row"], row["share_found"], row["training_rows_removed"]) for row in report["rows"]] == [(1, 1.0, 2)]  # type: ignore[attr-defined]
    assert shares < 0.5
    assert any("1 of 2 rows of dedupe.against are in training rows" in line for line in found.said)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 2**16), st.sampled_from([2, 4, 13]), st.sampled_from([0.2, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_rows_at_the_limit_go_and_no_others(seed, ngram, limit, random) -> None:  # type: ignore[no-untyped-def]
    numbers = np.random.default_rng(seed)
    apart = [numbers.integers(VOCABULARY, size=int(numbers.integers(1, 60))).tolist() for _ in range(4)]
    training = []
    for _ in range(10):
        source = apart[int(numbers.integers(4))]
        start, stop = sorted(numbers.integers(0, len(source) + 1, size=2).tolist())
        rest = numbers.integers(VOCABULARY, size=int(numbers.integers(1, 60))).tolist()
        training.append(rest[: len(rest) // 2] + edited(source[start:stop], min(1, stop - start), numbers) + rest[len(rest) // 2 :])
    sources = [("train", training), ("against", apart)]
    order = random.sample(range(14), 14)
    with TemporaryDirectory() as folder:
        found = dedupe(Path(folder), sources, overlap(ngram, limit), order=order)

    def share(one: list[int], other: list[int]) -> float:
        common = len(grams(one, ngram) & grams(other, ngram))
        return max(common / len(grams(one, ngram)), common / len(grams(other, ngram)))

    worst = {(0, row): max(share(ids, other) for other in apart) for row, ids in enumerate(training)}
    assert found.removed.keys() == {key for key, most in worst.items() if most >= limit}
    for (_, row), (_, (_, other), alike) in found.removed.items():
        assert alike == share(training[row], apart[other]) == worst[0, row]
    assert found.kept == {key for key, most in worst.items() if most < limit}


def test_evaluation_rows_stay_and_rows_held_apart_never_do(tmp_path: Path) -> None:
    sources = [("train", [BENCHMARK, [1, 2, 3]]), ("test", [BENCHMARK]), ("against", [BENCHMARK, BENCHMARK])]
    options = overlap()
    options["dedupe"] |= near()["dedupe"]  # type: ignore[operator]
    found = dedupe(tmp_path, sources, options | {"dataset_exact_deduplication": True})
    assert found.kept == {(0, 1), (1, 0)}
    assert found.removed == {(0, 0): (OVERLAP, (2, 0), 1.0)}
    assert found.metrics["removed"] == {OVERLAP: 1} and EXACT not in found.index.left_out()


def test_rows_near_a_row_held_apart_go_where_near_is_asked_for(tmp_path: Path) -> None:
    edits = [token if number % 12 else 3 for number, token in enumerate(BENCHMARK)]
    sources = [("train", [edits]), ("test", [edits]), ("against", [BENCHMARK])]
    plain = overlap(ngram=13)
    assert dedupe(tmp_path / "1", sources, plain).kept == {(0, 0), (1, 0)}
    both = {"dedupe": plain["dedupe"] | near(0.4)["dedupe"]}  # type: ignore[operator]
    found = dedupe(tmp_path / "2", sources, both)
    assert found.kept == {(1, 0)} and found.removed[0, 0][:2] == (OVERLAP, (2, 0))


def test_the_template_of_a_benchmark_is_no_overlap(tmp_path: Path) -> None:
    prompt, random = list(range(60)), np.random.default_rng(1)
    rows = [prompt + random.integers(100, VOCABULARY, size=15).tolist() for _ in range(40)]
    found = dedupe(tmp_path, [("train", [*rows[20:], rows[3]]), ("against", rows[:20])], overlap())
    assert found.removed == {(0, 20): (OVERLAP, (1, 3), 1.0)}


def test_the_template_of_training_rows_is_no_overlap_with_a_single_row(tmp_path: Path) -> None:
    prompt, random = list(range(60)), np.random.default_rng(1)
    rows = [prompt + random.integers(100, VOCABULARY, size=15).tolist() for _ in range(40)]
    found = dedupe(tmp_path, [("train", rows), ("against", [rows[3]])], overlap())
    assert found.removed == {(0, 3): (OVERLAP, (1, 0), 1.0)}


def test_pack_trains_none_of_them(tmp_path: Path) -> None:
    found = dedupe(tmp_path, [("train", [[5, 6], [7, 8]]), ("against", [[5, 6], [9, 9]])], overlap())
    run_stage(PACK, tmp_path, {"shuffle_merged_datasets": False})
    packed = [Bins.load(tmp_path / f"data/packed/{side}.arrow").row.tolist() for side in ("train", "eval")]
    assert [[found.key(row) for row in rows] for rows in packed] == [[(0, 1)], []]


RECIPE = """\
base_model: owner/model
datasets: [{path: rows.jsonl, type: chat_template}]
learning_rate: 1e-4
dedupe:
  against:
    - path: bench
      type: chat_template
      message_field_role: from
"""


def test_an_entry_is_read_like_one_of_test_datasets(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    for name in ("rows.jsonl", "bench/train.jsonl", "bench/test.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "params.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "params.yaml")
    assert any("message_field_role" in warning for warning in recipe.warnings)
    (entry,) = recipe.view(TokenizeOptions).dedupe.against or []
    assert entry.message_property_mappings == {"role": "from"}
    linked = {name for name in local_files(Project(tmp_path), recipe) if name.startswith("against")}
    assert linked == {"against-00/train.jsonl", "against-00/test.jsonl"}


def test_random_parts_of_it_follow_the_seed() -> None:
    from pipeline.options.views import FetchOptions

    assert accepted(RECIPE.replace("message_field_role: from", "weight: 0.5")).view(FetchOptions).rows_seed == 42
    assert accepted(RECIPE).view(FetchOptions).rows_seed is None
