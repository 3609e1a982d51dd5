"""What a file may say and probably does not mean. Printed, and never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.options.dataset_types import UNSTYLED, kind_of
from pipeline.options.rules.broken import Broken, broken, is_set
from pipeline.options.views import RecipeOptions

_Needs = tuple[tuple[str, ...], str, Callable[[RecipeOptions], bool]]

# Keys that do nothing unless another one is set: keys, what they need, whether it is there.
DEPENDENT: tuple[_Needs, ...] = (
    (
        (
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            "lora_modules_to_save",
            "peft_use_dora",
            "peft_use_rslora",
        ),
        "`adapter: lora`",
        lambda options: options.adapter is not None,
    ),
    (
        ("adam_beta1", "adam_beta2", "adam_epsilon"),
        "an Adam optimizer",
        lambda options: options.optimizer.startswith("adam"),
    ),
    (("sample_packing_sequentially",), "`sample_packing: true`", lambda options: options.sample_packing),
    (("eval_sample_packing",), "val_set_size or test_datasets", lambda options: bool(options.val_set_size or options.test_datasets)),
    (("torch_compile_backend", "torch_compile_mode"), "`torch_compile: true`", lambda options: bool(options.torch_compile)),
    (("loss_watchdog_patience",), "loss_watchdog_threshold", lambda options: options.loss_watchdog_threshold is not None),
    (("eval_causal_lm_metrics",), "`do_causal_lm_eval: true`", lambda options: bool(options.do_causal_lm_eval)),
    (("bench_dataset", "bench_split"), "`do_bench_eval: true`", lambda options: bool(options.do_bench_eval)),
    (("hub_strategy", "hub_revision"), "hub_model_id", lambda options: options.hub_model_id is not None),
    (
        ("jagged_restart_warmup_steps", "jagged_restart_anneal_steps"),
        "jagged_restart_steps",
        lambda options: options.jagged_restart_steps is not None,
    ),
    (("relora_prune_ratio", "relora_cpu_offload"), "`relora: true`", lambda options: bool(options.relora)),
    (("chunked_cross_entropy_num_chunks",), "`chunked_cross_entropy: true`", lambda options: bool(options.chunked_cross_entropy)),
    (("tiled_mlp_num_shards", "tiled_mlp_use_original_mlp"), "`tiled_mlp: true`", lambda options: bool(options.tiled_mlp)),
    (("lisa_step_interval", "lisa_layers_attribute"), "lisa_n_layers", lambda options: options.lisa_n_layers is not None),
    (("loraplus_lr_embedding",), "loraplus_lr_ratio", lambda options: options.loraplus_lr_ratio is not None),
    (("rl_beta",), "rl", lambda options: options.rl is not None),
    (("dpo_loss_type", "dpo_label_smoothing", "dpo_use_weighting"), "`rl: dpo`", lambda options: options.rl in ("dpo", "ipo")),
    (("orpo_alpha",), "`rl: orpo`", lambda options: options.rl == "orpo"),
    (("simpo_gamma", "cpo_alpha"), "`rl: simpo`", lambda options: options.rl == "simpo"),
    (("kto_desirable_weight", "kto_undesirable_weight"), "`rl: kto`", lambda options: options.rl == "kto"),
    (("center_rewards_coefficient",), "`reward_model: true`", lambda options: bool(options.reward_model)),
    (("fsdp_version",), "fsdp_config", lambda options: options.fsdp_config is not None),
    (("greater_is_better",), "metric_for_best_model", lambda options: options.metric_for_best_model is not None),
    (("gradient_checkpointing_kwargs",), "`gradient_checkpointing: true`", lambda options: options.gradient_checkpointing),
)


def dependent_keys_have_effect(options: RecipeOptions) -> Iterator[Broken]:
    """A key that needs another one, which is not there."""
    for keys, needs, is_there in DEPENDENT:
        if not is_there(options):
            for key in keys:
                if is_set(options, key) and getattr(options, key) not in (None, False, [], {}):
                    yield broken(key, f"has no effect without {needs}", f"add {needs}, or remove it")


def steps_win_over_epochs(options: RecipeOptions) -> Iterator[Broken]:
    """Both limits given: the number of steps decides."""
    if options.max_steps is not None and is_set(options, "num_epochs"):
        yield broken("num_epochs max_steps", f"max_steps {options.max_steps} decides when training ends", "remove one of them")


def fsdp_1_is_old(options: RecipeOptions) -> Iterator[Broken]:
    """PyTorch develops FSDP 2."""
    if options.fsdp_config is not None and options.fsdp_version != 2:
        yield broken("fsdp_config fsdp_version", "FSDP 1 is no longer developed", "write `fsdp_version: 2`")


def streams_are_not_sorted(options: RecipeOptions) -> Iterator[Broken]:
    """Grouping by length would read the whole stream first."""
    if options.group_by_length and (options.streaming or options.pretraining_dataset):
        yield broken("group_by_length streaming", "the whole stream is read first", "remove it")


def eight_bit_floats_want_a_compiler(options: RecipeOptions) -> Iterator[Broken]:
    """Without compilation the casts cost more than the products save."""
    if options.fp8 and not options.torch_compile:
        yield broken("fp8 torch_compile", "without compilation it is slower than bf16", "add `torch_compile: true`")


def styles_change_texts(options: RecipeOptions) -> Iterator[Broken]:
    """Some types have one text for all styles."""
    for index, entry in enumerate(options.datasets):
        name, _, style = entry.type.partition(":") if isinstance(entry.type, str) else ("", "", "")
        if style and name in UNSTYLED:
            yield broken(f"datasets.{index}.type", f"the texts of {name} are the same in every style", f"write `type: {name}`")


def rows_without_a_type_are_ready(options: RecipeOptions) -> Iterator[Broken]:
    """Without a type nothing is done to rows, which is seldom meant."""
    kind = kind_of(options.rl, options.reward_model, options.process_reward_model)
    columns = {"text": "input_ids and labels", "feedback": "prompt, completion and label"}.get(kind or "", "prompt, chosen and rejected")
    for index, entry in enumerate(options.datasets):
        if entry.type is None and kind in ("text", "pairs", "odds", "feedback"):
            wrong = f"not set, so every row must have the columns {columns}"
            yield broken(f"datasets.{index}.type datasets.{index}", wrong, "if it has not, write a type such as `type: chat_template`")


ADVICE = (
    dependent_keys_have_effect,
    steps_win_over_epochs,
    fsdp_1_is_old,
    streams_are_not_sorted,
    eight_bit_floats_want_a_compiler,
    styles_change_texts,
    rows_without_a_type_are_ready,
)
