"""Rules about number formats, memory, kernels and devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

RECOMPUTATION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "use_reentrant": (lambda value: isinstance(value, bool), "true or false"),
    "preserve_rng_state": (lambda value: isinstance(value, bool), "true or false"),
    "determinism_check": (lambda value: value in ("default", "none"), "default or none"),
    "every_n_layers": (lambda value: type(value) is int and value >= 1, "a whole number from 1 on"),
}
"""Settings of gradient_checkpointing, and what each may be."""


def one_precision(options: RecipeOptions) -> Iterator[Broken]:
    """The model is computed in one number format. Beside 8-bit products, the rest is in bfloat16 in any case."""
    formats = [key for key in ("bf16", "fp16", "fp8", "bfloat16", "float16", "float32") if getattr(options, key) is True]
    formats += ["bf16"] if options.bf16 == "full" else []
    if formats == ["bf16", "fp8"] or (set(formats) == {"bf16", "bfloat16"} and options.bf16 == "full"):
        return
    if len(formats) > 1:
        first, second = formats[0], formats[1]
        yield broken(
            f"{second} {first}",
            f"{first} is {str(getattr(options, first)).lower()} too, and the model is computed in one format",
            f"write `{second}: false`, or `{first}: false`",
        )


def gathered_in_8_bits_under_fsdp_2(options: RecipeOptions) -> Iterator[Broken]:
    """The exchange belongs to FSDP 2."""
    if options.fp8_enable_fsdp_float8_all_gather and options.fsdp_version != 2:
        yield broken(
            "fp8_enable_fsdp_float8_all_gather fsdp_version", "it belongs to FSDP 2", "add fsdp_config and `fsdp_version: 2`, or remove it"
        )


def offloading_recomputes(options: RecipeOptions) -> Iterator[Broken]:
    """What is offloaded are the inputs of recomputed layers."""
    if options.activation_offloading and not options.gradient_checkpointing:
        yield broken(
            "activation_offloading gradient_checkpointing",
            "only inputs of recomputed layers are offloaded",
            "add `gradient_checkpointing: true`",
        )
    asked = {"offload": True, "offload_disk": "disk"}.get(str(options.gradient_checkpointing))
    if asked is not None and options.activation_offloading not in (False, asked):
        yield broken(
            "activation_offloading gradient_checkpointing",
            f"gradient_checkpointing: {options.gradient_checkpointing} names another place for activations",
            "remove activation_offloading, or write `gradient_checkpointing: true`",
        )


def recomputation_takes_its_settings(options: RecipeOptions) -> Iterator[Broken]:
    """torch's checkpoint passes keywords that it does not know on to the layer, and takes any text for true."""
    for key, value in (options.gradient_checkpointing_kwargs or {}).items():
        place = f"gradient_checkpointing_kwargs.{key}"
        if key not in RECOMPUTATION:
            yield broken(place, "there is no such setting", f"what there is: {', '.join(RECOMPUTATION)}")
        elif not RECOMPUTATION[key][0](value):
            yield broken(place, "it has no such value", f"write {RECOMPUTATION[key][1]}")


def compiled_models_keep_plain_attention(options: RecipeOptions) -> Iterator[Broken]:
    """Models that learn from text are compiled layer by layer; others whole, when it is not known how many rows a batch has."""
    whole = options.rl or options.reward_model or options.process_reward_model
    if options.torch_compile is True and options.attn_implementation == "varlen" and whole:
        yield broken(
            "attn_implementation torch_compile", "it takes rows one by one, which torch_compile cannot", "write `attn_implementation: sdpa`"
        )


def one_loss_kernel(options: RecipeOptions) -> Iterator[Broken]:
    """The loss is computed in one way."""
    if options.chunked_cross_entropy and options.flash_attn_cross_entropy:
        yield broken("flash_attn_cross_entropy chunked_cross_entropy", "chunked_cross_entropy is set too", "remove one of them")


