"""A multiple-choice benchmark: which letter a model finds likeliest behind each question, told by one token.

Rows are read in the shapes that the well-known sets have:

* ``question``, ``choices`` (a list), ``answer`` (an index or a letter): MMLU;
* ``question``, ``choices`` (``text`` and ``label`` lists), ``answerKey``: ARC;
* ``input`` (a whole prompt) and ``output`` (a letter).

``subject`` says what a question is about, where a set has several subjects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError
from stages.eval.rows import HeldOutRow

_SHAPES = "Rows need question, choices and answer (an index from 0, or a letter), or input and output (a letter)."


@dataclass(frozen=True)
class Question:
    """One row of a benchmark.

    Attributes:
        prompt: its text up to where the letter comes, without space at the end.
        letters: those that could come: A, B, …
        right: index of the right one.
        subject: empty where the set has none.
        row: number of its row at the source.
    """

    prompt: str
    letters: str
    right: int
    subject: str
    row: int


@dataclass(frozen=True)
class Benchmark:
    """The questions as tokens.

    Attributes:
        name: as params.yaml has it.
        rows: of each question its prompt and the right letter's token, the only one that is judged.
        letter_ids: of each question int64 ``[letters]``, the tokens to compare.
    """

    name: str
    questions: Sequence[Question]
    rows: Sequence[HeldOutRow]
    letter_ids: Sequence[np.ndarray]


def open_benchmark(artifact: Artifact, tokenizer: Any) -> Benchmark | None:
    """The benchmark that fetch brought, or None.

    Raises:
        RegrowError: a row that is no question, or a tokenizer whose letters cannot be told apart.
    """
    sources = artifact.content["sources"]
    if not sources:
        return None
    questions = [question for source in sources for question in _read(artifact.path, source)]
    encoded = [_encode(question, tokenizer) for question in questions]
    rows = [HeldOutRow(*parts[:2], 0, question.row) for parts, question in zip(encoded, questions, strict=True)]
    return Benchmark(sources[0]["path"], questions, rows, [letters for _, _, letters in encoded])


def _read(folder: Path, source: Mapping[str, Any]) -> Iterator[Question]:
    lines = (folder / source["rows_file"]).read_text(encoding="utf-8").split("\n")
    numbers = None if source["numbers"] is None else np.fromfile(folder / source["numbers"], "<i8").tolist()
    rows = [(index if numbers is None else numbers[index], line) for index, line in enumerate(lines) if line.strip()]
    read = [_question(line, number, f"bench_dataset: {source['file']}, row {number}") for number, line in rows]
    most = max((question.right + 1 for question in read), default=0)
    # A whole prompt does not say how many letters there are: as many as the answers use.
    yield from (question if question.letters else _with_letters(question, most) for question in read)


def _with_letters(question: Question, count: int) -> Question:
    return Question(question.prompt, ascii_uppercase[: max(2, count)], question.right, question.subject, question.row)


def _question(line: str, number: int, where: str) -> Question:
    try:
        fields = json.loads(line)
        return _mapped(fields, number)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RegrowError(f"{where} is no question: {reason}.", _SHAPES) from None


def _mapped(fields: Mapping[str, Any], number: int) -> Question:
    subject = str(fields.get("subject") or fields.get("name") or "")
    if "input" in fields:
        return Question(fields["input"].rstrip(), "", _index(fields["output"], ascii_uppercase), subject, number)
    choices = fields["choices"]
    texts, labels = (choices["text"], choices["label"]) if isinstance(choices, Mapping) else (choices, ascii_uppercase[: len(choices)])
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise ValueError(f"it has {len(texts)} choices")
    right = _index(fields["answerKey"] if "answerKey" in fields else fields["answer"], labels)
    letters = ascii_uppercase[: len(texts)]
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, texts, strict=True))
    return Question(f"{fields['question'].strip()}\n{listed}Answer:", letters, right, subject, number)


def _index(answer: int | str, labels: Sequence[str]) -> int:
    """Index of the right answer, given as such or as its label."""
    if isinstance(answer, str):
        return list(labels).index(answer.strip())
    if isinstance(answer, bool) or not 0 <= answer < len(labels):
        raise ValueError(f"answer {answer!r} is none of {len(labels)}")
    return answer


def _encode(question: Question, tokenizer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids up to the right letter, the mask of that letter alone, and the ids of all letters."""
    encoded = [tokenizer.encode(f"{question.prompt} {letter}") for letter in question.letters]
    common = next((place for place, ids in enumerate(zip(*encoded, strict=False)) if len(set(ids)) > 1), 0)
    letters = [ids[common] if common < len(ids) else -1 for ids in encoded]
    if common == 0 or len(set(letters)) < len(letters) or -1 in letters:
        raise RegrowError(
            f"bench_dataset: the tokenizer does not tell {', '.join(question.letters)} apart behind row {question.row}'s question.",
            "Set do_bench_eval: false, or judge with eval.lm_eval, which compares whole answers.",
        )
    ids = np.array([*encoded[0][:common], letters[question.right]], np.int64)
    return ids, np.arange(len(ids)) == common, np.array(letters, np.int64)


def group_by_letters(benchmark: Benchmark) -> list[tuple[np.ndarray, list[int]]]:
    """Questions that have the same letters are judged together: the letters' ids, and the questions' indices."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, letters in enumerate(benchmark.letter_ids):
        groups.setdefault(tuple(letters.tolist()), []).append(number)
    return [(np.array(letters, np.int64), numbers) for letters, numbers in groups.items()]
