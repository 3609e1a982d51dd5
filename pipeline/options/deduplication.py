"""Which rows are not trained because other rows say the same.

The key `dedupe` is read in parts: fetch sees where the rows of `against` come from, tokenize how they become tokens, dedupe how
rows are compared. So another threshold fetches and tokenizes nothing again.
"""

from __future__ import annotations

from pydantic import ConfigDict

from pipeline.options.datasets import DatasetEntry, DatasetFormat, FetchedDataset
from pipeline.options.schema import Group, Nested, option

RECALL = 0.995
"""Of pairs right at the threshold, the share that must become candidates; more similar ones are missed less often."""

_AGAINST = "Datasets whose rows must not be trained: benchmarks, held-out sets. Entries as those of test_datasets."


class NearDuplicates(Nested):
    """MinHash over runs of tokens finds candidates, and their true similarity decides."""

    threshold: float = option(
        0.8, "Share of common n-grams (Jaccard, of prompt and answer together) from which two rows are duplicates.", gt=0, le=1
    )
    ngram: int = option(5, "Tokens in an n-gram. Fewer find rows that are edited in more places; short rows need few.", ge=1, le=1000)
    permutations: int = option(
        128, "Length of a row's signature. Bands of it are chosen such that 99 % of pairs at the threshold are found.", ge=1, le=4096
    )
    template_share: float = option(
        0.5,
        "n-grams in more than this share of a dataset's rows are its template, and do not count; 1 counts all. Twenty different rows "
        "or more have a template.",
        gt=0,
        le=1,
    )


class Overlap(Nested):
    """When a training row contains a row of `against`, or is contained in one."""

    ngram: int = option(13, "Tokens in an n-gram; texts with fewer count as one.", ge=1, le=1000)
    limit: float = option(0.5, "Share of the n-grams of either row, found in the other, from which a training row goes.", gt=0, le=1)


class HowRowsCompare(Group):
    """The part of `dedupe` that dedupe reads."""

    near: NearDuplicates | None = option(
        None, "Remove rows that nearly equal an earlier one, or one of evaluation; {} takes the defaults. Not set: only equal rows, if any."
    )
    overlap: Overlap = option(Overlap(), "How training rows are compared with those of `against`.")


class ApartSources(Group):
    """The part of `dedupe` that fetch reads."""

    against: list[FetchedDataset] | None = option(None, _AGAINST, min_length=1)


class ApartFormats(Group):
    """The part of `dedupe` that tokenize reads."""

    against: list[DatasetFormat] | None = option(None, _AGAINST, min_length=1)


class DedupeGroup(HowRowsCompare, ApartSources, ApartFormats):
    """Options of the dedupe stage that Axolotl has no key for, whole."""

    model_config = ConfigDict(extra="forbid")

    against: list[DatasetEntry] | None = option(None, _AGAINST, min_length=1)  # type: ignore[assignment]


class HeldApartSources(Group):
    """Read by fetch."""

    dedupe: ApartSources = option(ApartSources(), "Options of the dedupe stage.")


class HeldApartFormats(Group):
    """Read by tokenize."""

    dedupe: ApartFormats = option(ApartFormats(), "Options of the dedupe stage.")


class Duplicates(Group):
    """Read by dedupe."""

    dedupe: HowRowsCompare = option(HowRowsCompare(), "Options of the dedupe stage.")
    dataset_exact_deduplication: bool = option(False, "Remove rows whose token ids and mask equal an earlier row's; evaluation rows win.")


class Deduplication(HeldApartSources, HeldApartFormats, Duplicates):
    """All of it, as params.yaml gives it."""

    dedupe: DedupeGroup = option(DedupeGroup(), "Options of the dedupe stage.")
