"""The runner on small cases, and on the same cases with a wrong row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.__main__ import judge, main
from tests.tiny import save_tokenizer

CASES = Path(__file__).parent / "cases"
SAID = {
    "instructions": "documented: rows-that-train-nothing",
    "conversation": "documented: end-of-an-empty-turn",
    "preferences": "documented: shares-of-preferences",
    "null": "documented: null-is-nothing",
}


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A copy of the cases, and the tokenizer that they name beside it."""
    save_tokenizer(tmp_path / "tokenizers" / "tiny")
    (tmp_path / "tokenizers" / "tiny" / "config.json").write_text("{}", encoding="utf-8")
    return Path(shutil.copytree(CASES, tmp_path / "cases"))


def test_each_case_is_judged_and_counted(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = cases / "plain"
    shutil.copytree(cases / "instructions", plain)
    change(plain, lambda rows: rows[:1])
    (plain / "data.jsonl").write_text((plain / "data.jsonl").read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    assert main([str(cases)]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert said == SAID | {"plain": "equal"}
    assert main([str(cases), "plain", "null"]) == 0
    assert capsys.readouterr().out.endswith("1 equal, 1 documented, 0 different\n")


def change(case: Path, changed: Callable[[list[Any]], list[Any]]) -> None:
    path = case / "expected.jsonl"
    rows = changed([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def retrained(row: dict[str, Any], at: int) -> dict[str, Any]:
    labels = list(row["labels"])
    labels[at] = row["input_ids"][at] if labels[at] == -100 else -100
    return row | {"labels": labels}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("instructions", lambda rows: [retrained(rows[0], -1), rows[1]]),
        ("instructions", lambda rows: [rows[0], retrained(rows[1], 3)]),
        ("instructions", lambda rows: [rows[0] | {"input_ids": [*rows[0]["input_ids"][:-1], 7]}, rows[1]]),
        ("instructions", lambda rows: [*rows, rows[0]]),
        ("conversation", lambda rows: [retrained(rows[0], 5)]),
        ("conversation", lambda rows: [retrained(rows[0], -1)]),
        ("conversation", lambda rows: [retrained(rows[0], -3)]),
        ("preferences", lambda rows: rows[:3]),
        ("preferences", lambda rows: [rows[0] | {"chosen": "=<|im_end|>"}, *rows[1:]]),
    ],
)
def test_a_wrong_row_is_different(cases: Path, tmp_path: Path, name: str, changed: Callable[[list[Any]], list[Any]]) -> None:
    change(cases / name, changed)
    assert judge(cases / name, tmp_path / "made").startswith("different: ")


def test_an_error_of_another_kind_is_different(cases: Path, tmp_path: Path) -> None:
    meta = json.loads((cases / "null" / "meta.json").read_text(encoding="utf-8"))
    (cases / "null" / "meta.json").write_text(json.dumps(meta | {"axolotl_error": {"message": "out of cheese"}}), encoding="utf-8")
    assert judge(cases / "null", tmp_path / "made").startswith("different: Axolotl stops (out of cheese)")
