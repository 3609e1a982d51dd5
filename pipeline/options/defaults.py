"""Defaults that depend on other options, on the machine or on the data: all of them, in the order they are decided.

``settled`` are those that other options alone decide; they are part of what a stage reads. The others are decided when a
stage runs, by the rule that is told here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.options.hardware import Machine
from pipeline.options.tracking import NAMED_BY
from pipeline.options.views import RecipeOptions


@dataclass(frozen=True)
class Decided:
    """The value of an option that the file leaves open, and why it has it."""

    key: str
    value: Any
    reason: str


Decision = Callable[[RecipeOptions, Machine], Iterator[Decided]]


def settled(options: RecipeOptions) -> dict[str, Any]:
    """Values that other options decide, by top-level key."""
    return {found.key: found.value for decide in SETTLED for found in decide(options)}


def decisions(options: RecipeOptions, machine: Machine) -> dict[str, Decided]:
    """Every dependent default of a file, by key, in the order of :data:`SETTLED` and :data:`WHEN_RUN`."""
    found = [item for decide in SETTLED for item in decide(options)]
    found += [item for decide in WHEN_RUN for item in decide(options, machine)]
    return {item.key: item for item in found}


def template_of_text(options: RecipeOptions) -> Iterator[Decided]:
    """Jinja text alone is meant to be used."""
    if options.chat_template is None and options.chat_template_jinja is not None:
        yield Decided("chat_template", "jinja", "chat_template_jinja is set")


def documents(options: RecipeOptions) -> Iterator[Decided]:
    """Documents to pretrain on are rows like others, after those that are skipped."""
    if isinstance(options.pretraining_dataset, list):
        entries = zip(options.datasets, options.pretraining_dataset, strict=True)
        value = [entry.model_dump() | {"skip": given.skip} for entry, given in entries]
        yield Decided("datasets", value, "pretraining_dataset stands in for it")


def random_rows(options: RecipeOptions) -> Iterator[Decided]:
    """Only random parts depend on the seed."""
    entries = [*options.datasets, *(options.test_datasets or []), *(options.dedupe.against or [])]
    if any((entry.shards or 1) > 1 or (entry.weight or 1) < 1 for entry in entries):
        yield Decided("rows_seed", options.seed, "seed")


BYTES_PER_TOKEN = 16
"""Of a row as JSON. Text takes 3 to 5, escaped Chinese up to 9: what is fetched lasts longer than max_steps, never shorter."""


def streamed_rows(options: RecipeOptions) -> Iterator[Decided]:
    """As many rows as max_steps of one process can train at most. Where rows are cut to sequence_len, their rest does not count."""
    if options.max_steps is None or not (options.streaming or options.pretraining_dataset):
        return
    row = options.sequence_len * BYTES_PER_TOKEN
    rows = options.max_steps * (options.batch_size or options.micro_batch_size * options.gradient_accumulation_steps)
    yield Decided("stream_bytes", rows * row, f"max_steps x batch x sequence_len tokens of {BYTES_PER_TOKEN} bytes")
    if any(entry.type not in ("completion", "pretrain") for entry in options.datasets):
        yield Decided("stream_row_bytes", row, f"sequence_len tokens of {BYTES_PER_TOKEN} bytes")


def tokenizer_of_config(options: RecipeOptions) -> Iterator[Decided]:
    """Config files from elsewhere come with their tokenizer."""
    if options.tokenizer_config is None and options.base_model_config is not None:
        yield Decided("tokenizer_config", options.base_model_config, "base_model_config, when not set")


def formats_of_judges(options: RecipeOptions) -> Iterator[Decided]:
    """No format keeps the head of a model that scores."""
    if (options.reward_model or options.process_reward_model) and "quantize" not in options.model_fields_set:
        yield Decided("quantize", [], "reward models are not quantised")


def trackers(options: RecipeOptions) -> Iterator[Decided]:
    """A project's name asks for its tracker."""
    for switch, name in NAMED_BY.items():
        if getattr(options, switch) is None and getattr(options, name):
            off = switch == "use_wandb" and options.wandb_mode == "disabled"
            yield Decided(switch, not off, "wandb_mode is disabled" if off else f"{name} is set")


