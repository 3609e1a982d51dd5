"""Each rule between options: a file that breaks it, the key it points at, and the smallest change that mends it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from pipeline.options.rules import ADVICE, RULES
from pipeline.options.rules.advice import DEPENDENT
from pipeline.options.rules.broken import Broken
from pipeline.options.views import RecipeOptions
from tests.options.configs import GOOD, accepted, refused
from tests.tiny import MINIMAL

Case = tuple[str, dict[str, Any], str, dict[str, Any]]
ROW = {"path": "rows.jsonl", "type": "chat_template"}
FSDP: dict[str, Any] = {"offload_params": True}

# rule, what breaks it, the key it points at, what mends it
CASES: list[Case] = [
    ("sources_can_be_read", {"base_model": " "}, "base_model", {"base_model": "gpt2"}),
    ("sources_can_be_read", {"tokenizer_config": "a\nb"}, "tokenizer_config", {"tokenizer_config": "my models/é"}),
    ("sources_can_be_read", {"datasets": [ROW, ROW | {"path": "pypi:evals/x.jsonl"}]}, "datasets.1.path", {"datasets": [ROW]}),
    (
        "sources_can_be_read",
        {"test_datasets": [ROW | {"path": "pypi:evals==1/../x.jsonl"}]},
        "test_datasets.0.path",
        {"test_datasets": [ROW | {"path": "pypi:evals==1/x.jsonl"}]},
    ),
    *(
        ("sources_can_be_read", {"datasets": [ROW | {"path": wrong}]}, "datasets.0.path", {"datasets": [ROW | {"path": right}]})
        for wrong, right in (
            ("http://a.b/c.jsonl", "http://localhost/c.jsonl"),
            ("https://a.b/", "https://a.b/c.jsonl?x=1"),
            ("https://me:secret@a.b/c.jsonl", "https://a.b/c.jsonl"),
            ("s3://a/b#md5=1", "s3://a/b#sha256=" + "0" * 64),
            ("ftp://a/b.jsonl", "oci://a@b/c"),
        )
    ),
    ("sources_can_be_read", {"pretraining_dataset": " "}, "pretraining_dataset", {"pretraining_dataset": "a/b"}),
    (
        "one_list_of_rows",
        {"pretraining_dataset": [{"path": "a"}]},
        "pretraining_dataset",
        {"datasets": [{"path": "a", "type": "pretrain"}]},
    ),
    ("splits_can_be_read", {"datasets": [ROW | {"split": "train[5]"}]}, "datasets.0.split", {"datasets": [ROW | {"split": "train[:5]"}]}),
    (
        "splits_can_be_read",
        {"pretraining_dataset": [{"path": "a", "split": "train[:x]"}]},
        "pretraining_dataset.0.split",
        {"pretraining_dataset": [{"path": "a", "split": "train[-10%:]+test"}]},
    ),
    (
        "files_have_no_configuration",
        {"test_datasets": [ROW | {"name": "a", "data_files": "b"}]},
        "test_datasets.0.name",
        {"test_datasets": [ROW | {"name": ["a", "b"]}]},
    ),
    (
        "formats_have_files",
        {"datasets": [ROW | {"path": "csv", "data_files": "b", "ds_type": "json"}]},
        "datasets.0.ds_type",
        {"datasets": [ROW | {"path": "json", "data_files": ["b"], "ds_type": "jsonl"}]},
    ),
    ("sources_can_be_read", {"base_model": "a" * 1001}, "base_model", {"base_model": "a" * 1000}),
    ("templates_are_jinja", {"chat_template_jinja": "{% if %}"}, "chat_template_jinja", {"chat_template_jinja": "{% if x %}{% endif %}"}),
    (
        "templates_are_jinja",
        {"chat_template_jinja": "{{ x | no_such_filter }}"},
        "chat_template_jinja",
        {"chat_template_jinja": "{% for x in y %}{% break %}{% generation %}{{ x | tojson }}{% endgeneration %}{% endfor %}"},
    ),
    ("choices_are_distinct", {"eval": {"choices": ["a", "b", "a"]}}, "eval.choices", {"eval": {"choices": ["a", "b"]}}),
    ("formats_are_distinct", {"quantize": {"formats": ["int8", "int8"]}}, "quantize.formats", {"quantize": {"formats": ["int8"]}}),
    *(
        (
            "keys_fit_the_type",
            {"datasets": [ROW | {"type": kind, key: value}]},
            f"datasets.0.{key}",
            {"datasets": [ROW | {"type": "my.rows", key: value}, {"path": "b", "type": fits, key: value}]},
        )
        for key, value, fits in (
            ("field", "text", "completion"),
            ("field_messages", "turns", "chat_template"),
            ("message_property_mappings", {"role": "from"}, "chat_template"),
            ("roles", {"user": ["human"]}, "chat_template"),
            ("roles_to_train", [], "chat_template"),
            ("train_on_eos", "turn", "chat_template"),
            ("conversation", "phi", "alpaca_chat"),
            ("input_transform", "chat", "messages"),
        )
        for kind in ("chat_template", "completion", "alpaca", "oasst:chat", "orcamini", None, {"format": "{instruction}"})
        if kind != fits
    ),
    (
        "keys_fit_the_type",
        {"rl": "dpo", "datasets": [ROW | {"type": "chatml.intel", "field_chosen": "better"}]},
        "datasets.0.field_chosen",
        {"datasets": [ROW | {"type": "chat_template.default", "field_chosen": "better"}]},
    ),
    (
        "keys_fit_the_type",
        {"datasets": [ROW | {"step_separator": " "}]},
        "datasets.0.step_separator",
        {"process_reward_model": True, "datasets": [ROW | {"type": "stepwise_supervised", "step_separator": " "}]},
    ),
    (
        "mapped_keys_fit_what_is_trained",
        {"datasets": [ROW | {"type": {"field_prompt": "q"}}]},
        "datasets.0.type.field_prompt",
        {"rl": "dpo"},
    ),
    (
        "mapped_keys_fit_what_is_trained",
        {"rl": "kto", "datasets": [ROW | {"type": {"field_chosen": "q"}}]},
        "datasets.0.type.field_chosen",
        {"rl": "orpo"},
    ),
    *(
        (
            "texts_name_their_parts",
            {"datasets": [ROW | {"type": {"no_input_format": text}}]},
            "datasets.0.type.no_input_format",
            {"datasets": [ROW | {"type": {"no_input_format": "{{literal}} {instruction}"}}]},
        )
        for text in ("{instruction} {input}", "{instruction", "}", "{}", "{instruction!r}", "{instruction:>9}", "{0}")
    ),
    ("styles_change_texts", {"datasets": [ROW | {"type": "concisechoice:phi"}]}, "datasets.0.type", {"datasets": [ROW]}),
    ("rows_without_a_type_are_ready", {"datasets": [{"path": "a"}]}, "datasets.0.type", {"datasets": [ROW]}),
    ("types_are_known", {"reward_model": True, "datasets": [{"path": "a"}]}, "datasets.0.type", {"reward_model": False}),
    (
        "types_are_known",
        {"datasets": [ROW | {"type": "stepwise_supervised"}]},
        "datasets.0.type",
        {"process_reward_model": True},
    ),
    (
        "types_are_known",
        {"process_reward_model": True, "datasets": [ROW | {"type": {}}]},
        "datasets.0.type",
        {"process_reward_model": False},
    ),
    ("types_are_known", {"datasets": [{"path": "a", "type": "sharegpt"}]}, "datasets.0.type", {"datasets": [ROW]}),
    ("datasets_are_distinct", {"datasets": [ROW, ROW]}, "datasets.1", {"datasets": [ROW, ROW | {"path": "b"}]}),
    (
        "shards_have_an_index",
        {"datasets": [ROW | {"shards": 2, "shards_idx": 2}]},
        "datasets.0.shards_idx",
        {"datasets": [ROW | {"shards": 3, "shards_idx": 2}]},
    ),
    ("shards_have_an_index", {"dataset_shard_idx": 1}, "dataset_shard_idx", {"dataset_shard_num": 2}),
    ("one_evaluation_set", {"val_set_size": 0.1, "test_datasets": [ROW]}, "val_set_size", {"val_set_size": 0}),
    ("split_leaves_rows", {"val_set_size": 1}, "val_set_size", {"val_set_size": 0.5}),
    ("split_leaves_rows", {"val_set_size": 10.5}, "val_set_size", {"val_set_size": 10}),
    ("jinja_needs_text", {"chat_template": "jinja"}, "chat_template", {"chat_template_jinja": "x"}),
    ("jinja_needs_text", {"datasets": [ROW | {"chat_template": "jinja"}]}, "datasets.0.chat_template", {"datasets": [ROW]}),
    ("jinja_text_is_used", {"chat_template": "chatml", "chat_template_jinja": "x"}, "chat_template", {"chat_template": "jinja"}),
    ("template_files_are_there", {"chat_template_jinja": "./a.jinja"}, "chat_template_jinja", {"chat_template_jinja": "{{ a.jinja }}"}),
    (
        "template_files_are_there",
        {"datasets": [ROW | {"chat_template_jinja": "gone.j2"}]},
        "datasets.0.chat_template_jinja",
        {"datasets": [ROW | {"chat_template_jinja": "gone"}]},
    ),
    ("default_system_message_needs_chatml", {"default_system_message": "Be brief."}, "default_system_message", {"chat_template": "chatml"}),
    (
        "default_system_message_needs_chatml",
        {"default_system_message": "Be brief.", "chat_template": "llama3"},
        "default_system_message",
        {"default_system_message": None},
    ),
    ("new_tokens_are_texts", {"tokens": ["<a>", "<a>"]}, "tokens", {"tokens": ["<a>", "<b>"]}),
    ("new_tokens_are_texts", {"tokens": [""]}, "tokens", {"tokens": []}),
    (
        "new_tokens_are_texts",
        {"special_tokens": {"additional_special_tokens": ["<a>", "<a>"]}},
        "special_tokens.additional_special_tokens",
        {"special_tokens": {"additional_special_tokens": ["<a>"]}},
    ),
    (
        "overrides_are_distinct",
        {"added_tokens_overrides": {5: "<a>", 6: "<a>"}},
        "added_tokens_overrides",
        {"added_tokens_overrides": {5: "<a>", 6: "<b>"}},
    ),
    ("overrides_are_distinct", {"added_tokens_overrides": {5: ""}}, "added_tokens_overrides", {"added_tokens_overrides": {}}),
    (
        "adapters_keep_the_embedding",
        {"resize_token_embeddings_to_32x": True, "adapter": "lora"},
        "resize_token_embeddings_to_32x",
        {"adapter": None},
    ),
    ("adapters_keep_the_embedding", {"shrink_embeddings": True, "adapter": "lora"}, "shrink_embeddings", {"shrink_embeddings": False}),
    (
        "constant_has_no_warmup",
        {"lr_scheduler": "constant", "warmup_ratio": 0.1},
        "warmup_ratio",
        {"lr_scheduler": "constant_with_warmup"},
    ),
    ("streaming_knows_its_end", {"streaming": True}, "pretraining_dataset", {"max_steps": 5}),
    ("streaming_has_no_split", {"streaming": True, "val_set_size": 0.1}, "val_set_size", {"val_set_size": 0}),
    (
        "streaming_has_no_duplicates",
        {"streaming": True, "dataset_exact_deduplication": True},
        "dataset_exact_deduplication",
        {"streaming": False},
    ),
    (
        "streaming_packs_one_dataset",
        {"streaming": True, "sample_packing": True, "datasets": [ROW, ROW | {"path": "b"}]},
        "streaming",
        {"datasets": [ROW]},
    ),
    (
        "pretraining_has_no_run_average",
        {"pretraining_dataset": [{"path": "a"}], "include_tokens_per_second": True},
        "include_tokens_per_second",
        {"include_tokens_per_second": False},
    ),
    ("uploads_log_in", {"push_dataset_to_hub": "a/b"}, "push_dataset_to_hub", {"hf_use_auth_token": True}),
    ("pairs_are_not_packed", {"sample_packing": True, "rl": "dpo"}, "sample_packing", {"sample_packing": False}),
    ("pairs_are_not_packed", {"eval_sample_packing": True, "rl": "kto"}, "eval_sample_packing", {"eval_sample_packing": False}),
    (
        "judged_rows_are_not_packed",
        {"eval_sample_packing": True, "reward_model": True},
        "eval_sample_packing",
        {"eval_sample_packing": False},
    ),
    ("judged_rows_are_not_packed", {"sample_packing": True, "reward_model": True}, "sample_packing", {"sample_packing": False}),
    (
        "generation_is_not_packed",
        {"eval_sample_packing": True, "do_causal_lm_eval": True},
        "do_causal_lm_eval",
        {"eval_sample_packing": False},
    ),
    ("flattening_is_no_packing", {"batch_flattening": "auto", "sample_packing": True}, "batch_flattening", {"sample_packing": False}),
    ("flattening_needs_varlen", {"batch_flattening": True}, "batch_flattening", {"batch_flattening": "auto"}),
    (
        "skips_lengthen",
        {"use_pose": True, "pose_max_context_len": 256, "sequence_len": 512},
        "pose_max_context_len",
        {"pose_max_context_len": 4096},
    ),
    ("skips_lengthen", {"use_pose": True}, "use_pose", {"pose_max_context_len": 4096}),
    ("skips_in_bins", {"use_pose": True}, "use_pose", {"sample_packing": True}),
    ("short_rows_remain", {"min_sample_len": 600}, "min_sample_len", {"sequence_len": 600}),
    ("two_batch_sizes_give_the_third", {"batch_size": 8, "gradient_accumulation_steps": 2}, "batch_size", {"batch_size": None}),
    ("two_batch_sizes_give_the_third", {"batch_size": 8, "micro_batch_size": 3}, "batch_size", {"micro_batch_size": 4}),
    ("one_warmup", {"warmup_steps": 5, "warmup_ratio": 0.1}, "warmup_ratio", {"warmup_ratio": None}),
    ("warmup_ends", {"warmup_steps": 50, "max_steps": 50}, "warmup_steps", {"max_steps": 51}),
    ("one_save_cadence", {"save_steps": 5, "saves_per_epoch": 2}, "saves_per_epoch", {"save_steps": None}),
    ("one_save_cadence", {"save_steps": 5, "save_strategy": "epoch"}, "save_strategy", {"save_strategy": "steps"}),
    ("one_save_cadence", {"saves_per_epoch": 5, "save_strategy": "epoch"}, "save_strategy", {"save_strategy": None}),
    ("one_save_cadence", {"save_strategy": "steps"}, "save_strategy", {"save_steps": 5}),
    ("one_evaluation_cadence", {"eval_steps": 5, "evals_per_epoch": 2}, "evals_per_epoch", {"eval_steps": None}),
    ("evaluation_has_rows", {"eval_steps": 5}, "eval_steps", {"val_set_size": 0.1}),
    ("evaluation_has_rows", {"eval_strategy": "epoch"}, "eval_strategy", {"eval_strategy": "no"}),
    ("evaluation_has_rows", {"metric_for_best_model": "eval_loss"}, "metric_for_best_model", {"test_datasets": [ROW]}),
    ("best_needs_a_metric", {"save_strategy": "best"}, "save_strategy", {"metric_for_best_model": "eval_loss"}),
    ("best_is_saved", {"load_best_model_at_end": True, "eval_steps": 4, "save_steps": 6}, "load_best_model_at_end", {"save_steps": 8}),
    ("best_is_saved", {"load_best_model_at_end": True}, "load_best_model_at_end", {"eval_strategy": "epoch"}),
    (
        "best_is_saved",
        {"load_best_model_at_end": True, "evals_per_epoch": 3, "saves_per_epoch": 2},
        "load_best_model_at_end",
        {"saves_per_epoch": 3},
    ),
    ("stopping_early_measures", {"early_stopping_patience": 3}, "early_stopping_patience", {"evals_per_epoch": 2}),
    (
        "better_has_a_direction",
        {"metric_for_best_model": "eval_loss", "greater_is_better": True},
        "greater_is_better",
        {"greater_is_better": False},
    ),
    (
        "better_has_a_direction",
        {"metric_for_best_model": "accuracy", "greater_is_better": False},
        "greater_is_better",
        {"greater_is_better": True},
    ),
    (
        "trigger_is_a_name",
        {"dynamic_checkpoint": {"trigger_file_path": "a/b.save"}},
        "dynamic_checkpoint.trigger_file_path",
        {"dynamic_checkpoint": {"trigger_file_path": "b.save"}},
    ),
    ("benchmark_is_named", {"do_bench_eval": True}, "do_bench_eval", {"bench_dataset": "mmlu"}),
    (
        "one_way_to_name_targets",
        {"lora_target_linear": True, "lora_target_modules": "q.*"},
        "lora_target_linear",
        {"lora_target_modules": ["q_proj"]},
    ),
    ("targets_are_a_pattern", {"lora_target_modules": "q("}, "lora_target_modules", {"lora_target_modules": "q.*"}),
    ("few_bits_need_an_adapter", {"load_in_4bit": True}, "load_in_4bit", {"adapter": "lora"}),
    ("one_number_of_bits", {"load_in_4bit": True, "load_in_8bit": True}, "load_in_4bit", {"load_in_8bit": False}),
    ("gptq_has_no_revision", {"gptq": True, "revision_of_model": "main"}, "gptq", {"revision_of_model": None}),
    ("layer_names_count_layers", {"peft_layers_pattern": ["layers"]}, "peft_layers_pattern", {"peft_layers_to_transform": [1]}),
    (
        "one_choice_of_layers",
        {"unfrozen_parameters": ["a"], "peft_layers_to_transform": [1]},
        "unfrozen_parameters",
        {"peft_layers_to_transform": None},
    ),
    ("one_choice_of_layers", {"unfrozen_parameters": ["a"], "adapter": "lora"}, "unfrozen_parameters", {"adapter": None}),
    (
        "partly_frozen_recomputes_plainly",
        {"unfrozen_parameters": ["a"], "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        "gradient_checkpointing_kwargs",
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    ),
    ("parameters_have_no_dropout", {"lora_target_parameters": ["a"], "lora_dropout": 0.1}, "lora_dropout", {"lora_dropout": 0}),
    ("kernels_fuse_lora", {"lora_mlp_kernel": True}, "lora_mlp_kernel", {"adapter": "lora"}),
    ("kernels_fuse_lora", {"adapter": "lora", "lora_o_kernel": True, "load_in_8bit": True}, "lora_o_kernel", {"load_in_8bit": False}),
    ("kernels_fuse_lora", {"adapter": "lora", "lora_qkv_kernel": True, "fsdp_config": FSDP}, "lora_qkv_kernel", {"fsdp_version": 2}),
    ("fused_mlp_has_no_lora", {"flash_attn_fuse_mlp": True, "adapter": "lora"}, "flash_attn_fuse_mlp", {"adapter": None}),
    (
        "one_rate_per_parameter",
        {"lr_groups": [{"name": "a", "modules": ["b"], "lr": 1}], "loraplus_lr_ratio": 16},
        "lr_groups",
        {"loraplus_lr_ratio": None},
    ),
    ("one_rate_per_parameter", {"embedding_lr": 1, "embedding_lr_scale": 2}, "embedding_lr_scale", {"embedding_lr": None}),
    ("floors_belong_to_cosine", {"cosine_min_lr_ratio": 0.1, "lr_scheduler": "linear"}, "cosine_min_lr_ratio", {"lr_scheduler": "cosine"}),
    ("floors_belong_to_cosine", {"cosine_constant_lr_ratio": 0.8}, "cosine_constant_lr_ratio", {"cosine_min_lr_ratio": 0.1}),
    ("restarts_fit", {"jagged_restart_steps": 11}, "jagged_restart_steps", {"jagged_restart_warmup_steps": 9}),
    ("relora_restarts_lora", {"relora": True, "adapter": "lora"}, "relora", {"jagged_restart_steps": 100}),
    ("relora_restarts_lora", {"relora": True, "jagged_restart_steps": 100}, "relora", {"adapter": "lora"}),
    (
        "relora_restarts_lora",
        {"relora": True, "jagged_restart_steps": 100, "adapter": "lora", "deepspeed": "z.json"},
        "relora",
        {"deepspeed": None},
    ),
    (
        "relora_restarts_lora",
        {"relora": True, "jagged_restart_steps": 100, "adapter": "lora", "optimizer": "sgd"},
        "optimizer",
        {"optimizer": "adamw_torch"},
    ),
    ("one_precision", {"bf16": True, "fp16": True}, "fp16", {"bf16": "auto"}),
    (
        "gathered_in_8_bits_under_fsdp_2",
        {"fp8_enable_fsdp_float8_all_gather": True},
        "fp8_enable_fsdp_float8_all_gather",
        {"fsdp_version": 2},
    ),
    ("offloading_recomputes", {"activation_offloading": True}, "activation_offloading", {"gradient_checkpointing": True}),
    (
        "one_loss_kernel",
        {"chunked_cross_entropy": True, "flash_attn_cross_entropy": True},
        "flash_attn_cross_entropy",
        {"chunked_cross_entropy": False},
    ),
    ("scaled_softmax_is_flexible", {"scaling_softmax": True}, "scaling_softmax", {"scaling_softmax": False}),
    ("one_memory_limit", {"max_memory": {0: "20GiB"}, "gpu_memory_limit": 20}, "gpu_memory_limit", {"max_memory": None}),
    ("one_way_to_shard", {"deepspeed": "z.json", "fsdp_config": FSDP}, "deepspeed", {"fsdp_config": None}),
    ("deepcompile_compiles_deepspeed", {"deepcompile": True}, "deepcompile", {"deepspeed": "z.json"}),
    (
        "unpinned_only_when_offloaded",
        {"fsdp_version": 2, "fsdp_config": {"cpu_offload_pin_memory": False}},
        "fsdp_config.cpu_offload_pin_memory",
        {"fsdp_config": {"cpu_offload_pin_memory": False, "offload_params": True}},
    ),
    ("sharded_few_bits_learn_no_preferences", {"fsdp_version": 2, "load_in_4bit": True, "rl": "dpo"}, "fsdp_version", {"rl": None}),
    (
        "contexts_divide_the_sequence",
        {"context_parallel_size": 3, "sequence_len": 1024},
        "context_parallel_size",
        {"context_parallel_size": 1},
    ),
    (
        "contexts_divide_the_sequence",
        {"context_parallel_size": 2, "sample_packing": True, "micro_batch_size": 2},
        "micro_batch_size",
        {"context_parallel_size": 1},
    ),
    ("tiles_under_sharding_match", {"tiled_mlp": True, "fsdp_config": FSDP}, "tiled_mlp", {"fsdp_version": 2}),
    ("one_beta", {"rl_beta": 0.1, "trl": {"beta": 0.2}}, "rl_beta", {"rl_beta": 0.2}),
    ("one_kind_of_model", {"rl": "dpo", "reward_model": True}, "reward_model", {"rl": None}),
    ("losses_have_weights", {"dpo_loss_weights": [1, 2]}, "dpo_loss_weights", {"dpo_loss_type": ["sigmoid", "sft"]}),
    ("rewards_are_given", {"rl": "grpo"}, "rl", {"trl": {"reward_funcs": ["a.b"]}}),
    (
        "rewards_are_given",
        {"rl": "grpo", "trl": {"reward_funcs": ["a.b"], "reward_weights": [1, 2]}},
        "trl.reward_weights",
        {"trl": {"reward_funcs": ["a.b"], "reward_weights": [1]}},
    ),
    (
        "long_contexts_use_the_plain_loss",
        {"rl": "grpo", "context_parallel_size": 2, "trl": {"use_liger_kernel": True}},
        "trl.use_liger_kernel",
        {"context_parallel_size": 1},
    ),
    (
        "sleeping_needs_company",
        {"trl": {"vllm_enable_sleep_mode": True, "vllm_mode": "server"}},
        "trl.vllm_enable_sleep_mode",
        {"trl": {"vllm_enable_sleep_mode": True, "vllm_mode": "colocate"}},
    ),
    ("rounding_is_simulated_on_whole_weights", {"qat": {"weight_dtype": "int4"}, "adapter": "lora"}, "qat", {"adapter": None}),
    ("rounded_once", {"qat": {"weight_dtype": "int4"}, "quantization": {"weight_dtype": "int4"}}, "quantization", {"qat": None}),
    (
        "dtypes_are_a_pair",
        {"quantization": {"weight_dtype": "mxfp4"}},
        "quantization.weight_dtype",
        {"quantization": {"weight_dtype": "int4"}},
    ),
    ("labels_fit_the_head", {"reward_model": True, "num_labels": 2}, "num_labels", {"num_labels": 1}),
    ("steps_win_over_epochs", {"max_steps": 5, "num_epochs": 2}, "num_epochs", {"max_steps": None}),
    ("fsdp_1_is_old", {"fsdp_config": FSDP}, "fsdp_config", {"fsdp_version": 2}),
    ("streams_are_not_sorted", {"streaming": True, "group_by_length": True}, "group_by_length", {"group_by_length": False}),
    ("eight_bit_floats_want_a_compiler", {"fp8": True}, "fp8", {"torch_compile": True}),
    ("dependent_keys_have_effect", {"lora_r": 4}, "lora_r", {"adapter": "lora"}),
]

BY_NAME = {rule.__name__: rule for rule in (*RULES, *ADVICE)}


def verdicts(name: str, options: dict[str, Any]) -> list[Broken]:
    return list(BY_NAME[name](RecipeOptions.model_validate(MINIMAL | {key: value for key, value in options.items() if value is not None})))


@pytest.mark.parametrize(("name", "breaks", "key", "mends"), CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)])
def test_a_rule_is_broken_and_mended(name: str, breaks: dict[str, Any], key: str, mends: dict[str, Any]) -> None:
    found = verdicts(name, breaks)
    assert ".".join(map(str, found[0].keys[0])) == key and found[0].wrong and found[0].works
    assert verdicts(name, breaks | mends) == []


def test_every_rule_has_a_case() -> None:
    assert set(BY_NAME) == {case[0] for case in CASES}


def test_a_minimal_config_breaks_no_rule() -> None:
    assert [name for name in BY_NAME if verdicts(name, {})] == []


@pytest.mark.parametrize("key", [key for keys, _, _ in DEPENDENT for key in keys])
def test_dependent_keys_are_options(key: str) -> None:
    assert key in RecipeOptions.model_fields


def test_rules_point_at_the_line_of_the_file() -> None:
    assert [(line, key) for line, key, _ in refused(GOOD + "warmup_steps: 5\nwarmup_ratio: 0.1\n")] == [(7, "warmup_ratio")]


def test_advice_is_a_warning() -> None:
    recipe = check_source(parse(GOOD + "lora_r: 4\nmax_steps: 5\nnum_epochs: 2\n", "params.yaml"))
    assert [warning.split(" ")[:2] for warning in recipe.warnings] == [["params.yaml:6:", "lora_r:"], ["params.yaml:8:", "num_epochs:"]]


def test_a_typo_does_not_hide_a_bad_combination() -> None:
    found = refused(GOOD + "learnin_rate: 1\nwarmup_steps: 5\nwarmup_ratio: 0.1\nval_set_size: 1\n")
    assert [key for _, key, _ in found] == ["learnin_rate", "warmup_ratio", "val_set_size"]


def test_a_template_error_names_its_line_in_the_template() -> None:
    ((line, key, rest),) = refused(GOOD + "chat_template_jinja: |\n  {% for m in messages %}\n  {{ m.content }\n  {% endfor %}\n")
    assert (line, key) == (6, "chat_template_jinja") and "line 2 of it: unexpected '}'" in rest


def test_names_that_the_disk_must_judge_are_left_to_it() -> None:
    for name in ("gpt2", "owner/name", "model", "../a b/c", "~/x", "data/raw", "a--b", "C:\\\\models"):
        accepted(GOOD.replace("./base", f'"{name}"'))


def test_a_wrong_source_says_what_would_work() -> None:
    ((line, key, rest),) = refused(GOOD.replace("rows.jsonl", "pypi:evals/rows.jsonl"))
    assert (line, key) == (3, "datasets.0.path") and rest.endswith("works: pypi:NAME==1.2.3/path/in/the/wheel#sha256=HEX")


def test_code_of_models_is_not_yet_supported() -> None:
    ((line, key, rest),) = refused(GOOD + "trust_remote_code: true\n")
    assert (line, key) == (6, "trust_remote_code") and "not yet supported" in rest
    accepted(GOOD + "trust_remote_code: false\n")
