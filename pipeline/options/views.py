"""Which stage reads which options. A view inherits the groups its stage reads; that list is the declaration."""

from __future__ import annotations

from pipeline.options.adapter import Adapter
from pipeline.options.datasets import DatasetFormats, Datasets, DatasetSources, PromptMask
from pipeline.options.model import BaseModelSource, TokenizerSource
from pipeline.options.outputs import Evaluation, Merge, Quantize
from pipeline.options.schema import View
from pipeline.options.selection import Deduplication, Lengths, Packing, Seed, Split
from pipeline.options.training import Batches, Cadence, Optimization, Precision


class FetchOptions(BaseModelSource, TokenizerSource, DatasetSources, View):
    """fetch: sources, tokenizer, chat template."""


class TokenizeOptions(DatasetFormats, PromptMask, View):
    """tokenize: formats and masks."""


class DedupeOptions(Deduplication, View):
    """dedupe."""


class PackOptions(Lengths, Split, Packing, Seed, View):
    """pack: lengths, split, order, bins."""


class TrainOptions(Batches, Cadence, Optimization, Precision, Adapter, Seed, View):
    """train."""


class MergeOptions(Merge, View):
    """merge."""


class QuantizeOptions(Quantize, View):
    """quantize."""


class EvalOptions(Evaluation, Seed, View):
    """eval."""


class RecipeOptions(
    BaseModelSource,
    TokenizerSource,
    Datasets,
    PromptMask,
    Deduplication,
    Lengths,
    Split,
    Packing,
    Seed,
    Batches,
    Cadence,
    Optimization,
    Precision,
    Adapter,
    Merge,
    Quantize,
    Evaluation,
    extra="forbid",
):
    """All groups together: a whole params.yaml."""
