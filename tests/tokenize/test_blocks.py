"""Blocks have borders that follow from the rows; known blocks are not tokenized again, and the result is the same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifact import open_artifact
from stages.tokenize import STAGE, blocks
from stages.tokenize.blocks import split_blocks
from tests.tiny import publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import publish_raw

LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=60)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of about 512 bytes, so that a test has many."""
    monkeypatch.setattr(blocks, "AVERAGE_BYTES", 512)
    monkeypatch.setattr(blocks, "_LEAST", 64)
    monkeypatch.setattr(blocks, "_MOST", 2048)
    monkeypatch.setattr(blocks, "_PER_BYTE", 2**32 // 512)


@settings(max_examples=150, deadline=None)
@given(LINES, st.booleans())
def test_blocks_cover_a_file_without_gap_or_overlap(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    path = tmp_path_factory.mktemp("blocks") / "rows.jsonl"
    path.write_bytes(content)
    found = list(split_blocks(path))
    assert sum(block.size for block in found) == len(content)
    assert sum(block.lines for block in found) == content.count(b"\n") + (content[-1:] not in (b"", b"\n"))
    offset = line = 0
    for block in found:
        assert (block.offset, block.line) == (offset, line)
        offset, line = offset + block.size, line + block.lines


def test_rows_inserted_in_the_middle_leave_other_blocks_as_they_were(tmp_path: Path) -> None:
    lines = [json.dumps(row) + "\n" for row in chats(range(400))]
    inserted = [*lines[:200], '{"messages": "new"}\n', *lines[200:]]
    before, after = (digests(tmp_path / name, made) for name, made in (("a", lines), ("b", inserted)))
    assert len(before) > 30
    assert len(set(after) - set(before)) <= 2


def digests(path: Path, lines: Sequence[str]) -> list[str]:
    path.write_text("".join(lines))
    return [block.digest for block in split_blocks(path)]


def chats(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Conversations that differ from each other; each tenth is malformed."""
    draw = random.Random(1)
    words = ["north", "wind", "été", "lamp", "🙂", "12", "gannets"]
    made = []
    for number in numbers:
        text = " ".join(draw.choice(words) for _ in range(draw.randint(1, 9)))
        turns = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": text}]
        made.append({"messages": turns if number % 10 else "broken"})
    return made


def run(workspace: Path, rows: Sequence[dict[str, Any]], **keywords: Any) -> tuple[str, dict[str, Any]]:
    """Tokenize into a fresh data folder; the artifact's digest and its description."""
    data = workspace / "data"
    publish_raw(data, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    publish_artifact(data, "tokenizer", save_tokenizer)
    options = {"datasets": [{"path": "rows.jsonl", "type": "chat_template"}]} | keywords.pop("options", {})
    outputs, _ = run_stage(STAGE, workspace, options, **keywords)
    artifact = open_artifact(outputs["tokens"].path)
    return artifact.digest, artifact.content


def count_tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the blocks that are tokenized from now on, in this process."""
    from stages.tokenize import work

    sizes: list[int] = []
    original = work.tokenize_block

    def counted(raw: bytes, *rest: Any) -> Any:
        sizes.append(len(raw))
        return original(raw, *rest)

    monkeypatch.setattr(work, "tokenize_block", counted)
    return sizes


def test_appended_rows_cost_only_themselves_and_the_result_is_that_of_a_cold_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = chats(range(600))
    cache = tmp_path / "cache"
    run(tmp_path / "first", rows[:590], cache=cache)
    sizes = count_tokenized(monkeypatch)
    warm, _ = run(tmp_path / "warm", rows, cache=cache)
    tokenized_again = sum(sizes)
    cold, facts = run(tmp_path / "cold", rows)
    assert warm == cold
    assert tokenized_again < sum(sizes[1:]) * 0.1
    assert facts["rows"] == 540
    assert facts["rejected"] == 60


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    rows = chats(range(100))
    first, _ = run(tmp_path / "first", rows, cache=tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.tokens"))
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"!")
    files[1].write_bytes(b"")
    again, _ = run(tmp_path / "again", rows, cache=tmp_path / "cache")
    assert again == first


@pytest.mark.parametrize(
    "change", [{"train_on_inputs": True}, {"datasets": [{"path": "x.jsonl", "type": "chat_template", "train_on_eos": "none"}]}]
)
def test_what_decides_tokens_is_part_of_what_they_are_found_by(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = chats(range(50))
    run(tmp_path / "first", rows, cache=tmp_path / "cache")
    warm, _ = run(tmp_path / "warm", rows, cache=tmp_path / "cache", options=change)
    cold, _ = run(tmp_path / "cold", rows, options=change)
    assert warm == cold


def test_other_code_finds_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = chats(range(50))
    run(tmp_path / "first", rows, cache=tmp_path / "cache")
    sizes = count_tokenized(monkeypatch)
    run(tmp_path / "second", rows, cache=tmp_path / "cache", code="another")
    assert sum(sizes) > 1000


def test_the_number_of_processes_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.tokenize import corpus

    rows = chats(range(300))
    alone, facts = run(tmp_path / "alone", rows)
    monkeypatch.setattr(corpus, "_BYTES_PER_WORKER", 1)
    sizes = count_tokenized(monkeypatch)
    together, also = run(tmp_path / "together", rows, options={"dataset_num_proc": 2})
    assert not sizes  # other processes did it
    assert together == alone
    assert also == facts


def test_a_row_keeps_its_number_at_the_source(tmp_path: Path) -> None:
    from pipeline.tokens import TokenTable

    rows = chats(range(5, 25))
    numbers = [1000 + 3 * number for number in range(20)]
    publish_raw(tmp_path / "data", "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), numbers)
    publish_artifact(tmp_path / "data", "tokenizer", save_tokenizer)
    run_stage(STAGE, tmp_path, {"datasets": [{"path": "rows.jsonl", "type": "chat_template"}]})
    kept = [number for number, row in zip(numbers, rows, strict=True) if row["messages"] != "broken"]
    assert TokenTable(tmp_path / "data" / "tokens").row.tolist() == kept
    rejected = [json.loads(line)["row"] for line in (tmp_path / "data/tokens/rejected.jsonl").read_text().splitlines()]
    assert rejected == [number for number in numbers if number not in kept]


def test_dataset_prepared_path_is_where_known_blocks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, options = chats(range(50)), {"dataset_prepared_path": str(tmp_path / "prepared")}
    first, _ = run(tmp_path / "first", rows, options=options)
    assert list((tmp_path / "prepared").rglob("*.tokens"))
    sizes = count_tokenized(monkeypatch)
    again, _ = run(tmp_path / "again", rows, options=options)
    assert not sizes
    assert again == first
