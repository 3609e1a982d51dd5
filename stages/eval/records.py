"""Records beside the report: predictions, samples, and a CSV for each plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.eval.answers import Answer, decode, reference_text
from stages.eval.held_out import HeldOut
from stages.eval.judge import Judgement
from stages.eval.scores import Scores


def prediction_records(name: str, judgement: Judgement, held_out: HeldOut) -> Iterator[dict[str, Any]]:
    """What one model made of each row; ``loss`` is the mean over the row's ``tokens`` judged tokens."""
    correct = held_out.correct(judgement.exact, judgement.choice)
    for number, row in enumerate(held_out.rows):
        loss = round(float(judgement.nll[number] / judgement.tokens[number]), 6)
        record = {"model": name, **held_out.origin(row), "tokens": int(judgement.tokens[number]), "loss": loss}
        if held_out.choices is not None:
            record["choice"] = held_out.choices.texts[judgement.choice[number]]
        yield record | {"correct": bool(correct[number])}


def sample_records(held_out: HeldOut, answers: Mapping[str, Sequence[Answer]], samples: int) -> list[dict[str, Any]]:
    """Prompt, reference and each model's answer, one record per sample."""
    records = []
    for number, row in enumerate(held_out.rows[:samples]):
        prompt = decode(row.ids[: row.first], held_out.tokenizer)
        given = {name: vars(listed[number]) for name, listed in answers.items()}
        records.append({**held_out.origin(row), "prompt": prompt, "reference": reference_text(row, held_out.tokenizer), "answers": given})
    return records


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, keys in the order given."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def write_plot(path: Path, scores: Mapping[str, Scores], measure: str) -> None:
    """A point and its 95 % interval per model, for `dvc plots`."""
    columns = (measure, f"{measure}_low", f"{measure}_high")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["model", "measure", "value", "low", "high"])
        writer.writerows([name, measure, *(found[column] for column in columns)] for name, found in scores.items())