def scaled_softmax_is_flexible(options: RecipeOptions) -> Iterator[Broken]:
    """Only FlexAttention lets scores be changed."""
    if options.scaling_softmax and options.attn_implementation in (None, "varlen", "sdpa", "eager"):
        yield broken(
            "scaling_softmax attn_implementation", "only FlexAttention can scale scores", "write `attn_implementation: flex_attention`"
        )


def one_memory_limit(options: RecipeOptions) -> Iterator[Broken]:
    """Both say how much memory may be used."""
    if options.max_memory and options.gpu_memory_limit is not None:
        yield broken("gpu_memory_limit max_memory", "max_memory is set too", "remove one of them")


def several_processes_are_ddp(options: RecipeOptions) -> Iterator[Broken]:
    """Without DDP each would train a model of its own."""
    if options.ddp is False and options.train.num_processes > 1 and not (options.deepspeed or options.fsdp_config):
        yield broken("ddp train.num_processes", f"{options.train.num_processes} processes train together by DDP", "remove it")


def machines_have_as_many_processes(options: RecipeOptions) -> Iterator[Broken]:
    """Processes are dealt out evenly, and each machine has one at least."""
    processes, machines = options.train.num_processes, options.train.num_machines
    if processes % machines:
        fits = machines * max(1, round(processes / machines))
        yield broken(
            "train.num_machines train.num_processes",
            f"{processes} processes cannot be shared out evenly among {machines} machines",
            f"write `num_processes: {fits}`",
        )


def one_way_to_shard(options: RecipeOptions) -> Iterator[Broken]:
    """DeepSpeed and FSDP both shard."""
    if options.deepspeed and options.fsdp_config is not None:
        yield broken("deepspeed fsdp_config", "FSDP is set too, and both shard the model", "remove one of them")


def deepcompile_compiles_deepspeed(options: RecipeOptions) -> Iterator[Broken]:
    """It is a part of DeepSpeed."""
    if options.deepcompile and not options.deepspeed:
        yield broken("deepcompile deepspeed", "deepspeed is not set", "set it, or remove deepcompile")


def unpinned_only_when_offloaded(options: RecipeOptions) -> Iterator[Broken]:
    """The setting is about offloaded shards."""
    config = options.fsdp_config
    if config is not None and config.cpu_offload_pin_memory is False and not config.offload_params:
        yield broken("fsdp_config.cpu_offload_pin_memory", "it is about offloaded shards", "add `offload_params: true`, or remove it")


def contexts_divide_the_sequence(options: RecipeOptions) -> Iterator[Broken]:
    """Each process gets an equal part of a sequence."""
    size = options.context_parallel_size or 1
    if size == 1:
        return
    if options.sequence_len % size:
        yield broken(
            "context_parallel_size sequence_len",
            f"sequence_len {options.sequence_len} is not a multiple of it",
            f"write a sequence_len such as {-(-options.sequence_len // size) * size}",
        )
    if options.sample_packing and options.micro_batch_size > 1:
        yield broken(
            "micro_batch_size context_parallel_size", "context parallelism packs one long row per device", "write `micro_batch_size: 1`"
        )
    if options.attn_implementation in (None, "varlen", "sdpa", "eager"):
        yield broken(
            "context_parallel_size attn_implementation",
            "ring attention needs FlashAttention",
            "write `attn_implementation: flash_attention_2`",
        )


MACHINE = (
    one_precision,
    gathered_in_8_bits_under_fsdp_2,
    offloading_recomputes,
    recomputation_takes_its_settings,
    compiled_models_keep_plain_attention,
    one_loss_kernel,
    scaled_softmax_is_flexible,
    one_memory_limit,
    several_processes_are_ddp,
    machines_have_as_many_processes,
    one_way_to_shard,
    deepcompile_compiles_deepspeed,
    unpinned_only_when_offloaded,
    contexts_divide_the_sequence,
)
