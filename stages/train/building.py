"""The trainer that the options ask for: of text, of judgements, or of preferences."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, TrainingArguments

from pipeline.generation import generates
from pipeline.options.views import TrainOptions
from pipeline.order import BinOrder
from pipeline.progress import Progress
from pipeline.stage import Job
from stages.train.arguments import training_arguments
from stages.train.attention.isolation import check_isolation
from stages.train.attention.joining import joins_rows
from stages.train.data.bins import BinDataset, EpochOrder, Padding, single_bins
from stages.train.data.corpus import Corpus
from stages.train.judged import StepDataset, StepTrainer
from stages.train.launch import Launch
from stages.train.loop.callbacks import SetEpoch
from stages.train.loop.schedule import Schedule
from stages.train.model.build import build_model
from stages.train.model.compilation import compiles, compiles_layers
from stages.train.model.few_bits import each_row_alone
from stages.train.model.parts import part_callbacks
from stages.train.model.precision import Precision, as_in_training
from stages.train.model.qat import rounding_callbacks, simulate_rounding
from stages.train.sharding.placing import at_its_kernels
from stages.train.sharding.trainer import ShardedTrainer
from stages.train.sharding.units import put_back, share_out
from stages.train.trainer import BinTrainer


def build_trainer(
    job: Job[TrainOptions], corpus: Corpus, schedule: Schedule, precision: Precision, launch: Launch, checkpoints: Path, progress: Progress
) -> Any:
    """A trainer on the model as it begins: a :class:`~stages.train.trainer.Steps`.

    Raises:
        RegrowError: inputs that do not fit each other, an option that this device or model cannot do.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(job.inputs["tokenizer"].path, local_files_only=True, trust_remote_code=False)
    pad = _pad_token_id(tokenizer)
    batches = partial(single_bins, BinDataset(corpus.bins, corpus.tokens, pad))
    model = build_model(job.inputs["base"].path, job.options, corpus.counts.largest_id, job.inputs["tokenizer"].content, batches)
    simulate_rounding(model, job.options)
    _mention_long_spans(model, corpus, progress)
    whole = compiles(job.options) and not compiles_layers(model, job.options)
    told = partial(training_arguments, job.options, schedule, precision, launch, checkpoints, compiles=whole)
    if generates(job.options):
        trainer = _answers(job, corpus, model, told, schedule, tokenizer, progress, launch)
        return with_callbacks(trainer, trainer.order, schedule, job.options)
    multiple = launch.world_size * job.options.micro_batch_size
    order = EpochOrder(order_of(job.options, corpus, launch.world_size), multiple if launch.world_size > 1 else 1)
    measured = schedule.evaluations.interval is not None
    if compares(job.options):
        trainer = _preferences(job, corpus, model, told, order, tokenizer, pad, measured=measured)
    else:
        trainer = _texts(job, corpus, model, told(), order, pad, measured=measured)
    return with_callbacks(trainer, order, schedule, job.options)


def with_callbacks(trainer: Any, order: EpochOrder, schedule: Schedule, options: TrainOptions) -> Any:
    """``trainer`` with those that every kind of training has."""
    own = (*part_callbacks(trainer.model, options), *rounding_callbacks(trainer.model, options))
    for callback in (SetEpoch(order, schedule.steps_per_epoch), *own):
        trainer.add_callback(callback)
    return trainer


def compares(options: TrainOptions) -> bool:
    """Whether what is learned is a preference, in a trainer of TRL's."""
    return options.rl is not None or options.reward_model


def order_of(options: TrainOptions, corpus: Corpus, world_size: int) -> BinOrder:
    """In which order an epoch trains the bins."""
    return BinOrder.asked(options, corpus.bins.tokens_per_bin(), world_size)


def _texts(
    job: Job[TrainOptions], corpus: Corpus, model: Any, arguments: TrainingArguments, order: EpochOrder, pad: int, *, measured: bool
) -> BinTrainer:
    judges = job.options.process_reward_model
    make = partial(StepDataset if judges else BinDataset, tokens=corpus.tokens, pad_token_id=pad)
    held_out = make(corpus.held_out) if measured else None
    share_out(model, job.options, arguments)
    kind = StepTrainer if judges else ShardedTrainer if job.options.fsdp_config else BinTrainer
    trainer = kind(model, arguments, make(corpus.bins), order, pad, _padding(job), held_out, options=job.options)
    # After the Trainer exists: it is what switches the cache off, and a cache would let rows see each other.
    joined = joins_rows(job.options, model) and job.options.micro_batch_size > 1
    computes = arguments.device if job.options.fsdp_config else model.device
    with at_its_kernels(model, job.options, arguments.device), as_in_training(job.options, computes), each_row_alone(model):
        check_isolation(trainer.model, corpus.bins, corpus.tokens, joined=joined)
    put_back(model)
    return trainer


def _preferences(
    job: Job[TrainOptions], corpus: Corpus, model: Any, told: Any, order: EpochOrder, tokenizer: Any, pad: int, *, measured: bool
) -> Any:
    from stages.train.preference.collate import Pads
    from stages.train.preference.rows import Feedbacks, Pairs
    from stages.train.preference.settings import method_of
    from stages.train.preference.trainers import Material, check_head, check_recomputation, check_shares

    method = method_of(job.options)
    arguments = told(kind=method.arguments, **method.settings)
    check_head(model, job.options)
    check_recomputation(job.options, arguments.world_size)
    check_shares(arguments, len(corpus.bins), len(corpus.held_out) if measured else 0, drop_last=job.options.dataloader_drop_last)
    longest = int(job.inputs["packed"].content["sequence_len"])
    make: Any = partial(Feedbacks, longest=longest) if job.options.rl == "kto" else Pairs
    rows, held_out = make(corpus.bins, corpus.tokens), make(corpus.held_out, corpus.tokens) if measured else None
    # Scores are read at the last token that is no pad, so a reward model keeps what the pad is; others are left as they were.
    pads = model.config.pad_token_id
    trainer = method.trainer(Material(model, arguments, rows, held_out, order, tokenizer, Pads(pad, _padding(job)), job.options))
    if not job.options.reward_model:
        model.config.pad_token_id = pads
    return trainer


def _answers(
    job: Job[TrainOptions],
    corpus: Corpus,
    model: Any,
    told: Any,
    schedule: Schedule,
    tokenizer: Any,
    progress: Progress,
    launch: Launch,
) -> Any:
    from stages.train.online.build import build_grpo
    from stages.train.preference.trainers import check_head

    check_head(model, job.options)
    order = order_of(job.options, corpus, launch.world_size)
    return build_grpo(job.options, corpus, model, told, order, schedule, tokenizer, progress)


def _padding(job: Job[TrainOptions]) -> Padding:
    least = int(job.inputs["packed"].content["sequence_len"]) if job.options.pad_to_sequence_len else 1
    return Padding(least, job.options.pad_to_multiple_of or 1)


def _pad_token_id(tokenizer: Any) -> int:
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # never trained nor attended to, so any id would do
    return int(next(token for token in candidates if token is not None))


def _mention_long_spans(model: Any, corpus: Corpus, progress: Progress) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and corpus.counts.longest_span > limit:
        progress.say(
            f"Rows are up to {corpus.counts.longest_span} tokens long, and base_model was made for {limit}: "
            f"expect poor results beyond that, or set sequence_len: {limit}."
        )
