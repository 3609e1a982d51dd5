"""Rules about FSDP 2: which of its settings hold here, and what cannot be shared out."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.optimizers import OPTIMIZERS
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_WHOLE = "FULL_STATE_DICT"


def fsdp_is_the_second(options: RecipeOptions) -> Iterator[Broken]:
    """Axolotl takes FSDP 1 where nothing is said, which trains otherwise and is no longer developed."""
    if options.fsdp_config is not None and options.fsdp_version != 2:
        yield broken("fsdp_version fsdp_config", "FSDP 1 is not supported, and PyTorch no longer develops it", "write `fsdp_version: 2`")


def shards_are_of_several(options: RecipeOptions) -> Iterator[Broken]:
    """One process would hold everything."""
    if options.fsdp_config is not None and options.train.num_processes == 1:
        works = "write `train: {num_processes: 2}`, or as many as there are GPUs, or remove fsdp_config"
        yield broken("fsdp_config train.num_processes", "there is one process, and nothing to share out", works)


def fsdp_settings_hold(options: RecipeOptions) -> Iterator[Broken]:
    """What is not what is done is refused."""
    config = options.fsdp_config
    if config is None:
        return
    if config.use_orig_params is False:
        yield broken("fsdp_config.use_orig_params", "FSDP 2 keeps the parameters as they are", "write `true`, or remove it")
    if config.auto_wrap_policy == "SIZE_BASED_WRAP":
        works = "write `TRANSFORMER_BASED_WRAP`; transformer_layer_cls_to_wrap names smaller parts than layers"
        yield broken("fsdp_config.auto_wrap_policy", "weights are gathered layer by layer, whatever their size", works)
    if config.state_dict_type not in (None, _WHOLE):
        wrong = "checkpoints hold a whole model, with shards beside it that a run goes on from"
        yield broken("fsdp_config.state_dict_type", wrong, f"write `{_WHOLE}`")
    if config.final_state_dict_type not in (None, _WHOLE):
        yield broken("fsdp_config.final_state_dict_type", "data/trained is a plain model", f"write `{_WHOLE}`")


def mixed_precision_is_bf16(options: RecipeOptions) -> Iterator[Broken]:
    """bf16 of the file decides what products are in; the policy can only say the same."""
    policy = options.fsdp_config.mixed_precision_policy if options.fsdp_config is not None else None
    key = "fsdp_config.mixed_precision_policy"
    if policy is None:
        return
    if policy not in ("bf16", "fp32", "no"):
        yield broken(key, "there are bf16 and fp32", "write `bf16`")
        return
    halves = options.bf16 in (True, "full") or options.bfloat16 is True
    if policy == "bf16" and (options.float32 or not halves):
        yield broken(f"{key} bf16", "bf16 of this file decides, and does not ask for it", "add `bf16: true`")
    if policy != "bf16" and not options.float32 and options.bf16 is not False:
        yield broken(f"{key} bf16", f"bf16 of this file decides, and is {str(options.bf16).lower()}", "add `bf16: false`")


_ALONE: tuple[tuple[str, str], ...] = (
    ("fp16", "losses would be scaled for each process by itself; write `bf16: auto`"),
    ("float16", "weights are float32 or bfloat16"),
    ("fp8", "its layers keep weights in a form of their own"),
    ("load_in_4bit", "weights in few bits cannot be cut"),
    ("load_in_8bit", "weights in few bits cannot be cut"),
    ("rl", "preferences are learnt beside a second model, which is not shared out"),
    ("reward_model", "its trainer is not told of shards yet"),
    ("process_reward_model", "its trainer is not told of shards yet"),
    ("qat", "it replaces modules whose weights are shared out"),
    ("lisa_n_layers", "it changes what is trained"),
    ("torch_compile", "layers are hooked into, and a compiler would not see that"),
    ("device_map", "shards are placed process by process"),
    ("max_memory", "shards are placed process by process"),
    ("gpu_memory_limit", "shards are placed process by process"),
    ("auto_find_batch_size", "one process without memory would leave the others waiting"),
    ("chunked_cross_entropy", "it calls the output head where its weights are not together"),
    ("activation_offloading", "it would take gathered weights away with the activations"),
)


def some_need_whole_weights(options: RecipeOptions) -> Iterator[Broken]:
    """What asks for whole weights, or for a trainer of its own, does without FSDP."""
    if options.fsdp_config is None:
        return
    for key, why in _ALONE:
        if getattr(options, key):
            yield broken(f"{key} fsdp_config", f"does not work with fsdp_config: {why}", "remove one of them")
    if options.gradient_checkpointing in ("offload", "offload_disk"):
        wrong = "it would take gathered weights away with the activations"
        yield broken("gradient_checkpointing fsdp_config", wrong, "write `gradient_checkpointing: true`")


def cut_rows_are_not_held(options: RecipeOptions) -> Iterator[Broken]:
    """Rows that are not trained are put back after each step, into weights that are cut by rows."""
    rows = [pattern for pattern in options.unfrozen_parameters or [] if pattern.endswith("]")]
    if options.fsdp_config is not None and rows:
        wrong = f"{rows[0]!r} names rows, which does not work with fsdp_config"
        yield broken("unfrozen_parameters fsdp_config", wrong, "name whole parameters, or remove fsdp_config")


def shards_have_divisible_updates(options: RecipeOptions) -> Iterator[Broken]:
    """Parameters are cut by rows: only an update that looks at one number at a time stays what it is."""
    known = OPTIMIZERS[options.optimizer]
    if options.fsdp_config is not None and not known.divisible and not known.matrices:  # of these tells matrices_are_whole
        names = ", ".join(name for name, other in OPTIMIZERS.items() if other.divisible)
        yield broken(
            "optimizer fsdp_config", f"FSDP cuts parameters by rows, which changes what {options.optimizer} does", f"write one of {names}"
        )


FSDP = (
    fsdp_is_the_second,
    shards_are_of_several,
    fsdp_settings_hold,
    mixed_precision_is_bf16,
    some_need_whole_weights,
    cut_rows_are_not_held,
    shards_have_divisible_updates,
)
