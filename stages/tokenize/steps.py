"""stepwise_supervised: a prompt, the steps of an answer, and for each step whether it is right."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.columns import list_field
from stages.tokenize.example import BadRow, Format, Row, Tokenized, text_field
from stages.tokenize.formats import Surroundings


def steps_format(entry: DatasetFormat, around: Surroundings) -> Format:
    """Columns prompt, completions (the steps) and labels. Prompt, steps and separators are tokenized apart; the last token of
    the separator after a step carries the step's label, and is all that is trained.

    Raises:
        RegrowError: the tokenizer makes no token of the separator.
    """
    encode = _encoder(around)
    separator = encode([entry.step_separator])[0]
    if not separator:
        raise RegrowError(f"step_separator {entry.step_separator!r} gives no token.", 'Write another one, such as step_separator: "\\n".')
    bos = around.special_tokens.get("bos_token")
    head = encode([bos])[0] if bos else []

    def steps(row: Row) -> Tokenized:
        completions, labels = _steps(row)
        prompt, *made = encode([text_field(row, "prompt"), *completions])
        ids: list[int] = []
        mask: list[int] = []
        for place, step in enumerate(made):
            ids += [*step, *separator]
            labelled = not entry.train_on_last_step_only or place == len(made) - 1
            mask += [0] * (len(step) + len(separator) - 1) + [int(labelled)]
        ids, mask = ids[: entry.max_completion_length], mask[: entry.max_completion_length]
        judged = labels[-1:] if entry.train_on_last_step_only else labels
        return Tokenized([*head, *prompt, *ids], [0] * (len(head) + len(prompt)) + mask, tuple(judged[: sum(mask)]))

    return steps


def _encoder(around: Surroundings) -> Any:
    tokenizer = Tokenizer.from_file(str(around.tokenizer / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: list[str]) -> list[list[int]]:
        try:
            return [list(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        except TypeError:  # what the binding says of text with half a surrogate pair
            raise BadRow("text with a lone surrogate, which no UTF-8 can hold") from None

    return encode


def _steps(row: Row) -> tuple[list[str], list[int]]:
    completions, labels = list_field(row, "completions"), list_field(row, "labels")
    if len(completions) != len(labels):
        raise BadRow(f"{len(completions)} completions and {len(labels)} labels")
    if not all(isinstance(step, str) for step in completions):
        raise BadRow("column 'completions' holds something that is no text")
    if not all(isinstance(label, bool) or label in (0, 1) for label in labels):
        raise BadRow("column 'labels' holds something that is neither true nor false")
    return completions, [int(label) for label in labels]
