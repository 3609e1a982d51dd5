"""Near duplicates: what goes is truly near a row that stays, what stays is far from the others, whatever the order."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kept import EXACT, NEAR, KeptRows
from pipeline.options.deduplication import NearDuplicates
from pipeline.progress import Progress
from pipeline.tokens import TokenTable
from stages.dedupe.minhash import choose_bands
from stages.dedupe.near import remove_near
from stages.dedupe.roles import Roles
from tests.dedupe.workspace import VOCABULARY, Rows, dedupe, edited, grams, jaccard, near, publish_sources


@st.composite
def families(draw: st.DrawFn) -> list[tuple[str, list[list[int]]]]:
    """Sources of rows that are edited copies of a few, some of them short."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    bases = [random.integers(VOCABULARY, size=draw(st.integers(1, 40))).tolist() for _ in range(draw(st.integers(1, 4)))]
    made = []
    for split in ("train", "train", "test"):
        copies = draw(st.lists(st.tuples(st.integers(0, len(bases) - 1), st.integers(0, 4)), max_size=8))
        made.append((split, [edited(bases[base], min(places, len(bases[base])), random) for base, places in copies]))
    return made


@settings(deadline=None, derandomize=True, max_examples=40)
@given(families(), st.sampled_from([0.3, 0.6, 0.8, 1.0]), st.sampled_from([1, 3, 5]), st.randoms(use_true_random=False))
def test_what_goes_is_near_a_row_that_stays_in_any_order(sources, threshold, ngram, random) -> None:  # type: ignore[no-untyped-def]
    total = sum(len(rows) for _, rows in sources)
    orders = [list(range(total)), random.sample(range(total), total)]
    with TemporaryDirectory() as folder:
        found = [dedupe(Path(folder, str(n)), sources, near(threshold, ngram), order=order) for n, order in enumerate(orders)]
    assert found[0].kept == found[1].kept and found[0].removed == found[1].removed
    rank = {key: ((key[0] != 2), *key) for key in found[0].kept | found[0].removed.keys()}
    assert len(rank) == total
    for (source, row), (reason, (other_source, other), alike) in found[0].removed.items():
        true = jaccard(sources[source][1][row], sources[other_source][1][other], ngram)
        assert reason == NEAR and alike == true >= threshold
        assert (other_source, other) in found[0].kept and rank[other_source, other] < rank[source, row]


def rows_near(random: np.random.Generator, pairs: int, size: int = 120) -> Rows:
    """Pairs of rows, 1 to 6 tokens apart, and as many rows that are alone."""
    rows = [random.integers(VOCABULARY, size=size).tolist() for _ in range(2 * pairs)]
    return [*rows, *(edited(row, int(random.integers(1, 7)), random) for row in rows[:pairs])]


@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.7, 0.8, 0.9])
def test_pairs_above_the_threshold_are_found(tmp_path: Path, threshold: float) -> None:
    ngram, pairs = 5, 1500
    rows = rows_near(np.random.default_rng(1), pairs)
    if threshold < 0.5:
        rows = [*rows[: 2 * pairs], *(row[:35] + other[35:] for row, other in zip(rows[:pairs], rows[pairs:], strict=False))]
    found = dedupe(tmp_path, [("train", rows)], near(threshold, ngram))
    true = {2 * pairs + n for n in range(pairs) if jaccard(rows[n], rows[2 * pairs + n], ngram) >= threshold}
    removed = {row for _, row in found.removed}
    assert len(true) > 200 and removed <= true | set(range(2 * pairs, 3 * pairs))
    assert len(true & removed) / len(true) >= 0.99


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.75, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("permutations", [128, 256])
def test_bands_find_pairs_at_the_threshold_and_use_no_more_hashes_than_allowed(threshold: float, permutations: int) -> None:
    bands, width = choose_bands(threshold, permutations)
    assert bands * width <= permutations
    assert 1 - (1 - threshold**width) ** bands >= 0.99
    wider = permutations // (width + 1)
    assert wider == 0 or 1 - (1 - threshold ** (width + 1)) ** wider < 0.995


def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.dedupe.ngrams.CHUNK_TOKENS", 1000)
    rows = rows_near(np.random.default_rng(2), 60)
    artifact = publish_sources(tmp_path / "data", [("train", rows)])
    tokens = TokenTable(artifact.path)
    roles = Roles.of(tokens, artifact.content["sources"])
    results = []
    for workers in (1, 2, 7):
        index = KeptRows.all_of(len(tokens))
        found = remove_near(index, tokens, roles, NearDuplicates(), Progress(), workers)
        results.append((index.duplicate_of.tolist(), index.similarity.tolist()[-60:], found))
    assert results[0][0] == results[1][0] == results[2][0] and max(results[0][0]) >= 0
    assert results[0][2] == results[1][2] == results[2][2]


