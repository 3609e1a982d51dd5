"""Which rows are trained and in what order. Indexes over the tokens: nothing here tokenizes again."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import LARGEST, Group, not_yet, option, refused


class Deduplication(Group):
    """Read by dedupe."""

    dataset_exact_deduplication: bool = option(False, "Remove rows whose token ids and mask equal an earlier row's; evaluation rows win.")


class Seed(Group):
    """Read by pack (shuffle, split), train (initialisation, order, dropout) and eval (resampling)."""

    seed: int = option(42, "Seeds everything random.", ge=0, lt=2**32)


class Lengths(Group):
    """Read by pack: tokens are stored whole, and cut or dropped here."""

    sequence_len: int = option(512, "Longest row, and capacity of a packed bin, in tokens.", ge=2, le=LARGEST)
    min_sample_len: int = option(2, "Rows with fewer tokens are dropped.", ge=1)
    excess_length_strategy: Literal["drop", "truncate", "raise"] = option("drop", "What happens to rows longer than sequence_len.")
    eval_sequence_len: int | None = not_yet("Longest evaluation row; default sequence_len.", idle=(), ge=2)
    max_prompt_len: int | None = refused(
        "In Axolotl: without effect.", "prompts have no limit of their own", "limit whole rows with sequence_len", default=512
    )


class Split(Group):
    """Read by pack."""

    val_set_size: float = option(
        0.0, "Held-out share of the rows (below 1) or their number (above 1); taken after deduplication.", ge=0, le=LARGEST
    )
    shuffle_merged_datasets: bool = option(True, "Shuffle the rows of all datasets together.")
    shuffle_before_merging_datasets: bool | None = not_yet("Shuffle each dataset before they are joined.", False)
    curriculum_sampling: bool | None = not_yet("Train rows in the order of the datasets, in every epoch.")
    dataset_shard_num: int | None = not_yet("Take one of so many parts of the prepared rows.", idle=(1,), ge=1)
    dataset_shard_idx: int | None = not_yet("Which of the parts, from 0.", idle=(0,), ge=0)
