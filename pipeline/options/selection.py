"""Which rows are trained and in what order (C05, C13, C14, C15). Indexes over the tokens: nothing here tokenizes again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.options.schema import Group, option


class Deduplication(Group):
    """Read by dedupe."""

    dataset_exact_deduplication: bool = option(False, "Remove rows whose token ids and mask equal an earlier row's; evaluation rows win.")


class Seed(Group):
    """Read by pack (shuffle, split), train (initialisation, order, dropout) and eval (resampling)."""

    seed: int = option(42, "Seeds everything random.", ge=0, lt=2**32)


class Lengths(Group):
    """Read by pack: tokens are stored whole, and cut or dropped here."""

    sequence_len: int = option(512, "Longest row, and capacity of a packed bin, in tokens.", ge=2)
    min_sample_len: int = option(2, "Rows with fewer tokens are dropped.", ge=1)
    excess_length_strategy: Literal["drop", "truncate", "raise"] = option("drop", "What happens to rows longer than sequence_len.")


class Split(Group):
    """Read by pack."""

    val_set_size: float = option(0.0, "Held-out share of the rows (below 1) or their number (above 1); taken after deduplication.", ge=0)
    shuffle_merged_datasets: bool = option(True, "Shuffle the rows of all datasets together.")


class PackGroup(BaseModel):
    """Options of the pack stage that Axolotl has no key for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum_efficiency: float = option(0.0, "Fail when a smaller share of the training bins' capacity is filled.", ge=0, le=1)


class Packing(Group):
    """Read by pack."""

    sample_packing: bool = option(False, "Put several rows in one bin of sequence_len; they never attend to each other.")
    pack: PackGroup = option(PackGroup(), "Options of the pack stage.")