SETTLED: tuple[Callable[[RecipeOptions], Iterator[Decided]], ...] = (
    template_of_text,
    documents,
    random_rows,
    streamed_rows,
    tokenizer_of_config,
    formats_of_judges,
    trackers,
)


def tokenizer_of_model(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """A model comes with its tokenizer and template."""
    if options.tokenizer_config is None and options.base_model_config is None:
        yield Decided("tokenizer_config", options.base_model, "base_model, when not set")
    if options.chat_template is None and options.chat_template_jinja is None:
        yield Decided("chat_template", "tokenizer_default", "the tokenizer's own, when it has one")


def turns_to_train(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """Answers are trained."""
    for index, entry in enumerate(options.datasets):
        if entry.type != "chat_template":
            continue
        if entry.roles_to_train is None:
            yield Decided(f"datasets.{index}.roles_to_train", ["assistant"], "answers are trained")
        if entry.message_property_mappings is None:
            yield Decided(f"datasets.{index}.message_property_mappings", {"role": "role", "content": "content"}, "the usual names")


def precision(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """bf16 where the hardware has it. On a CPU its products are emulated, many times slower than fp32."""
    if options.bf16 != "auto":
        return
    if format := next((key for key in ("fp8", "fp16", "bfloat16", "float16", "float32") if getattr(options, key)), None):
        yield Decided("bf16", False, f"{format} is true")
    elif machine.gpu:
        yield Decided("bf16", "true if the GPU has bf16, else false (fp32)", "auto, on a GPU")
    else:
        yield Decided("bf16", False, "auto, and there is no GPU here: fp32")


def adapted_modules(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """PEFT knows the attention layers of common architectures."""
    named_otherwise = options.lora_target_modules is not None or options.lora_target_parameters or options.lora_model_dir is not None
    if options.adapter is not None and not named_otherwise:
        what = "all linear layers except the output head" if options.lora_target_linear else "PEFT's choice for the architecture"
        yield Decided("lora_target_modules", what, "lora_target_linear" if options.lora_target_linear else "when no module is named")


def attention(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """Rows of a bin one by one cost less than the whole bin with most of it masked."""
    whole = options.rl or options.reward_model or options.process_reward_model
    if options.attn_implementation is None and options.torch_compile is True and whole:
        yield Decided("attn_implementation", "sdpa", "torch_compile: how many rows a bin has is not known when the model is compiled")
    elif options.attn_implementation is None:
        yield Decided(
            "attn_implementation", "varlen where the architecture takes it, else sdpa or eager", "fastest for rows of unequal length"
        )


def flattening(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """A kernel that compares all pairs of a row loses by longer rows what it saves of padding."""
    if options.batch_flattening == "auto":
        dense = options.attn_implementation in ("sdpa", "eager", "flex_attention")
        value = False if dense else "true with varlen or FlashAttention, else false"
        yield Decided("batch_flattening", value, "auto; sdpa and eager compare all pairs of a row")


def warmup(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """A short warm-up, unless the file says how long."""
    if options.warmup_steps is None and options.warmup_ratio is None:
        steps = "3 % of the steps, at most 100" if options.max_steps is None else _warmup_steps(options.max_steps)
        yield Decided("warmup_steps", steps, "3 % of the steps, at most 100, when neither warm-up key is set")


def _warmup_steps(steps: int) -> int:
    """One step of warm-up would be none."""
    default = min(int(0.03 * steps), 100)
    return 2 if default == 1 else default


def logging(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """About two hundred lines per run, and never sparser than every tenth step."""
    if options.logging_steps is None:
        steps = "0.5 % of the steps, from 1 to 10" if options.max_steps is None else max(1, min(int(0.005 * options.max_steps), 10))
        yield Decided("logging_steps", steps, "0.5 % of the steps, at least 1, at most 10")


def checkpoints(options: RecipeOptions, machine: Machine) -> Iterator[Decided]:
    """One checkpoint per epoch, unless the file says when."""
    if options.save_steps is None and options.saves_per_epoch is None and options.save_strategy is None:
        yield Decided("save_steps", "the steps of one epoch", "one checkpoint per epoch, when not set")


WHEN_RUN: tuple[Decision, ...] = (
    tokenizer_of_model,
    turns_to_train,
    precision,
    adapted_modules,
    attention,
    flattening,
    warmup,
    logging,
    checkpoints,
)
