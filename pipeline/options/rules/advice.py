"""What a file may say and probably does not mean. Printed, and never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.optimizers import DION_KEYS, OPTIMIZERS
from pipeline.options.dataset_types import UNSTYLED, kind_of
from pipeline.options.rules.broken import Broken, broken, is_set
from pipeline.options.rules.duplicates import overlap_has_something_to_compare_with
from pipeline.options.rules.online import ONLINE_ADVICE
from pipeline.options.tracking import NAMED_BY, SETTINGS
from pipeline.options.views import RecipeOptions

_Needs = tuple[tuple[str, ...], str, Callable[[RecipeOptions], bool]]


def _adam(key: str, needs: str) -> _Needs:
    return (key,), needs, lambda options: key in OPTIMIZERS[options.optimizer].adam_keys


_ADAM = (
    *(_adam(key, "an optimizer of the Adam kind") for key in ("adam_beta1", "adam_beta2", "adam_epsilon")),
    _adam("adam_beta3", "an optimizer of three decays (came_pytorch, ademamix)"),
    _adam("adam_epsilon2", "`optimizer: came_pytorch`"),
)


def _tracker(switch: str) -> _Needs:
    """A tracker that is switched off may keep its settings."""
    name = NAMED_BY.get(switch)

    def is_known(options: RecipeOptions) -> bool:
        off = is_set(options, switch) and getattr(options, switch) is False
        return off or bool(getattr(options, switch) or (name and getattr(options, name)))

    return tuple(key for key in SETTINGS[switch] if key != name), f"`{switch}: true`" + (f" or {name}" if name else ""), is_known


# Keys that do nothing unless another one is set: keys, what they need, whether it is there.
DEPENDENT: tuple[_Needs, ...] = (
    *map(_tracker, SETTINGS),
    (
        (
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            *("lora_modules_to_save", "lora_target_parameters", "lora_exclude_modules", "lora_fan_in_fan_out", "lora_model_dir"),
            *("lora_rank_pattern", "lora_alpha_pattern", "peft", "peft_layers_to_transform", "peft_layer_replication"),
            *("peft_init_lora_weights", "peft_trainable_token_indices", "peft_ensure_weight_tying", "peft_use_dora", "peft_use_rslora"),
        ),
        "`adapter: lora`",
        lambda options: options.adapter is not None,
    ),
    *_ADAM,
    (DION_KEYS, "`optimizer: dion`", lambda options: options.optimizer == "dion"),
    (("optim_target_modules",), "GaLore or APOLLO", lambda options: bool(OPTIMIZERS[options.optimizer].projection)),
    (("sample_packing_sequentially", "sample_packing_group_size"), "`sample_packing: true`", lambda options: options.sample_packing),
    (
        ("sample_packing_bin_size",),
        "sample_packing or eval_sample_packing",
        lambda options: options.sample_packing or options.eval_sample_packing,
    ),
    (("pose_max_context_len", "pose_num_chunks", "pose_split_on_token_ids"), "`use_pose: true`", lambda options: options.use_pose),
    (("dataloader_prefetch_factor",), "dataloader_num_workers", lambda options: options.dataloader_num_workers > 0),
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
    (
        *(("dpo_loss_type", "dpo_loss_weights", "dpo_label_smoothing", "dpo_use_weighting", "precompute_ref_log_probs"), "`rl: dpo`"),
        lambda options: options.rl in ("dpo", "ipo"),
    ),
    (("dpo_use_liger_kernel",), "`rl: dpo`", lambda options: options.rl in ("dpo", "ipo")),
    (
        *(("num_labels",), "`reward_model: true` or `process_reward_model: true`"),
        lambda options: bool(options.reward_model or options.process_reward_model),
    ),
    (("orpo_alpha",), "`rl: orpo`", lambda options: options.rl == "orpo"),
    (("simpo_gamma", "cpo_alpha"), "`rl: simpo`", lambda options: options.rl == "simpo"),
    (("kto_desirable_weight", "kto_undesirable_weight"), "`rl: kto`", lambda options: options.rl == "kto"),
    (("center_rewards_coefficient",), "`reward_model: true`", lambda options: bool(options.reward_model)),
    (
        ("ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters"),
        "`train: {num_processes: 2}` or more",
        lambda options: options.train.num_processes > 1,
    ),
    (
        ("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters"),
        "DDP, in whose place deepspeed or fsdp_config is",
        lambda options: not (options.deepspeed or options.fsdp_config),
    ),
    (("fsdp_version",), "fsdp_config", lambda options: options.fsdp_config is not None),
    (
        ("metric_for_best_model", "greater_is_better"),
        "load_best_model_at_end, early_stopping_patience or `save_strategy: best`",
        lambda options: bool(options.load_best_model_at_end or options.early_stopping_patience or options.save_strategy == "best"),
    ),
    (("profiler_steps_start",), "profiler_steps", lambda options: bool(options.profiler_steps)),
    (("gradient_checkpointing_kwargs",), "`gradient_checkpointing: true`", lambda options: bool(options.gradient_checkpointing)),
    (
        ("batch_flattening",),
        "a micro_batch_size of 2 or more",
        lambda options: options.micro_batch_size > 1 or options.batch_flattening == "auto",
    ),
    (("bnb_config_kwargs",), "load_in_4bit or load_in_8bit", lambda options: options.load_in_4bit or options.load_in_8bit),
)


def dependent_keys_have_effect(options: RecipeOptions) -> Iterator[Broken]:
    """A key that needs another one, which is not there."""
    for keys, needs, is_there in DEPENDENT:
        if not is_there(options):
            for key in keys:
                if is_set(options, key) and getattr(options, key) not in (None, False, "", [], {}):
                    yield broken(key, f"has no effect without {needs}", f"add {needs}, or remove it")


def a_port_is_for_several_machines(options: RecipeOptions) -> Iterator[Broken]:
    """Processes of one machine find each other by themselves."""
    if options.train.main_process_port is not None and options.train.num_machines == 1:
        yield broken("train.main_process_port", "has no effect without train.num_machines", "add `num_machines: 2` or more, or remove it")


def steps_win_over_epochs(options: RecipeOptions) -> Iterator[Broken]:
    """Both limits given: the number of steps decides."""
    if options.max_steps is not None and is_set(options, "num_epochs"):
        yield broken("num_epochs max_steps", f"max_steps {options.max_steps} decides when training ends", "remove one of them")


def training_has_rows(options: RecipeOptions) -> Iterator[Broken]:
    """1 is all rows, as the reference says; one row is what some mean by it."""
    if options.val_set_size == 1:
        yield broken(
            "val_set_size", "1 holds out all rows, and train refuses to start without any", "write a share such as 0.05, or a count"
        )


def groups_are_for_the_best_fit(options: RecipeOptions) -> Iterator[Broken]:
    """In their order, rows go into the newest bin only."""
    in_order = options.sample_packing_sequentially or options.curriculum_sampling
    if options.sample_packing and in_order and options.sample_packing_group_size is not None:
        yield broken("sample_packing_group_size", "has no effect on rows that are packed in their order", "remove it")


def every_process_reads_the_model(options: RecipeOptions) -> Iterator[Broken]:
    """Weights are read, adapted and only then cut."""
    if options.fsdp_config is not None and options.fsdp_config.cpu_ram_efficient_loading:
        wrong = "has no effect: each process reads the whole model before it keeps its shards"
        yield broken("fsdp_config.cpu_ram_efficient_loading", wrong, "remove it; it takes RAM for a whole model per process")


def schedule_free_needs_no_schedule(options: RecipeOptions) -> Iterator[Broken]:
    """Averaging takes the place of a falling rate."""
    if options.optimizer.startswith("schedule_free") and not options.lr_scheduler.startswith("constant"):
        wrong = f"it averages instead of lowering the rate, and lr_scheduler is {options.lr_scheduler}"
        yield broken("optimizer lr_scheduler", wrong, "write `lr_scheduler: constant`")


def one_cycle_has_its_own_momentum(options: RecipeOptions) -> Iterator[Broken]:
    """It goes up and down against the rate, whatever the optimizer was told."""
    cycles = (options.lr_scheduler_kwargs or {}).get("cycle_momentum", True) and not OPTIMIZERS[options.optimizer].matrices
    if options.lr_scheduler == "one_cycle" and cycles and is_set(options, "adam_beta1") and options.adam_beta1 is not None:
        works = "add `lr_scheduler_kwargs: {cycle_momentum: false}`, or set base_momentum and max_momentum there"
        yield broken("adam_beta1 lr_scheduler", "one_cycle moves it between base_momentum and max_momentum", works)


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
    known = {"text": "input_ids and labels", "feedback": "prompt, completion and label", "prompts": "prompt"}
    columns = known.get(kind or "", "prompt, chosen and rejected")
    for index, entry in enumerate(options.datasets):
        if entry.type is None and kind in ("text", "pairs", "odds", "feedback", "prompts"):
            wrong = f"not set, so every row must have the columns {columns}"
            yield broken(f"datasets.{index}.type datasets.{index}", wrong, "if it has not, write a type such as `type: chat_template`")


ADVICE = (
    dependent_keys_have_effect,
    overlap_has_something_to_compare_with,
    a_port_is_for_several_machines,
    steps_win_over_epochs,
    training_has_rows,
    groups_are_for_the_best_fit,
    every_process_reads_the_model,
    schedule_free_needs_no_schedule,
    one_cycle_has_its_own_momentum,
    streams_are_not_sorted,
    eight_bit_floats_want_a_compiler,
    styles_change_texts,
    rows_without_a_type_are_ready,
    *ONLINE_ADVICE,
)
