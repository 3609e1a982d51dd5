"""Rules about DeepSpeed's ZeRO: which of its settings are passed on, what has to agree, what cannot be shared out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import RegrowError
from pipeline.optimizers import OPTIMIZERS
from pipeline.options.reading.source import Place
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions
from pipeline.steps import accumulation_steps

_AUTO = "auto"
_FLAG, _COUNT, _AUTO_COUNT = "true or false", "a number from 0 on", 'a number from 0 on, or "auto"'

_SIZE = 'a number from 1 on, or "auto"'

_OFFLOAD = {"device": "none or cpu", "pin_memory": _FLAG, "buffer_count": _COUNT}
_ZERO: dict[str, str | Mapping[str, str]] = {
    "stage": "1, 2 or 3",
    "contiguous_gradients": _FLAG,
    "reduce_scatter": _FLAG,
    "reduce_bucket_size": _SIZE,
    "allgather_partitions": _FLAG,
    "allgather_bucket_size": _COUNT,
    "overlap_comm": _FLAG,
    "round_robin_gradients": _FLAG,
    "offload_optimizer": _OFFLOAD,
    "offload_param": {**_OFFLOAD, "buffer_size": _COUNT, "max_in_cpu": _COUNT},
    "sub_group_size": _COUNT,
    "stage3_prefetch_bucket_size": _AUTO_COUNT,
    "stage3_param_persistence_threshold": _AUTO_COUNT,
    "stage3_max_live_parameters": _COUNT,
    "stage3_max_reuse_distance": _COUNT,
    "stage3_gather_16bit_weights_on_model_save": "true",
}
"""What is passed on from zero_optimization."""

_SCALING = {
    "auto_cast": _FLAG,
    "loss_scale": _COUNT,
    "initial_scale_power": _COUNT,
    "loss_scale_window": _COUNT,
    "hysteresis": _COUNT,
    "consecutive_hysteresis": _FLAG,
    "min_loss_scale": _COUNT,
}
_OTHERS: dict[str, str | Mapping[str, str]] = {
    "bf16": {"enabled": 'true, false or "auto"'},
    "fp16": {"enabled": 'false or "auto"', **_SCALING},
    "train_batch_size": "",
    "train_micro_batch_size_per_gpu": "",
    "gradient_accumulation_steps": "",
    "gradient_clipping": "",
    "zero_allow_untested_optimizer": "true",
    "zero_force_ds_cpu_optimizer": "false",
    "steps_per_print": _AUTO_COUNT,
    "wall_clock_breakdown": "false",
}
"""What else is accepted. Those without a word have to agree with options, see :func:`deepspeed_agrees`."""

_INSTEAD = {
    "optimizer": "remove it: optimizer, learning_rate, weight_decay and adam_* of this file decide",
    "scheduler": "remove it: lr_scheduler and warmup_steps of this file decide",
    "activation_checkpointing": "remove it, and write `gradient_checkpointing: true`",
    "torch_autocast": "remove it: bf16 of this file decides",
    "amp": "remove it: bf16 of this file decides",
    "compile": "remove it; nothing is compiled under DeepSpeed",
}

_TESTS: dict[str, Callable[[Any], bool]] = {
    _FLAG: lambda value: isinstance(value, bool),
    _COUNT: lambda value: _is_count(value),
    _AUTO_COUNT: lambda value: value == _AUTO or _is_count(value),
    _SIZE: lambda value: value == _AUTO or (_is_count(value) and value > 0),
    "1, 2 or 3": lambda value: isinstance(value, int) and not isinstance(value, bool) and value in (1, 2, 3),
    "none or cpu": lambda value: value in ("none", "cpu"),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    'true, false or "auto"': lambda value: isinstance(value, bool) or value == _AUTO,
    'false or "auto"': lambda value: value is False or value == _AUTO,
    "": lambda value: True,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2**53 and value == int(value)


def zero_stage(options: RecipeOptions) -> int:
    """1: optimizer states are shared out, 2: gradients too, 3: weights too; 0: nothing, or not by DeepSpeed."""
    settings = options.deepspeed
    zero = settings.get("zero_optimization") if isinstance(settings, dict) else None
    stage = zero.get("stage") if isinstance(zero, dict) else None
    return int(stage) if stage is not None and _TESTS["1, 2 or 3"](stage) else 0


def deepspeed_file_is_there(options: RecipeOptions) -> Iterator[Broken]:
    """What a file holds has taken the place of its name."""
    if isinstance(options.deepspeed, str) and options.deepspeed:
        yield broken(
            "deepspeed",
            "there is no such file",
            "correct the path, which starts at the folder of this file, or write the settings themselves",
        )


def deepspeed_settings_are_known(options: RecipeOptions) -> Iterator[Broken]:
    """What is not passed on is refused; what is, has values that DeepSpeed takes."""
    if not isinstance(options.deepspeed, dict) or not options.deepspeed:
        return
    zero = options.deepspeed.get("zero_optimization", {})
    if isinstance(zero, dict) and "stage" not in zero:
        yield broken("deepspeed", "it names no stage of ZeRO", "write `zero_optimization: {stage: 2}` inside, or 1 or 3")
    yield from _known(options.deepspeed, {"zero_optimization": _ZERO, **_OTHERS}, ("deepspeed",))


def _known(settings: Mapping[Any, Any], known: Mapping[str, Any], place: Place) -> Iterator[Broken]:
    for key, value in settings.items():
        here, takes = (*place, str(key)), known.get(str(key))
        if isinstance(takes, Mapping) and isinstance(value, dict):
            yield from _known(value, takes, here)
        elif isinstance(takes, Mapping):
            yield Broken((here,), "it is no mapping", f"what there is inside: {', '.join(takes)}")
        elif takes is None:
            instead = _INSTEAD.get(str(key)) if len(place) == 1 else None
            yield Broken((here,), "it is not passed on to DeepSpeed", instead or f"what there is: {', '.join(known)}")
        elif not _TESTS[takes](value):
            yield Broken((here,), "regrow does not pass that on", f"write {takes}")


def deepspeed_agrees(options: RecipeOptions) -> Iterator[Broken]:
    """What options of this file decide is "auto" in DeepSpeed's settings, or the same."""
    if not isinstance(options.deepspeed, dict):
        return
    for key, (expected, why) in _decided(options).items():
        value = options.deepspeed.get(key, _AUTO)
        if value != _AUTO and (isinstance(value, bool) or value != expected):
            yield Broken((("deepspeed", key),), f"{why} it {_short(expected)}", f'write "auto", or {_short(expected)}')


