"""Which stage reads which options. A view inherits the groups its stage reads; that list is the declaration."""

from __future__ import annotations

from pipeline.options.adapter import Adapter, AdapterDetails
from pipeline.options.attention import Attention, FusedKernels
from pipeline.options.batches import Batches, BestModel, Cadence, CheckpointsElsewhere
from pipeline.options.datasets import DatasetFormats, Datasets, DatasetSources, PromptMask, RowSelection, Strictness
from pipeline.options.deduplication import Deduplication, Duplicates, HeldApartFormats, HeldApartSources
from pipeline.options.distributed import DataParallel, DeepSpeed, Mesh, ShardedDataParallel
from pipeline.options.evaluation import BenchmarkSources, Evaluation, Guards, WholeEvaluation
from pipeline.options.kbit import QuantisedBase
from pipeline.options.loading import DataLoading, Images, Padding
from pipeline.options.memory import ActivationMemory
from pipeline.options.merge import Merge, MergeSources, WholeMerge
from pipeline.options.model import BaseModelSource, ModelConstruction, Placement
from pipeline.options.online import OnlineLearning
from pipeline.options.optimizer import Optimization
from pipeline.options.packing import Packing, PositionSkips
from pipeline.options.partial import PartialTraining
from pipeline.options.precision import Compilation, Precision
from pipeline.options.preference import Aim, Preference, RewardModel
from pipeline.options.preparation import Access, Preparation, PreparedCache, TokenCache
from pipeline.options.pretraining import Pretraining, PretrainingFormats, PretrainingSources, StreamedRows, Streaming
from pipeline.options.quantization import PostTrainingQuantization, QuantizationAwareTraining, Quantize
from pipeline.options.retired import Retired
from pipeline.options.run import Invocation, Run
from pipeline.options.schedule import Restarts, Schedule
from pipeline.options.schema import View
from pipeline.options.selection import Curriculum, Lengths, Seed, Split
from pipeline.options.serving import ChatPage, Ray
from pipeline.options.tokenizer import ChatRendering, Embeddings, TokenizerSource
from pipeline.options.tracking import Comet, LocalMetrics, MLflow, Trackio, WeightsAndBiases


class FetchOptions(
    BaseModelSource,
    TokenizerSource,
    DatasetSources,
    HeldApartSources,
    PretrainingSources,
    StreamedRows,
    RowSelection,
    BenchmarkSources,
    MergeSources,
    Access,
    View,
):
    """fetch: sources, tokenizer, chat template."""


class TokenizeOptions(
    DatasetFormats, HeldApartFormats, PretrainingFormats, PromptMask, Strictness, Aim, ChatRendering, Preparation, TokenCache, View
):
    """tokenize: formats and masks."""


class DedupeOptions(Duplicates, View):
    """dedupe."""


class PackOptions(Lengths, Split, Curriculum, Packing, PositionSkips, Streaming, Seed, View):
    """pack: lengths, split, order, bins."""


class HowItLearns(Optimization, Schedule, Restarts, PartialTraining, Adapter, AdapterDetails, QuantisedBase, QuantizationAwareTraining):
    """What changes the weights."""


class WhatItLearns(Aim, Preference, RewardModel, OnlineLearning, Embeddings, ModelConstruction, Padding, Images, DataLoading):
    """What the loss is taken over."""


class HowItComputes(Precision, Compilation, ActivationMemory, Attention, FusedKernels):
    """In which numbers, with which kernels."""


class WhereItRuns(Placement, DataParallel, DeepSpeed, ShardedDataParallel, Mesh, Ray):
    """On which devices and machines."""


class WhatItKeeps(Cadence, BestModel, CheckpointsElsewhere, Guards):
    """Checkpoints and guards."""


class WhereItReports(WeightsAndBiases, MLflow, Comet, Trackio, LocalMetrics):
    """Trackers."""


class TrainOptions(
    Batches, HowItLearns, WhatItLearns, HowItComputes, WhereItRuns, WhatItKeeps, WhereItReports, Run, Curriculum, Seed, View
):
    """train."""


class MergeOptions(Merge, View):
    """merge."""


class QuantizeOptions(Quantize, PostTrainingQuantization, QuantizationAwareTraining, View):
    """quantize."""


class EvalOptions(Evaluation, Seed, View):
    """eval."""


VIEWS: dict[str, type[View]] = {
    "fetch": FetchOptions,
    "tokenize": TokenizeOptions,
    "dedupe": DedupeOptions,
    "pack": PackOptions,
    "train": TrainOptions,
    "merge": MergeOptions,
    "quantize": QuantizeOptions,
    "eval": EvalOptions,
}
"""The stages in the order in which rows pass through them, each with what it reads."""


class RecipeOptions(
    BaseModelSource,
    TokenizerSource,
    Datasets,
    Pretraining,
    StreamedRows,
    Access,
    PromptMask,
    Strictness,
    ChatRendering,
    Preparation,
    TokenCache,
    Deduplication,
    Lengths,
    Split,
    Curriculum,
    Packing,
    PositionSkips,
    Streaming,
    Seed,
    Batches,
    HowItLearns,
    WhatItLearns,
    HowItComputes,
    WhereItRuns,
    WhatItKeeps,
    WhereItReports,
    Run,
    WholeMerge,
    Quantize,
    PostTrainingQuantization,
    WholeEvaluation,
    ChatPage,
    PreparedCache,
    Invocation,
    Retired,
    extra="forbid",
):
    """All groups together: a whole params.yaml."""
