"""Rules about which rows stand for others."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log

from pipeline.options.deduplication import RECALL
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions


def signatures_are_long_enough(options: RecipeOptions) -> Iterator[Broken]:
    """The less similar duplicates may be, the more hashes find them."""
    near = options.dedupe.near
    if near is None or near.threshold == 1:
        return
    least = ceil(log(1 - RECALL) / log(1 - near.threshold))
    if near.permutations < least:
        wrong = f"{near.permutations} hashes miss too many pairs at a threshold of {near.threshold:g}"
        yield broken("dedupe.near.permutations dedupe.near.threshold", wrong, f"write at least {least}, or raise the threshold")


def rows_are_trained_or_held_apart(options: RecipeOptions) -> Iterator[Broken]:
    """Rows that are held apart are never trained, nor rows that repeat them."""
    for index, entry in enumerate(options.dedupe.against or []):
        if entry in options.datasets:
            wrong = f"the same entry as datasets.{options.datasets.index(entry)}, of which no row would be left"
            yield broken(f"dedupe.against.{index} datasets", wrong, "remove it here, or there")


def overlap_has_something_to_compare_with(options: RecipeOptions) -> Iterator[Broken]:
    """Overlap is looked for between training rows and those held apart."""
    if "overlap" in options.dedupe.model_fields_set and options.dedupe.against is None:
        yield broken("dedupe.overlap", "without effect: dedupe.against names no rows", "add dedupe.against, or remove it")


DUPLICATES = (signatures_are_long_enough, rows_are_trained_or_held_apart)
"""Broken, the file is refused."""
