"""For every option which stages run again when it changes: as stated here, as the catalogue says, and as views really differ."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.options.catalogue import catalogue
from pipeline.options.reading.source import parse
from pipeline.options.reading.wording import models_in
from pipeline.options.recipe import Recipe, check_source
from pipeline.options.row_format import RowFormat
from pipeline.options.views import VIEWS, RecipeOptions
from tests.options.configs import GOOD
from tests.options.values import effective_value

RERUNS = {
    "fetch": (
        *("base_model", "revision_of_model", "tokenizer_config", "chat_template", "chat_template_jinja", "default_system_message"),
        *("tokens", "added_tokens_overrides", "special_tokens.additional_special_tokens", "tokenizer_save_jinja_files"),
        *("special_tokens.bos_token", "special_tokens.eos_token", "special_tokens.pad_token", "special_tokens.unk_token"),
        *("datasets.path", "datasets.ds_type", "datasets.data_files", "datasets.revision", "datasets.name", "datasets.split"),
        *("do_bench_eval", "bench_dataset", "bench_split", "eval.lm_eval.include_path"),
        *("merge.others.path", "merge.others.revision"),
        *("datasets.shards", "datasets.shards_idx", "datasets.weight", "streaming"),
        *("base_model_config", "cls_model_config", "overrides_of_model_config", "reinit_weights"),
        *(f"pretraining_dataset.{name}" for name in ("path", "name", "split", "data_files", "skip")),
    ),
    "tokenize": (
        *("datasets.type", "datasets.field", "datasets.field_messages", "datasets.message_property_mappings", "datasets.roles"),
        *("datasets.roles_to_train", "datasets.train_on_eos", "datasets.train_on_eot", "train_on_inputs", "eot_tokens"),
        *("datasets.chat_template", "datasets.chat_template_jinja", "chat_template_kwargs", "datasets.drop_system_message"),
        *("datasets.message_field_training", "datasets.message_field_training_detail", "datasets.field_tools"),
        *("datasets.field_thinking", "datasets.template_thinking_key", "datasets.split_thinking"),
        *("datasets.conversation", "datasets.input_transform", "datasets.field_chosen", "datasets.field_rejected"),
        *("datasets.step_separator", "datasets.max_completion_length", "datasets.train_on_last_step_only"),
        *(f"datasets.type.{name}" for name in RowFormat.model_fields),
        *("tokenize.strict", "pretraining_dataset.text_column"),
    ),
    "tokenize train": ("rl", "reward_model", "process_reward_model"),
    "dedupe": (
        *("dataset_exact_deduplication", "dedupe.overlap.ngram", "dedupe.overlap.limit"),
        *(f"dedupe.near.{name}" for name in ("threshold", "ngram", "permutations", "template_share")),
    ),
    "pack": (
        *("eval_sequence_len", "shuffle_before_merging_datasets", "dataset_shard_num", "dataset_shard_idx"),
        *("sequence_len", "min_sample_len", "excess_length_strategy", "val_set_size", "shuffle_merged_datasets", "sample_packing"),
        *("pack.minimum_efficiency", "sample_packing_sequentially", "eval_sample_packing"),
        *("sample_packing_group_size", "sample_packing_bin_size"),
        *("use_pose", "pose_max_context_len", "pose_num_chunks", "pose_split_on_token_ids"),
    ),
    "pack train": ("curriculum_sampling",),
    "pack train eval": ("seed",),
    "train": (
        *("fsdp_config.offload_params", "fsdp_config.reshard_after_forward", "fsdp_config.transformer_layer_cls_to_wrap", "fsdp_version"),
        *("train.num_processes", "deepspeed", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters"),
        *("micro_batch_size", "gradient_accumulation_steps", "num_epochs", "max_steps", "logging_steps", "save_steps"),
        *("batch_size", "eval_batch_size", "auto_find_batch_size", "saves_per_epoch", "save_strategy"),
        *("eval_steps", "evals_per_epoch", "eval_strategy", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        *("early_stopping_patience", "loss_watchdog_threshold", "loss_watchdog_patience"),
        *("optimizer", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
        *("adam_beta3", "adam_epsilon2", "optim_args", "optim_target_modules", "embedding_lr", "embedding_lr_scale"),
        *("lr_groups.modules", "lr_groups.lr", "loraplus_lr_ratio", "loraplus_lr_embedding"),
        *("dion_lr", "dion_momentum", "dion_rank_fraction", "dion_rank_multiple_of"),
        *("lr_scheduler_kwargs", "lr_quadratic_warmup", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_div_factor"),
        *("jagged_restart_steps", "jagged_restart_warmup_steps", "jagged_restart_anneal_steps"),
        *("lr_scheduler", "warmup_steps", "warmup_ratio", "bf16", "fp16", "gradient_checkpointing", "attn_implementation"),
        *("bfloat16", "float16", "float32", "tf32", "fp8", "torch_compile", "torch_compile_backend", "torch_compile_mode"),
        *("gradient_checkpointing_kwargs", "activation_offloading", "chunked_cross_entropy", "chunked_cross_entropy_num_chunks"),
        *("tiled_mlp", "tiled_mlp_num_shards", "load_in_4bit", "load_in_8bit", "bnb_config_kwargs"),
        *("type_of_model", "overrides_of_model_kwargs", "fix_untrained_tokens"),
        *("pad_to_sequence_len", "pad_to_multiple_of", "batch_flattening", "multipack_real_batches", "group_by_length"),
        "dataloader_drop_last",
        *("rl_beta", "dpo_loss_type", "dpo_loss_weights", "precompute_ref_log_probs", "dpo_use_weighting", "dpo_label_smoothing"),
        *("dpo_use_liger_kernel", "orpo_alpha", "simpo_gamma", "cpo_alpha", "kto_desirable_weight", "kto_undesirable_weight"),
        *("center_rewards_coefficient", "num_labels"),
        *("resize_token_embeddings_to_32x", "mean_resizing_embeddings", "shrink_embeddings"),
        *(
            "adapter",
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            "peft_use_dora",
            "peft_use_rslora",
            *("lora_model_dir", "lora_target_parameters", "lora_exclude_modules", "lora_modules_to_save", "lora_fan_in_fan_out"),
            *("lora_rank_pattern", "lora_alpha_pattern", "peft.loftq_config.loftq_bits", "peft_layers_to_transform"),
            *("peft_layers_pattern", "peft_layer_replication", "peft_init_lora_weights", "peft_trainable_token_indices"),
            *("peft_ensure_weight_tying", "peft_autocast_adapter_dtype", "relora", "relora_prune_ratio", "relora_cpu_offload"),
            *(f"trl.{name}" for name in ("beta", "max_completion_length", "use_vllm", "vllm_mode", "vllm_guided_decoding_regex")),
            *(f"trl.{name}" for name in ("reward_funcs", "reward_weights", "num_generations", "importance_sampling_level")),
            *(f"trl.{name}" for name in ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps", "scale_rewards")),
            *(f"trl.{name}" for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "num_iterations")),
            *(f"trl.{name}" for name in ("epsilon", "epsilon_high", "use_liger_kernel", "loss_type", "mask_truncated_completions")),
            *("trl.rollout_func", "vllm.dtype", "vllm.max_model_len", "vllm.enable_reasoning", "vllm.reasoning_parser"),
            *("unfrozen_parameters", "lisa_n_layers", "lisa_step_interval", "lisa_layers_attribute", "neftune_noise_alpha"),
        ),
    ),
    "merge": (
        *("merge.method", "merge.weight", "merge.density", "merge.seed", "merge.others.weight", "merge.others.density"),
        *("merge.max_shard_size_mb", "merge.parity_rows"),
    ),
    "quantize": (
        *("quantize.format", "quantize.type", "quantize.weight_dtype", "quantize.activation_dtype", "quantize.group_size"),
        *("quantize.quantize_embedding", "quantize.packed", "quantize.scheme", "quantize.bits", "quantize.iterations"),
        *("quantize.calibration_rows", "quantize.calibration_length", "quantize.calibration_seed"),
        *("quantization.weight_dtype", "quantization.activation_dtype", "quantization.group_size", "quantization.quantize_embedding"),
    ),
    "train quantize": (
        *("qat.weight_dtype", "qat.activation_dtype", "qat.group_size", "qat.quantize_embedding", "qat.fake_quant_after_n_steps"),
    ),
    "eval": (
        *("eval.batch_size", "eval.choices", "eval.samples", "eval.max_new_tokens", "eval.lm_eval.tasks", "eval.lm_eval.limit"),
        *("do_causal_lm_eval", "eval_causal_lm_metrics", "eval_max_new_tokens"),
    ),
}

STATED = {place: tuple(stages.split()) for stages, places in RERUNS.items() for place in places}


def leaves() -> list[str]:
    """Options that work and are no groups of others. Entries of test_datasets are those of datasets."""
    found = [option for option in catalogue().values() if option.facts.is_read and not option.facts.execution]
    return [option.place for option in found if option.place == "datasets.type" or not models_in(option.field.annotation)]


def recipe_of(text: str) -> Recipe:
    """The recipe of a text. Rules are no matter here."""
    source = parse(text, "params.yaml")
    return Recipe(RecipeOptions.model_validate(source.value), source)


def base(place: str) -> str:
    """The text that has room for ``place``."""
    if place.startswith("pretraining_dataset."):
        return GOOD + "max_steps: 5\npretraining_dataset:\n  - path: documents.jsonl\n"
    if place.startswith("lr_groups."):
        return GOOD + "lr_groups:\n  - {name: a, modules: [b], lr: 1.0}\n"
    if place in ("reward_model", "process_reward_model"):
        return GOOD + "quantize: []\n"  # as it is for them when it is left open
    if place.startswith("merge.others."):
        return GOOD + "merge:\n  others:\n    - {path: a, weight: 1.0}\n"
    if place.startswith("quantize."):
        return GOOD + "quantize:\n  - {format: torchao, weight_dtype: int8}\n"
    return GOOD.replace("type: chat_template", "type: {}") if place.startswith("datasets.type.") else GOOD


def changed(place: str) -> Recipe:
    """The recipe with another value at ``place``."""
    source = parse(base(place), "params.yaml")
    holder: Any = source.value
    path = place.split(".")
    for part in path[:-1]:
        holder = holder.setdefault(part, {})
        holder = holder[0] if isinstance(holder, list) else holder
    holder[path[-1]] = effective_value(catalogue()[place])
    return Recipe(RecipeOptions.model_validate(source.value), source)


def canonicals(recipe: Recipe) -> dict[str, Any]:
    return {stage: recipe.view(view).canonical() for stage, view in VIEWS.items()}


def test_the_statement_is_complete() -> None:
    assert sorted(STATED) == sorted(leaves())


@pytest.mark.parametrize(("place", "stages"), STATED.items())
def test_a_change_reruns_the_stages_stated(place: str, stages: tuple[str, ...]) -> None:
    before, after = canonicals(recipe_of(base(place))), canonicals(changed(place))
    assert tuple(stage for stage in VIEWS if before[stage] != after[stage]) == stages == catalogue()[place].reruns


def test_what_does_not_work_reruns_nothing() -> None:
    assert not [option.place for option in catalogue().values() if option.reruns and not option.facts.is_read]


def test_what_only_says_how_reruns_nothing() -> None:
    assert not [option.place for option in catalogue().values() if option.reruns and option.facts.execution]


def test_options_left_open_and_defaults_stated_are_one_identity() -> None:
    template = "chat_template_jinja: x\n"
    assert canonicals(check_source(parse(GOOD + template, "a"))) == canonicals(
        check_source(parse(GOOD + template + "chat_template: jinja\n", "b"))
    )
    assert canonicals(check_source(parse(GOOD + "num_epochs: 1\n", "a"))) == canonicals(check_source(parse(GOOD, "b")))