def test_chunks_and_what_is_remembered_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_near(np.random.default_rng(3), 40)
    whole = dedupe(tmp_path / "1", [("train", rows)], near())
    monkeypatch.setattr("stages.dedupe.ngrams.CHUNK_TOKENS", 130)
    monkeypatch.setattr("stages.dedupe.ngrams._REMEMBERED", 300)
    monkeypatch.setattr("stages.dedupe.minhash._BLOCK", 7)
    assert dedupe(tmp_path / "2", [("train", rows)], near()).removed == whole.removed != {}


def test_a_chain_of_rows_goes_only_as_far_as_the_first_row_is_near(tmp_path: Path) -> None:
    long = list(range(100))
    rows = [long[start : start + 60] for start in (0, 6, 12, 18)]
    assert [round(jaccard(rows[0], row, 3), 2) for row in rows] == [1.0, 0.81, 0.66, 0.53]
    found = dedupe(tmp_path, [("train", rows)], near(0.8))
    assert found.kept == {(0, 0), (0, 2)}
    assert {key: other for key, (_, other, _) in found.removed.items()} == {(0, 1): (0, 0), (0, 3): (0, 2)}


def test_rows_of_evaluation_win_and_equal_rows_are_near(tmp_path: Path) -> None:
    row = list(range(50))
    sources = [("train", [row, [*row[:49], 77]]), ("test", [row, [*row[:49], 99]])]
    found = dedupe(tmp_path, sources, near())
    assert found.kept == {(1, 0)}
    assert found.removed[0, 0] == (NEAR, (1, 0), 1.0)
    assert {other for _, other, _ in found.removed.values()} == {(1, 0)}


def test_exact_comes_first(tmp_path: Path) -> None:
    row = list(range(50))
    found = dedupe(tmp_path, [("train", [row, row, [*row[:49], 77]])], near() | {"dataset_exact_deduplication": True})
    assert found.metrics["removed"] == {EXACT: 1, NEAR: 1}


def test_short_rows_are_compared_whole(tmp_path: Path) -> None:
    found = dedupe(tmp_path, [("train", [[1, 2], [1, 2], [1, 3], [1], [1], [2, 1]])], near(0.8, 5))
    assert found.kept == {(0, 0), (0, 2), (0, 3), (0, 5)}


def test_pairs_are_compared_with_both_answers(tmp_path: Path) -> None:
    prompt, answers = list(range(40)), [list(range(k, k + 40)) for k in (100, 200, 300)]
    chosen = [prompt + answers[0], prompt + answers[0], prompt + answers[0]]
    rejected = [prompt + answers[1], prompt + answers[1] + [9], prompt + answers[2]]
    found = dedupe(tmp_path, [("train", chosen)], near(0.8), rejected=[rejected])
    assert found.kept == {(0, 0), (0, 2)}
    sets = [grams(one, 3) | grams(other, 3) for one, other in zip(chosen, rejected, strict=True)]
    assert found.removed[0, 1][2] == len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_what_most_rows_have_is_a_template_and_does_not_count(tmp_path: Path) -> None:
    prompt, random = list(range(100)), np.random.default_rng(4)
    texts = [random.integers(200, VOCABULARY, size=8).tolist() for _ in range(30)]
    rows = [prompt + text for text in texts] + [prompt + texts[0], [*prompt, *texts[1][:7], 3]]
    counted = dedupe(tmp_path / "all", [("train", rows)], near(0.8, 3))
    found = dedupe(tmp_path / "text", [("train", rows)], near(0.6, 3, template_share=0.5))
    assert counted.kept == {(0, 0)}
    assert {key: other for key, (_, other, _) in found.removed.items()} == {(0, 30): (0, 0), (0, 31): (0, 1)}


def test_few_rows_have_no_template(tmp_path: Path) -> None:
    row = list(range(100))
    found = dedupe(tmp_path, [("train", [[*row, 200 + n] for n in range(5)])], {"dedupe": {"near": {}}})
    assert found.kept == {(0, 0)}


def test_rows_that_are_all_template_are_compared_whole(tmp_path: Path) -> None:
    rows = [list(range(30)), list(range(30)), *(list(range(30)) + [100 + 9 * n + k for k in range(9)] for n in range(30))]
    found = dedupe(tmp_path, [("train", rows)], near(0.8, 3, template_share=0.5))
    assert found.removed.keys() == {(0, 1)}
