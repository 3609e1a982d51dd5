"""One case: a folder with ``config.yml``, its data, and what Axolotl made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML


@dataclass(frozen=True)
class Sequence:
    """Tokens of one answer: ids, and labels as trainers take them (-100 where nothing is trained)."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, ids: np.ndarray, mask: np.ndarray, values: np.ndarray | None = None) -> Sequence:
        """From the columns of a token artifact; ``values`` of trained tokens where they are not the tokens themselves."""
        labels = np.where(mask > 0, ids.astype(np.int64), -100)
        if values is not None:
            labels[mask > 0] = values
        return cls(tuple(map(int, ids)), tuple(map(int, labels)))


Number = tuple[int, int]
"""A row of the data: which of the sources, and which row of it."""


@dataclass(frozen=True)
class Row:
    """A row of training data. ``rejected`` where there are two answers, ``wanted`` where the row carries a verdict.

    ``number``: which row of the data ours was made of. Axolotl's do not say.
    """

    chosen: Sequence
    rejected: Sequence | None = None
    wanted: bool | None = None
    number: Number | None = field(default=None, compare=False)

    @property
    def answers(self) -> tuple[Sequence, ...]:
        """The better and the worse answer, or the only one."""
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


@dataclass(frozen=True)
class Made:
    """What a config and its data became: rows, or an error; and, of ours, why rows were left out."""

    train: tuple[Row, ...] = ()
    evaluation: tuple[Row, ...] = ()
    error: str | None = None
    rejected: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of both sides."""
        return self.train + self.evaluation


@dataclass(frozen=True)
class Expected:
    """What Axolotl made. ``texts`` where it gives preference rows as texts."""

    made: Made
    ordered: bool
    texts: tuple[dict[str, Any], ...] = ()


def read_config(case: Path) -> dict[str, Any]:
    """The config of a case."""
    return dict(YAML(typ="safe", pure=True).load((case / "config.yml").read_text(encoding="utf-8")))


def read_expected(case: Path) -> Expected:
    """The expected rows of a case."""
    meta = json.loads((case / "meta.json").read_text(encoding="utf-8"))
    if meta["outcome"] == "error":
        return Expected(Made(error=str((meta.get("axolotl_error") or {}).get("message", "error"))), True)
    records = _read(case / "expected.jsonl")
    tokens = _read(case / "expected_trainer_tokens.jsonl")
    train = tuple(map(_row, tokens or records))
    texts = tuple(records) if records and "input_ids" not in records[0] and "chosen_ids" not in records[0] else ()
    evaluation = tuple(map(_row, _read(case / "expected_eval.jsonl")))
    ordered = meta["compare"] == "ordered" and not read_config(case).get("sample_packing")  # packing decides an order of its own
    return Expected(Made(() if texts and not tokens else train, evaluation), ordered, texts)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _row(record: dict[str, Any]) -> Row:
    if "input_ids" in record:
        return Row(Sequence(tuple(record["input_ids"]), tuple(record["labels"])))
    if "prompt_ids" in record and "completion_ids" in record:
        return Row(_answer(record["prompt_ids"], record["completion_ids"]), wanted=bool(record["label"]))
    if "prompt_ids" in record:
        return Row(_answer(record["prompt_ids"], record["chosen_ids"]), _answer(record["prompt_ids"], record["rejected_ids"]))
    if "chosen_ids" in record:
        return Row(_answer([], record["chosen_ids"]), _answer([], record["rejected_ids"]))
    return Row(Sequence((), ()))


def _answer(prompt: list[int], answer: list[int]) -> Sequence:
    return Sequence((*prompt, *answer), (*([-100] * len(prompt)), *answer))
