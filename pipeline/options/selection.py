"""Which rows are trained and in what order. Indexes over the tokens: nothing here tokenizes again."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import LARGEST, Group, option, refused


class Seed(Group):
    """Read by pack (shuffle, split), train (initialisation, order, dropout) and eval (resampling)."""

    seed: int = option(42, "Seeds everything random.", ge=0, lt=2**32)


class Lengths(Group):
    """Read by pack: tokens are stored whole, and cut or dropped here."""

    sequence_len: int = option(512, "Longest row, and capacity of a packed bin, in tokens.", ge=2, le=LARGEST)
    min_sample_len: int = option(2, "Rows with fewer tokens are dropped.", ge=1)
    excess_length_strategy: Literal["drop", "truncate", "raise"] = option("drop", "What happens to rows longer than sequence_len.")
    eval_sequence_len: int | None = option(None, "Longest evaluation row, in tokens; default sequence_len.", ge=2, le=LARGEST)
    max_prompt_len: int | None = refused(
        "In Axolotl: without effect.", "prompts have no limit of their own", "limit whole rows with sequence_len", default=512
    )


class Split(Group):
    """Read by pack."""

    val_set_size: float = option(
        0.0,
        "Held-out share of the rows (up to 1, which is all of them) or their number (above 1); taken after deduplication.",
        ge=0,
        le=LARGEST,
    )
    shuffle_merged_datasets: bool = option(True, "Shuffle the rows of all datasets together.")
    shuffle_before_merging_datasets: bool = option(
        False, "Shuffle the rows of each dataset, and keep the order of the datasets; shuffle_merged_datasets: false must be set for it."
    )
    dataset_shard_num: int | None = option(None, "Take one of so many equal parts of the rows, in their order.", ge=1, le=LARGEST)
    dataset_shard_idx: int | None = option(None, "Which of the parts, from 0; default 0.", ge=0)


class Curriculum(Group):
    """Read by pack and train."""

    curriculum_sampling: bool = option(
        False, "Train rows in the order in which the datasets hold them, in every epoch; packing then fills bins in that order."
    )
