"""Records beside the report: what each model made of each row, as Parquet; samples; and a CSV for each plot.

Parquet, because people open these files with other programs, and nothing here reads them again. Uncompressed and without a writer's
notes on its schema, equal records make equal bytes with one version of pyarrow, which is part of eval's identity.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.eval.answers import decode, read_answer, reference_text
from stages.eval.benchmark import Benchmark
from stages.eval.generate import Generated
from stages.eval.held_out import HeldOut
from stages.eval.judge import Judgement
from stages.eval.scores import Scores

ORIGIN = [("model", pa.string()), ("source", pa.string()), ("file", pa.string()), ("row", pa.int64())]
PREDICTIONS = pa.schema([*ORIGIN, ("tokens", pa.int64()), ("loss", pa.float64()), ("choice", pa.string()), ("correct", pa.bool_())])
GENERATIONS = pa.schema(
    [*ORIGIN, ("turn", pa.int64()), ("prompt", pa.string()), ("reference", pa.string()), ("answer", pa.string()), ("ended", pa.bool_())]
)
QUESTIONS = pa.schema(
    [
        ("model", pa.string()),
        ("subject", pa.string()),
        ("row", pa.int64()),
        ("right", pa.string()),
        ("chosen", pa.string()),
        ("correct", pa.bool_()),
    ]
)


def prediction_records(name: str, judgement: Judgement, held_out: HeldOut) -> Iterator[dict[str, Any]]:
    """What one model made of each row; ``loss`` is the mean over the row's ``tokens`` judged tokens."""
    correct = held_out.correct(judgement.exact, judgement.choice)
    for number, row in enumerate(held_out.rows):
        loss = round(float(judgement.nll[number] / judgement.tokens[number]), 6)
        chosen = held_out.choices.texts[judgement.choice[number]] if held_out.choices is not None else None
        record = {"model": name, **held_out.origin(row), "tokens": int(judgement.tokens[number]), "loss": loss}
        yield record | {"choice": chosen, "correct": bool(correct[number])}


def generation_records(
    name: str, given: Sequence[Generated], texts: Sequence[str], references: Sequence[str], held_out: HeldOut
) -> Iterator[dict[str, Any]]:
    """What one model answered to each turn, and what the data says. In the prompt special tokens are visible."""
    for turn, answer, text, reference in zip(held_out.turns, given, texts, references, strict=True):
        record = {"model": name, **held_out.origin(held_out.rows[turn.row]), "turn": turn.turn}
        prompt = decode(turn.prompt, held_out.tokenizer)
        yield record | {"prompt": prompt, "reference": reference, "answer": text, "ended": answer.ended}


def question_records(name: str, chosen: np.ndarray, benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    """Which letter one model chose for each question."""
    for question, letter in zip(benchmark.questions, chosen.tolist(), strict=True):
        record = {"model": name, "subject": question.subject or None, "row": question.row}
        letters = question.letters
        yield record | {"right": letters[question.right], "chosen": letters[letter], "correct": letter == question.right}


def sample_records(held_out: HeldOut, answers: Mapping[str, Sequence[Generated]], samples: int) -> list[dict[str, Any]]:
    """Prompt, reference and each model's answer, one record per sample."""
    records = []
    for number, turn in enumerate(held_out.samples[:samples]):
        tokenizer, ending = held_out.tokenizer, held_out.ending
        given = {name: vars(read_answer(listed[number], turn, tokenizer, ending)) for name, listed in answers.items()}
        texts = {"prompt": decode(turn.prompt, tokenizer), "reference": reference_text(turn, tokenizer, ending)}
        records.append({**held_out.origin(held_out.rows[turn.row]), **texts, "answers": given})
    return records


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, keys in the order given."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def write_parquet(path: Path, schema: pa.Schema, records: Iterable[Mapping[str, Any]]) -> None:
    """A table of records; columns that none of them fills are left out."""
    table = pa.Table.from_pylist(list(records), schema)
    table = table.select([name for name in table.column_names if not len(table) or table[name].null_count < len(table)])
    pq.write_table(table, path, compression="none", store_schema=False)


def write_plot(path: Path, scores: Mapping[str, Scores], measure: str) -> None:
    """A point and its 95 % interval per model, for `dvc plots`."""
    columns = (measure, f"{measure}_low", f"{measure}_high")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["model", "measure", "value", "low", "high"])
        writer.writerows([name, measure, *(found[column] for column in columns)] for name, found in scores.items())


def write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Lines with the columns of all of them, in the order in which these appear; empty where a line has none."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