def _short(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _decided(options: RecipeOptions) -> dict[str, tuple[float, str]]:
    count = options.train.num_processes
    try:
        accumulation = accumulation_steps(options, count)
    except RegrowError:  # told elsewhere
        return {}
    key = "gradient_accumulation_steps" if options.batch_size is None else "batch_size"
    return {
        "train_micro_batch_size_per_gpu": (options.micro_batch_size, "micro_batch_size makes"),
        "gradient_accumulation_steps": (accumulation, f"{key} makes"),
        "train_batch_size": (options.micro_batch_size * accumulation * count, f"{key} and train.num_processes {count} make"),
        "gradient_clipping": (options.max_grad_norm, "max_grad_norm makes"),
    }


def offloaded_weights_are_shared_out(options: RecipeOptions) -> Iterator[Broken]:
    """Weights that every process keeps whole are not offloaded."""
    zero = options.deepspeed.get("zero_optimization") if isinstance(options.deepspeed, dict) else None
    offload = zero.get("offload_param") if isinstance(zero, dict) else None
    if isinstance(offload, dict) and offload.get("device", "none") != "none" and zero_stage(options) != 3:
        place = ("deepspeed", "zero_optimization", "offload_param")
        yield Broken((place,), "only stage 3 shares out weights", "write `stage: 3`, or remove it")


def numbers_are_shared_out_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Weights are in float32, with products under autocast: what DeepSpeed trains is then what is trained without it."""
    if not options.deepspeed:
        return
    for key in ("fp16", "fp8", "bfloat16", "float16"):
        if getattr(options, key):
            yield broken(f"{key} deepspeed", "under DeepSpeed weights are float32, and products that or bfloat16", "write `bf16: auto`")
    if options.bf16 == "full":
        yield broken("bf16 deepspeed", "under DeepSpeed weights are float32", "write `bf16: true`")
    bf16 = options.deepspeed.get("bf16") if isinstance(options.deepspeed, dict) else None
    enabled = bf16.get("enabled") if isinstance(bf16, dict) else None
    if enabled is True and (options.float32 or not options.bf16):
        yield Broken((("deepspeed", "bf16", "enabled"),), "it is true, and bf16 of this file is not", 'write "auto"')
    if enabled is False and options.bf16 is True:
        yield Broken((("deepspeed", "bf16", "enabled"),), "it is false, and bf16 of this file is true", 'write "auto"')


_ALONE: tuple[tuple[str, str], ...] = (
    ("rl", "preferences are learnt beside a second model, which is not shared out"),
    ("reward_model", "its trainer is not told of ZeRO yet"),
    ("process_reward_model", "its trainer is not told of ZeRO yet"),
    ("qat", "it replaces modules whose weights are shared out"),
    ("lisa_n_layers", "it changes what is trained"),
    ("torch_compile", "layers are hooked into, and a compiler would not see that"),
    ("device_map", "DeepSpeed places the weights"),
    ("max_memory", "DeepSpeed places the weights"),
    ("gpu_memory_limit", "DeepSpeed places the weights"),
    ("auto_find_batch_size", "one process without memory would leave the others waiting"),
)
_ALONE_3: tuple[tuple[str, str], ...] = (
    ("load_in_4bit", "weights in few bits cannot be cut"),
    ("load_in_8bit", "weights in few bits cannot be cut"),
    ("chunked_cross_entropy", "it calls the output head where its weights are not together"),
    ("tiled_mlp", "it calls layers where their weights are not together"),
    ("lora_target_parameters", "parameters are adapted outside of a module that would put them together"),
)


def some_need_what_is_shared_out(options: RecipeOptions) -> Iterator[Broken]:
    """What asks for whole weights, or for a trainer of its own, does without DeepSpeed, or without its stage 3."""
    if not options.deepspeed:
        return
    for key, why in _ALONE:
        if getattr(options, key) and not (key == "torch_compile" and options.torch_compile == "auto"):  # which compiles nothing then
            yield broken(f"{key} deepspeed", f"does not work with deepspeed: {why}", "remove one of them")
    for key, why in _ALONE_3 if zero_stage(options) == 3 else ():
        if getattr(options, key):
            yield broken(f"{key} deepspeed", f"does not work with stage 3 of ZeRO: {why}", "write `stage: 2` in deepspeed, or remove it")


def rows_are_not_shared_out(options: RecipeOptions) -> Iterator[Broken]:
    """Rows that are not trained are put back after each step, into weights that DeepSpeed keeps elsewhere."""
    rows = [pattern for pattern in options.unfrozen_parameters or [] if pattern.endswith("]")]
    if options.deepspeed and rows:
        wrong = f"{rows[0]!r} names rows, which does not work with deepspeed"
        yield broken("unfrozen_parameters deepspeed", wrong, "name whole parameters, or remove deepspeed")


def cut_parameters_have_divisible_updates(options: RecipeOptions) -> Iterator[Broken]:
    """ZeRO lays parameters end to end and cuts anywhere: only an update that looks at one number at a time stays what it is."""
    known = OPTIMIZERS[options.optimizer]
    if options.deepspeed and not known.divisible and not known.matrices:  # of these tells matrices_are_whole
        names = ", ".join(name for name, other in OPTIMIZERS.items() if other.divisible)
        wrong = f"DeepSpeed cuts parameters anywhere, which changes what {options.optimizer} does"
        yield broken("optimizer deepspeed", wrong, f"write one of {names}")


SHARDING = (
    deepspeed_file_is_there,
    deepspeed_settings_are_known,
    deepspeed_agrees,
    offloaded_weights_are_shared_out,
    numbers_are_shared_out_whole,
    some_need_what_is_shared_out,
    rows_are_not_shared_out,
    cut_parameters_have_divisible_updates,
)
