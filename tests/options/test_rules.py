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
FSDP: dict[str, Any] = {"fsdp_config": {"offload_params": True}, "fsdp_version": 2, "train": {"num_processes": 2}}
ZERO_2: dict[str, Any] = {"zero_optimization": {"stage": 2}}
ZERO_3: dict[str, Any] = {"zero_optimization": {"stage": 3}}
JUDGED: dict[str, Any] = {"reward_funcs": ["a.b"]}
OTHER: dict[str, Any] = {"path": "a/b", "weight": 0.5}
LINEAR: dict[str, Any] = {"method": "linear", "weight": 0.5, "others": [OTHER]}
GRPO: dict[str, Any] = {"rl": "grpo", "trl": JUDGED, "micro_batch_size": 8}

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
    (
        "judges_are_not_quantised",
        {"reward_model": True, "quantize": ["int8"], "datasets": [{"path": "a.jsonl", "type": "bradley_terry.chat_template"}]},
        "quantize",
        {"quantize": []},
    ),
    (
        "formats_are_distinct",
        {"quantize": ["int8", "q8_0", {"format": "torchao", "weight_dtype": "int8"}]},
        "quantize.2",
        {"quantize": ["int8", {"format": "torchao", "weight_dtype": "int8", "group_size": 64}]},
    ),
    (
        "entries_say_what_their_format_reads",
        {"quantize": [{"format": "gguf", "type": "q8_0", "bits": 4}]},
        "quantize.0.bits",
        {"quantize": [{"format": "gguf", "type": "q8_0"}]},
    ),
    (
        "entries_say_what_their_format_reads",
        {"quantize": ["q8_0", {"format": "compressed-tensors"}]},
        "quantize.1.format",
        {"quantize": ["q8_0", {"format": "compressed-tensors", "scheme": "W8A8"}]},
    ),
    *(
        ("merging_takes_several", {"merge": LINEAR | {name: None}}, key, {"merge": LINEAR})
        for name, key in (("method", "merge.others"), ("others", "merge.method"), ("weight", "merge.method"))
    ),
    *(
        ("what_merging_reads", {"merge": breaks}, f"merge.{key}", {"merge": mends})
        for breaks, key, mends in (
            ({"weight": 1.0}, "weight", {}),
            ({"density": 1.0}, "density", {}),
            (LINEAR | {"seed": 1}, "seed", LINEAR | {"method": "dare_linear", "density": 0.5, "seed": 1}),
            (LINEAR | {"method": "ties", "density": 0.5, "seed": 1}, "seed", LINEAR | {"method": "dare_ties", "density": 0.5, "seed": 1}),
            (LINEAR | {"density": 0.5}, "density", LINEAR | {"method": "ties", "density": 0.5}),
            (LINEAR | {"others": [OTHER | {"density": 0.5}]}, "others.0.density", LINEAR),
            (LINEAR | {"method": "ties"}, "method", LINEAR | {"method": "ties", "density": 0.5, "others": [OTHER | {"density": 1.0}]}),
        )
    ),
    *(
        ("an_arc_has_two_ends", {"merge": LINEAR | {"method": "slerp"} | breaks}, f"merge.{key}", {"merge": LINEAR | {"method": "slerp"}})
        for breaks, key in (
            ({"others": [OTHER, OTHER]}, "others"),
            ({"weight": -0.5}, "weight"),
            ({"weight": 0.0, "others": [OTHER | {"weight": 0.0}]}, "weight"),
        )
    ),
    ("an_arc_has_two_ends", {"merge": LINEAR | {"method": "slerp", "weight": -1.0}}, "merge.weight", {"merge": LINEAR | {"weight": -1.0}}),
    *(
        ("merged_models_have_one_shape", {"merge": LINEAR, key: value}, "merge.method", {key: None})
        for key, value in (("reward_model", True), ("process_reward_model", True), ("peft_layer_replication", [[0, 1]]))
    ),
    ("sources_can_be_read", {"merge": LINEAR | {"others": [OTHER | {"path": "ftp://a/b"}]}}, "merge.others.0.path", {"merge": LINEAR}),
    (
        "types_belong_to_their_format",
        {"quantize": [{"format": "gguf", "type": "nf4"}]},
        "quantize.0.type",
        {"quantize": [{"format": "bitsandbytes", "type": "nf4"}]},
    ),
    (
        "types_belong_to_their_format",
        {"quantize": [{"format": "awq", "bits": 3}]},
        "quantize.0.bits",
        {"quantize": [{"format": "auto-round", "bits": 3}]},
    ),
    (
        "schemes_have_groups_or_none",
        {"quantize": [{"format": "compressed-tensors", "scheme": "W8A8", "group_size": 32}]},
        "quantize.0.group_size",
        {"quantize": [{"format": "compressed-tensors", "scheme": "W8A16", "group_size": 32}]},
    ),
    (
        "pairs_take_what_they_have",
        {"quantize": [{"format": "torchao", "weight_dtype": "int8", "activation_dtype": "int8", "group_size": 32}]},
        "quantize.0.group_size",
        {"quantize": [{"format": "torchao", "weight_dtype": "int4", "activation_dtype": "int8", "group_size": 32}]},
    ),
    (
        "pairs_take_what_they_have",
        {"quantize": [{"format": "torchao", "weight_dtype": "int8", "packed": True}]},
        "quantize.0.packed",
        {"quantize": [{"format": "torchao", "weight_dtype": "int4", "packed": True}]},
    ),
    (
        "pairs_take_what_they_have",
        {"quantization": {"weight_dtype": "fp8", "quantize_embedding": True}},
        "quantization.quantize_embedding",
        {"quantization": {"weight_dtype": "int4", "quantize_embedding": True}},
    ),
    (
        "dtypes_are_a_pair",
        {"quantize": ["q8_0", {"format": "torchao", "weight_dtype": "int8", "activation_dtype": "fp8"}]},
        "quantize.1.weight_dtype",
        {"quantize": ["q8_0", {"format": "torchao", "weight_dtype": "fp8"}]},
    ),
    ("dtypes_are_a_pair", {"qat": {}}, "qat.weight_dtype", {"qat": {"weight_dtype": "int4"}}),
    (
        "dtypes_are_a_pair",
        {"qat": {"weight_dtype": "fp8", "activation_dtype": "fp8"}},
        "qat.weight_dtype",
        {"qat": {"weight_dtype": "int4", "activation_dtype": "int8"}},
    ),
    ("rounding_is_simulated_alone", {"qat": {"weight_dtype": "int4"}, "fp8": True}, "qat", {"fp8": False}),
    ("rounding_is_simulated_on_text", {"qat": {"weight_dtype": "int4"}, "rl": "dpo"}, "qat", {"qat": None}),
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
    ("splits_are_whole", {"val_set_size": 10.5}, "val_set_size", {"val_set_size": 10}),
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
        "signatures_are_long_enough",
        {"dedupe": {"near": {"threshold": 0.1, "permutations": 32}}},
        "dedupe.near.permutations",
        {"dedupe": {"near": {"threshold": 0.1, "permutations": 51}}},
    ),
    ("rows_are_trained_or_held_apart", {"dedupe": {"against": [ROW]}}, "dedupe.against.0", {"dedupe": {"against": [ROW | {"path": "b"}]}}),
    ("overlap_has_something_to_compare_with", {"dedupe": {"overlap": {"ngram": 8}}}, "dedupe.overlap", {"dedupe": {}}),
    ("types_are_known", {"dedupe": {"against": [ROW | {"type": "alpacca"}]}}, "dedupe.against.0.type", {"dedupe": {}}),
    (
        "shards_have_an_index",
        {"dedupe": {"against": [ROW | {"path": "b", "shards_idx": 1}]}},
        "dedupe.against.0.shards_idx",
        {"dedupe": {}},
    ),
    ("splits_can_be_read", {"dedupe": {"against": [ROW | {"split": "a[5]"}]}}, "dedupe.against.0.split", {"dedupe": {}}),
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
    ("flattening_is_no_packing", {"batch_flattening": "auto", "sample_packing": True}, "batch_flattening", {"sample_packing": False}),
    (
        "joined_rows_have_one_length",
        {"batch_flattening": True, "pad_to_sequence_len": True},
        "pad_to_sequence_len",
        {"batch_flattening": "auto"},
    ),
    (
        "joined_rows_have_one_length",
        {"multipack_real_batches": False, "pad_to_sequence_len": True},
        "pad_to_sequence_len",
        {"pad_to_sequence_len": False},
    ),
    ("real_batches_are_of_bins", {"multipack_real_batches": False}, "multipack_real_batches", {"sample_packing": True}),
    ("one_order", {"group_by_length": True, "curriculum_sampling": True}, "group_by_length", {"curriculum_sampling": False}),
    (
        "skips_lengthen",
        {"use_pose": True, "pose_max_context_len": 256, "sequence_len": 512},
        "pose_max_context_len",
        {"pose_max_context_len": 4096},
    ),
    ("skips_lengthen", {"use_pose": True}, "use_pose", {"pose_max_context_len": 4096}),
    (
        "skips_are_masked",
        {"use_pose": True, "attn_implementation": "flash_attention_2"},
        "use_pose",
        {"attn_implementation": "eager"},
    ),
    ("short_rows_remain", {"min_sample_len": 600}, "min_sample_len", {"sequence_len": 600}),
    ("two_batch_sizes_give_the_third", {"batch_size": 8, "gradient_accumulation_steps": 2}, "batch_size", {"batch_size": None}),
    ("two_batch_sizes_give_the_third", {"batch_size": 8, "micro_batch_size": 3}, "batch_size", {"micro_batch_size": 4}),
    (
        "one_process_looks_for_its_batch",
        {"auto_find_batch_size": True, "train": {"num_processes": 2}},
        "auto_find_batch_size",
        {"auto_find_batch_size": False},
    ),
    (
        "processes_share_the_batch",
        {"batch_size": 8, "micro_batch_size": 2, "train": {"num_processes": 3}},
        "batch_size",
        {"batch_size": 6},
    ),
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
    ("steps_are_whole", {"save_steps": 2.5}, "save_steps", {"save_steps": 0.25}),
    ("steps_are_whole", {"eval_steps": 1.5}, "eval_steps", {"eval_steps": 2.0}),
    ("best_is_measured", {"save_strategy": "best"}, "save_strategy", {"eval_steps": 0.1}),
    ("metric_is_measured", {"metric_for_best_model": "eval_los"}, "metric_for_best_model", {"metric_for_best_model": "loss"}),
    (
        "metric_is_measured",
        {"metric_for_best_model": "accuracy", "rl": "dpo"},
        "metric_for_best_model",
        {"metric_for_best_model": "rewards/accuracies"},
    ),
    ("metric_is_measured", {"metric_for_best_model": "f1"}, "metric_for_best_model", {"metric_for_best_model": "eval_accuracy"}),
    ("best_needs_a_metric", {"save_strategy": "best"}, "save_strategy", {"metric_for_best_model": "eval_loss"}),
    ("best_is_saved", {"load_best_model_at_end": True, "eval_steps": 4, "save_steps": 6}, "load_best_model_at_end", {"save_steps": 8}),
    ("best_is_saved", {"load_best_model_at_end": True}, "load_best_model_at_end", {"eval_strategy": "epoch"}),
    ("best_is_saved", {"load_best_model_at_end": True, "eval_steps": 5}, "load_best_model_at_end", {"save_strategy": "best"}),
    ("best_is_saved", {"load_best_model_at_end": True, "eval_steps": 0.1, "save_steps": 10}, "load_best_model_at_end", {"save_steps": 0.3}),
    (
        "best_is_saved",
        {"load_best_model_at_end": True, "evals_per_epoch": 3, "save_strategy": "no"},
        "load_best_model_at_end",
        {"save_strategy": None},
    ),
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
    ("better_has_a_direction", {"greater_is_better": True}, "greater_is_better", {"greater_is_better": False}),
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
    ("benchmark_is_named", {"do_bench_eval": True}, "do_bench_eval", {"bench_dataset": "./mmlu.jsonl"}),
    ("benchmark_is_a_dataset", {"do_bench_eval": True, "bench_dataset": "mmlu-zs"}, "bench_dataset", {"bench_dataset": "me/mmlu/a.json"}),
    ("benchmark_is_a_dataset", {"bench_dataset": "http://a.b/c.jsonl"}, "bench_dataset", {"bench_dataset": "https://a.b/c.jsonl"}),
    (
        "generation_has_rows",
        {"do_causal_lm_eval": True},
        "do_causal_lm_eval",
        {"val_set_size": 0.1},
    ),
    (
        "comet_is_elsewhere",
        {"eval_causal_lm_metrics": ["chrf", "comet"]},
        "eval_causal_lm_metrics",
        {"eval_causal_lm_metrics": ["chrf"]},
    ),
    (
        "judged_once",
        {"eval_causal_lm_metrics": ["chrf", "ter", "chrf"]},
        "eval_causal_lm_metrics",
        {"eval_causal_lm_metrics": ["chrf", "ter"]},
    ),
    ("judged_once", {"eval": {"lm_eval": {"tasks": ["a", "a"]}}}, "eval.lm_eval.tasks", {"eval": {"lm_eval": {"tasks": ["a", "b"]}}}),
    (
        "tasks_are_named",
        {"eval": {"lm_eval": {"include_path": "./tasks"}}},
        "eval.lm_eval.include_path",
        {"eval": {"lm_eval": {"include_path": "./tasks", "tasks": ["a"]}}},
    ),
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
    ("constant_has_no_warmup", {"lr_scheduler": "constant", "warmup_steps": 5}, "warmup_steps", {"optimizer": "schedule_free_sgd"}),
    (
        "constant_has_no_warmup",
        {"lr_scheduler": "reduce_lr_on_plateau", "warmup_steps": 5, "eval_steps": 5},
        "warmup_steps",
        {"warmup_steps": 0},
    ),
    ("floors_belong_to_cosine", {"cosine_min_lr_ratio": 0.1, "lr_scheduler": "linear"}, "cosine_min_lr_ratio", {"lr_scheduler": "rex"}),
    (
        "floors_belong_to_cosine",
        {"cosine_min_lr_ratio": 0.1, "lr_scheduler_kwargs": {"num_cycles": 2}},
        "lr_scheduler_kwargs",
        {"lr_scheduler_kwargs": None},
    ),
    ("floors_belong_to_cosine", {"lr_quadratic_warmup": True, "lr_scheduler": "rex"}, "lr_quadratic_warmup", {"lr_scheduler": "cosine"}),
    (
        "schedules_take_their_arguments",
        {"lr_scheduler_kwargs": {"num_cycle": 2}},
        "lr_scheduler_kwargs.num_cycle",
        {"lr_scheduler_kwargs": {"num_cycles": 2}},
    ),
    (
        "schedules_take_their_arguments",
        {"lr_scheduler_kwargs": {"power": 2}, "lr_scheduler": "constant"},
        "lr_scheduler_kwargs.power",
        {"lr_scheduler": "polynomial"},
    ),
    (
        "schedules_take_their_arguments",
        {"lr_scheduler": "warmup_stable_decay"},
        "lr_scheduler",
        {"lr_scheduler_kwargs": {"num_decay_steps": 5}},
    ),
    (
        "schedules_take_their_arguments",
        {"lr_scheduler": "cosine_with_min_lr"},
        "lr_scheduler",
        {"lr_scheduler_kwargs": {"min_lr": 1e-6}},
    ),
    (
        "schedules_take_their_arguments",
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6, "min_lr_rate": 0.1}},
        "lr_scheduler_kwargs.min_lr",
        {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    ),
    *(
        (
            "schedules_take_such_values",
            {"lr_scheduler": schedule, "lr_scheduler_kwargs": {argument: wrong}},
            f"lr_scheduler_kwargs.{argument}",
            {"lr_scheduler_kwargs": {argument: right}},
        )
        for schedule, argument, wrong, right in (
            ("polynomial", "power", "two", 2),
            ("polynomial", "lr_end", 1, 0),
            ("cosine", "num_cycles", True, 0.5),
            ("inverse_sqrt", "timescale", -5, 5),
            ("warmup_stable_decay", "num_decay_steps", 0.1, 10),
            ("cosine_with_min_lr", "min_lr_rate", 1.5, 1),
            ("one_cycle", "anneal_strategy", "cosine", "cos"),
            ("one_cycle", "final_div_factor", 0, 1e4),
            ("one_cycle", "three_phase", 3, True),
        )
    ),
    ("measuring_schedules_evaluate", {"lr_scheduler": "reduce_lr_on_plateau"}, "lr_scheduler", {"evals_per_epoch": 2}),
    (
        "measuring_schedules_evaluate",
        {"lr_scheduler": "reduce_lr_on_plateau", "eval_steps": 9, "jagged_restart_steps": 50},
        "jagged_restart_steps",
        {"lr_scheduler": "rex"},
    ),
    (
        "greedy_stays_low",
        {"lr_scheduler": "greedy", "learning_rate": 1e-4},
        "lr_scheduler",
        {"lr_scheduler_kwargs": {"min_lr": 1e-5}},
    ),
    ("divisors_belong_to_one_cycle", {"lr_div_factor": 10}, "lr_div_factor", {"lr_scheduler": "one_cycle"}),
    (
        "one_cycle_has_its_own_momentum",
        {"adam_beta1": 0.8, "lr_scheduler": "one_cycle"},
        "adam_beta1",
        {"lr_scheduler_kwargs": {"cycle_momentum": False}},
    ),
    (
        "divisors_belong_to_one_cycle",
        {"lr_div_factor": 10, "lr_scheduler": "one_cycle", "lr_scheduler_kwargs": {"div_factor": 5}},
        "lr_div_factor",
        {"lr_scheduler_kwargs": None},
    ),
    ("loraplus_trains_lora", {"loraplus_lr_ratio": 16}, "loraplus_lr_ratio", {"adapter": "lora"}),
    (
        "projected_layers_are_patterns",
        {"optimizer": "galore_adamw", "optim_target_modules": ["mlp", "*.attn"]},
        "optim_target_modules.1",
        {"optim_target_modules": ["mlp", r".*\.attn"]},
    ),
    ("projections_have_targets", {"optimizer": "galore_adamw"}, "optimizer", {"optim_target_modules": "all_linear"}),
    (
        "projections_have_targets",
        {"optimizer": "apollo_adamw", "optim_target_modules": ["mlp"], "adapter": "lora"},
        "optimizer",
        {"adapter": None},
    ),
    (
        "used_gradients_are_gone",
        {"optimizer": "lomo", "gradient_accumulation_steps": 2, "max_grad_norm": 0},
        "gradient_accumulation_steps",
        {"gradient_accumulation_steps": 1},
    ),
    ("used_gradients_are_gone", {"optimizer": "lomo"}, "max_grad_norm", {"max_grad_norm": 0}),
    (
        "used_gradients_are_gone",
        {"optimizer": "lomo", "max_grad_norm": 0, "auto_find_batch_size": True},
        "auto_find_batch_size",
        {"auto_find_batch_size": False},
    ),
    (
        "used_gradients_are_gone",
        {"optimizer": "lomo", "max_grad_norm": 0, "train": {"num_processes": 2}},
        "optimizer",
        {"optimizer": "adafactor"},
    ),
    ("used_gradients_are_gone", {"optimizer": "lomo", "max_grad_norm": 0, "fp16": True}, "fp16", {"fp16": False}),
    ("some_optimizers_have_one_rate", {"optimizer": "lomo", "embedding_lr": 1e-5}, "embedding_lr", {"embedding_lr": None}),
    ("matrices_are_whole", {"optimizer": "muon", "deepspeed": ZERO_2}, "optimizer", {"deepspeed": None}),
    ("matrices_are_whole", {"optimizer": "muon"} | FSDP, "optimizer", {"optimizer": "sgd"}),
    ("dion_has_two_rates", {"optimizer": "dion"}, "optimizer", {"dion_lr": 0.01}),
    ("schedule_free_needs_no_schedule", {"optimizer": "schedule_free_adamw"}, "optimizer", {"lr_scheduler": "constant"}),
    ("relora_restarts_lora", {"relora": True, "adapter": "lora"}, "relora", {"jagged_restart_steps": 100}),
    ("relora_restarts_lora", {"relora": True, "jagged_restart_steps": 100}, "relora", {"adapter": "lora"}),
    (
        "relora_restarts_lora",
        {"relora": True, "jagged_restart_steps": 100, "adapter": "lora", "deepspeed": ZERO_2},
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
    ("one_precision", {"bf16": "full", "float16": True}, "bf16", {"float16": False}),
    ("one_precision", {"fp8": True, "bf16": True, "float32": True}, "fp8", {"float32": False}),
    (
        "gathered_in_8_bits_under_fsdp_2",
        {"fp8_enable_fsdp_float8_all_gather": True},
        "fp8_enable_fsdp_float8_all_gather",
        {"fsdp_version": 2},
    ),
    ("offloading_recomputes", {"activation_offloading": True}, "activation_offloading", {"gradient_checkpointing": True}),
    (
        "offloading_recomputes",
        {"activation_offloading": "disk", "gradient_checkpointing": "offload"},
        "activation_offloading",
        {"gradient_checkpointing": "offload_disk"},
    ),
    (
        "recomputation_takes_its_settings",
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrent": True}},
        "gradient_checkpointing_kwargs.use_reentrent",
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
    ),
    *(
        (
            "recomputation_takes_its_settings",
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {key: wrong}},
            f"gradient_checkpointing_kwargs.{key}",
            {"gradient_checkpointing_kwargs": {key: right}},
        )
        for key, wrong, right in (
            ("use_reentrant", "false", False),
            ("preserve_rng_state", 1, True),
            ("determinism_check", "strict", "none"),
            ("every_n_layers", 0, 2),
        )
    ),
    (
        "compiled_models_keep_plain_attention",
        {"torch_compile": True, "attn_implementation": "varlen", "rl": "dpo"},
        "attn_implementation",
        {"attn_implementation": "sdpa"},
    ),
    (
        "configs_take_attributes_of_their_own",
        {"overrides_of_model_config": {"torch_dtype": "bfloat16"}},
        "overrides_of_model_config.torch_dtype",
        {"overrides_of_model_config": {"rope_theta": 1e6}},
    ),
    (
        "loading_takes_what_no_option_has",
        {"overrides_of_model_kwargs": {"device_map": "auto"}},
        "overrides_of_model_kwargs.device_map",
        {"overrides_of_model_kwargs": {"experts_implementation": "eager"}},
    ),
    (
        "loading_takes_what_no_option_has",
        {"overrides_of_model_kwargs": {"use_cache": False}},
        "overrides_of_model_kwargs.use_cache",
        {"overrides_of_model_kwargs": None, "overrides_of_model_config": {"use_cache": False}},
    ),
    (
        "loading_takes_what_no_option_has",
        {"overrides_of_model_kwargs": {"experts_implementation": "fast"}},
        "overrides_of_model_kwargs.experts_implementation",
        {"overrides_of_model_kwargs": {"experts_implementation": "grouped_mm"}},
    ),
    (
        "bits_are_counted_once",
        {"load_in_8bit": True, "bnb_config_kwargs": {"load_in_4bit": True}},
        "bnb_config_kwargs.load_in_4bit",
        {"bnb_config_kwargs": {"llm_int8_threshold": 5.0}},
    ),
    (
        "one_loss_kernel",
        {"chunked_cross_entropy": True, "flash_attn_cross_entropy": True},
        "flash_attn_cross_entropy",
        {"chunked_cross_entropy": False},
    ),
    ("scaled_softmax_is_flexible", {"scaling_softmax": True}, "scaling_softmax", {"scaling_softmax": False}),
    ("one_memory_limit", {"max_memory": {0: "20GiB"}, "gpu_memory_limit": 20}, "gpu_memory_limit", {"max_memory": None}),
    ("deepspeed_file_is_there", {"deepspeed": "z.json"}, "deepspeed", {"deepspeed": ZERO_2}),
    ("deepspeed_settings_are_known", {"deepspeed": {"bf16": {"enabled": "auto"}}}, "deepspeed", {"deepspeed": ZERO_2}),
    *(
        ("deepspeed_settings_are_known", {"deepspeed": ZERO_2 | wrong}, key, {"deepspeed": ZERO_2 | right})
        for wrong, key, right in (
            ({"optimizer": {"type": "AdamW"}}, "deepspeed.optimizer", {}),
            ({"scheduler": {"type": "WarmupLR"}}, "deepspeed.scheduler", {}),
            ({"no_such": 1}, "deepspeed.no_such", {}),
            ({"bf16": True}, "deepspeed.bf16", {"bf16": {"enabled": "auto"}}),
            ({"fp16": {"enabled": True}}, "deepspeed.fp16.enabled", {"fp16": {"enabled": False, "loss_scale": 0}}),
            ({"zero_force_ds_cpu_optimizer": True}, "deepspeed.zero_force_ds_cpu_optimizer", {"zero_force_ds_cpu_optimizer": False}),
            ({"zero_optimization": {"stage": 4}}, "deepspeed.zero_optimization.stage", ZERO_3),
            ({"zero_optimization": {"stage": True}}, "deepspeed.zero_optimization.stage", ZERO_3),
            ({"zero_optimization": 3}, "deepspeed.zero_optimization", ZERO_3),
            (
                {"zero_optimization": {"stage": 2, "zero_quantized_gradients": True}},
                "deepspeed.zero_optimization.zero_quantized_gradients",
                ZERO_2,
            ),
            (
                {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
                "deepspeed.zero_optimization.offload_param.device",
                {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu", "pin_memory": True}}},
            ),
            (
                {"zero_optimization": {"stage": 2, "reduce_bucket_size": float("inf")}},
                "deepspeed.zero_optimization.reduce_bucket_size",
                {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e8}},
            ),
        )
    ),
    *(
        (
            "deepspeed_agrees",
            {"micro_batch_size": 2, "deepspeed": ZERO_2 | {key: wrong}},
            f"deepspeed.{key}",
            {"deepspeed": ZERO_2 | {key: right}},
        )
        for key, wrong, right in (
            ("train_micro_batch_size_per_gpu", 1, 2),
            ("gradient_accumulation_steps", 4, "auto"),
            ("train_batch_size", 4, 2),
            ("gradient_clipping", 0.5, 1),
        )
    ),
    ("deepspeed_agrees", {"deepspeed": ZERO_2 | {"train_batch_size": 3}}, "deepspeed.train_batch_size", {"train": {"num_processes": 3}}),
    (
        "offloaded_weights_are_shared_out",
        {"deepspeed": {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}},
        "deepspeed.zero_optimization.offload_param",
        {"deepspeed": {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}},
    ),
    ("numbers_are_shared_out_whole", {"bf16": "full", "deepspeed": ZERO_2}, "bf16", {"bf16": True}),
    ("numbers_are_shared_out_whole", {"fp16": True, "bf16": False, "deepspeed": ZERO_2}, "fp16", {"fp16": False}),
    (
        "numbers_are_shared_out_whole",
        {"bf16": False, "deepspeed": ZERO_2 | {"bf16": {"enabled": True}}},
        "deepspeed.bf16.enabled",
        {"bf16": "auto"},
    ),
    (
        "numbers_are_shared_out_whole",
        {"bf16": True, "deepspeed": ZERO_2 | {"bf16": {"enabled": False}}},
        "deepspeed.bf16.enabled",
        {"deepspeed": ZERO_2 | {"bf16": {"enabled": "auto"}}},
    ),
    ("some_need_what_is_shared_out", {"rl": "dpo", "deepspeed": ZERO_2}, "rl", {"rl": None}),
    ("some_need_what_is_shared_out", {"lisa_n_layers": 1, "deepspeed": ZERO_2}, "lisa_n_layers", {"deepspeed": None}),
    ("some_need_what_is_shared_out", {"torch_compile": True, "deepspeed": ZERO_2}, "torch_compile", {"torch_compile": "auto"}),
    ("some_need_what_is_shared_out", {"chunked_cross_entropy": True, "deepspeed": ZERO_3}, "chunked_cross_entropy", {"deepspeed": ZERO_2}),
    (
        "some_need_what_is_shared_out",
        {"load_in_4bit": True, "adapter": "qlora", "deepspeed": ZERO_3},
        "load_in_4bit",
        {"deepspeed": ZERO_2},
    ),
    (
        "rows_are_not_shared_out",
        {"unfrozen_parameters": ["model.embed_tokens.weight[:32000]"], "deepspeed": ZERO_2},
        "unfrozen_parameters",
        {"unfrozen_parameters": ["model.embed_tokens.weight"]},
    ),
    ("cut_parameters_have_divisible_updates", {"optimizer": "adafactor", "deepspeed": ZERO_2}, "optimizer", {"optimizer": "sgd"}),
    ("several_processes_are_ddp", {"ddp": False, "train": {"num_processes": 2}}, "ddp", {"deepspeed": ZERO_2}),
    ("several_processes_are_ddp", {"ddp": False, "train": {"num_processes": 2}}, "ddp", {"fsdp_config": {}}),
    ("one_way_to_shard", {"deepspeed": ZERO_2} | FSDP, "deepspeed", {"fsdp_config": None}),
    ("fsdp_is_the_second", FSDP | {"fsdp_version": 1}, "fsdp_version", {"fsdp_version": 2}),
    ("fsdp_is_the_second", {"fsdp_config": {}}, "fsdp_version", {"fsdp_version": 2}),
    ("shards_are_of_several", FSDP | {"train": {}}, "fsdp_config", {"train": {"num_processes": 4}}),
    *(
        ("fsdp_settings_hold", FSDP | {"fsdp_config": {key: wrong}}, f"fsdp_config.{key}", {"fsdp_config": {key: right}})
        for key, wrong, right in (
            ("use_orig_params", False, True),
            ("auto_wrap_policy", "SIZE_BASED_WRAP", "TRANSFORMER_BASED_WRAP"),
            ("state_dict_type", "SHARDED_STATE_DICT", "FULL_STATE_DICT"),
            ("state_dict_type", "LOCAL_STATE_DICT", "FULL_STATE_DICT"),
            ("final_state_dict_type", "SHARDED_STATE_DICT", "FULL_STATE_DICT"),
        )
    ),
    *(
        (
            "mixed_precision_is_bf16",
            FSDP | {"fsdp_config": {"mixed_precision_policy": policy}} | numbers,
            "fsdp_config.mixed_precision_policy",
            mends,
        )
        for policy, numbers, mends in (
            ("fp16", {"bf16": True}, {"fsdp_config": {"mixed_precision_policy": "bf16"}}),
            ("bf16", {}, {"bf16": True}),
            ("bf16", {"bf16": False}, {"bf16": "full"}),
            ("fp32", {"bf16": True}, {"bf16": False}),
        )
    ),
    *(
        ("some_need_whole_weights", FSDP | {key: value}, key, {key: None})
        for key, value in (
            ("fp16", True),
            ("rl", "dpo"),
            ("load_in_4bit", True),
            ("chunked_cross_entropy", True),
            ("activation_offloading", "disk"),
            ("gradient_checkpointing", "offload_disk"),
        )
    ),
    (
        *("cut_rows_are_not_held", FSDP | {"unfrozen_parameters": ["model.embed_tokens.weight[:32000]"]}, "unfrozen_parameters"),
        {"unfrozen_parameters": ["model.embed_tokens.weight"]},
    ),
    ("shards_have_divisible_updates", FSDP | {"optimizer": "adafactor"}, "optimizer", {"optimizer": "sgd"}),
    (
        *("every_process_reads_the_model", FSDP | {"fsdp_config": {"cpu_ram_efficient_loading": True}}),
        *("fsdp_config.cpu_ram_efficient_loading", {"fsdp_config": {"cpu_ram_efficient_loading": False}}),
    ),
    ("deepcompile_compiles_deepspeed", {"deepcompile": True}, "deepcompile", {"deepspeed": ZERO_2}),
    (
        "unpinned_only_when_offloaded",
        FSDP | {"fsdp_config": {"cpu_offload_pin_memory": False}},
        "fsdp_config.cpu_offload_pin_memory",
        {"fsdp_config": {"cpu_offload_pin_memory": False, "offload_params": True}},
    ),
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
    ("one_beta", {"rl_beta": 0.1, "trl": {"beta": 0.2}}, "rl_beta", {"rl_beta": 0.2}),
    ("one_kind_of_model", {"rl": "dpo", "reward_model": True}, "reward_model", {"rl": None}),
    ("losses_are_known", {"rl": "dpo", "dpo_loss_type": "sigmod"}, "dpo_loss_type", {"dpo_loss_type": "sigmoid"}),
    ("ipo_is_a_loss", {"rl": "ipo", "dpo_loss_type": "hinge"}, "dpo_loss_type", {"rl": "dpo"}),
    *(
        ("weights_are_of_single_pairs", {"dpo_use_weighting": True, "dpo_loss_type": loss}, "dpo_use_weighting", {"dpo_loss_type": "ipo"})
        for loss in ("aot", "aot_unpaired", ["sigmoid", "sft"])
    ),
    ("swapped_pairs_have_a_place", {"rl": "dpo", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing", {"dpo_loss_type": "robust"}),
    ("swapped_pairs_have_a_place", {"rl": "ipo", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing", {"dpo_label_smoothing": None}),
    ("swapped_pairs_have_a_place", {"rl": "dpo", "dpo_loss_type": "exo_pair"}, "dpo_loss_type", {"dpo_label_smoothing": 0.001}),
    ("feedback_has_company", {"rl": "kto", "micro_batch_size": 1}, "micro_batch_size", {"micro_batch_size": 2}),
    ("one_weight_of_the_odds", {"rl": "orpo", "orpo_alpha": 0.1, "rl_beta": 0.2}, "orpo_alpha", {"rl_beta": 0.1}),
    ("one_weight_of_the_odds", {"rl": "orpo", "orpo_alpha": 0.1, "trl": {"beta": 0.2}}, "orpo_alpha", {"trl": {"beta": 0.1}}),
    ("preferences_hold_on", {"rl": "dpo", "trl": {"beta": 0}}, "trl.beta", {"trl": {"beta": 0.1}}),
    ("the_reference_stays", {"rl": "dpo", "relora": True}, "relora", {"rl": "simpo"}),
    ("compared_rows_stand_alone", {"rl": "dpo", "batch_flattening": True}, "batch_flattening", {"batch_flattening": "auto"}),
    ("compared_rows_stand_alone", {"reward_model": True, "use_pose": True}, "use_pose", {"use_pose": False}),
    ("losses_come_whole", {"chunked_cross_entropy": True, "reward_model": True}, "chunked_cross_entropy", {"reward_model": False}),
    ("losses_come_whole", {"rl": "kto", "chunked_cross_entropy": True}, "chunked_cross_entropy", {"chunked_cross_entropy": False}),
    ("judges_are_given_out_whole", {"reward_model": True, "load_in_4bit": True}, "load_in_4bit", {"reward_model": False}),
    ("judges_are_given_out_whole", {"process_reward_model": True, "lora_model_dir": "a"}, "lora_model_dir", {"lora_model_dir": None}),
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
    ("answers_to_a_prompt_stay_together", GRPO | {"batch_size": 12}, "batch_size", {"batch_size": 16}),
    ("answers_to_a_prompt_stay_together", GRPO | {"batch_size": 12}, "batch_size", {"trl": JUDGED | {"num_generations": 6}}),
    ("prompts_are_whole", GRPO | {"excess_length_strategy": "truncate"}, "excess_length_strategy", {"excess_length_strategy": "drop"}),
    (
        "references_that_follow_exist",
        GRPO | {"trl": JUDGED | {"sync_ref_model": True}},
        "trl.sync_ref_model",
        {"trl": JUDGED | {"sync_ref_model": True, "beta": 0.1}},
    ),
    (
        "references_that_follow_exist",
        GRPO | {"adapter": "lora", "lora_target_linear": True, "trl": JUDGED | {"sync_ref_model": True, "beta": 0.1}},
        "trl.sync_ref_model",
        {"trl": JUDGED | {"beta": 0.1}},
    ),
    (
        "references_stay",
        GRPO | {"adapter": "lora", "lora_target_linear": True, "relora": True, "jagged_restart_steps": 10, "rl_beta": 0.1},
        "relora",
        {"rl_beta": None},
    ),
    *(
        ("answers_have_no_layout", GRPO | {key: True} | more, key, {key: False})
        for key, more in {
            "batch_flattening": {},
            "use_pose": {"pose_max_context_len": 4096},
            "pad_to_sequence_len": {},
            "group_by_length": {},
            "train_on_inputs": {},
        }.items()
    ),
    ("prompts_are_not_trained", GRPO | {"datasets": [ROW | {"train_on_eos": "all"}]}, "datasets.0.train_on_eos", {"datasets": [ROW]}),
    (
        "reasoning_is_told_by_a_parser",
        GRPO | {"vllm": {"enable_reasoning": True}},
        "vllm.enable_reasoning",
        {"vllm": {"enable_reasoning": True, "reasoning_parser": "deepseek_r1"}},
    ),
    ("qlora_has_four_bits", {"adapter": "qlora"}, "adapter", {"load_in_4bit": True}),
    (
        "qlora_has_four_bits",
        {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": True},
        "load_in_8bit",
        {"load_in_8bit": False},
    ),
    *(
        ("initialisation_is_known", {"peft_init_lora_weights": wrong}, "peft_init_lora_weights", {"peft_init_lora_weights": right})
        for wrong, right in (("pisa", "pissa"), ("pissa_niter_0", "pissa_niter_16"), ("True", False))
    ),
    (
        "one_initialisation",
        {"peft": {"loftq_config": {}}, "peft_init_lora_weights": "pissa"},
        "peft_init_lora_weights",
        {"peft_init_lora_weights": "loftq"},
    ),
    (
        "shifted_base_is_whole",
        {"peft_init_lora_weights": "pissa_niter_4", "peft_layer_replication": [[0, 2]]},
        "peft_layer_replication",
        {"peft_init_lora_weights": "eva"},
    ),
    ("shifted_base_is_whole", {"peft": {"loftq_config": {}}, "load_in_4bit": True}, "load_in_4bit", {"load_in_4bit": False}),
    (
        "parameters_begin_plainly",
        {"lora_target_parameters": ["a"], "peft_use_dora": True},
        "peft_use_dora",
        {"peft_use_dora": False},
    ),
    (
        "parameters_begin_plainly",
        {"lora_target_parameters": ["a"], "peft_init_lora_weights": "eva"},
        "peft_init_lora_weights",
        {"peft_init_lora_weights": "gaussian"},
    ),
    (
        "orthogonal_ranks_are_even",
        {"peft_init_lora_weights": "orthogonal", "lora_rank_pattern": {"q": 3}},
        "lora_rank_pattern",
        {"lora_rank_pattern": {"q": 4}},
    ),
    (
        "orthogonal_begins_in_floats",
        {"peft_init_lora_weights": "orthogonal", "load_in_8bit": True, "adapter": "lora"},
        "peft_init_lora_weights",
        {"peft_init_lora_weights": "eva"},
    ),
    ("ranks_are_positive", {"lora_alpha_pattern": {"q": 0}}, "lora_alpha_pattern", {"lora_alpha_pattern": {"q": 1}}),
    ("names_are_patterns", {"lora_rank_pattern": {"(q": 4}}, "lora_rank_pattern", {"lora_rank_pattern": {"(q)": 4}}),
    ("names_are_patterns", {"unfrozen_parameters": ["a("]}, "unfrozen_parameters", {"unfrozen_parameters": ["a[3:]", "b[0-9]"]}),
    ("row_ranges_hold_rows", {"unfrozen_parameters": ["a[3:3]"]}, "unfrozen_parameters", {"unfrozen_parameters": ["a[3:4]", "a[3:]"]}),
    (
        "numbers_count_in_names",
        {"peft_layers_to_transform": [1], "lora_target_modules": "q.*"},
        "peft_layers_to_transform",
        {"lora_target_modules": ["q"]},
    ),
    (
        "numbers_count_in_names",
        {"peft_layers_to_transform": [1], "lora_target_modules": "q.*"},
        "peft_layers_to_transform",
        {"lora_target_modules": "all-linear"},
    ),
    (
        "numbers_count_in_names",
        {"peft_layers_to_transform": [1], "lora_target_parameters": ["a"]},
        "peft_layers_to_transform",
        {"peft_layers_to_transform": None},
    ),
    (
        "replicated_layers_are_ranges",
        {"peft_layer_replication": [[0, 2], [2, 2]]},
        "peft_layer_replication",
        {"peft_layer_replication": [[0, 2], [1, 2]]},
    ),
    ("lisa_says_when", {"lisa_n_layers": 1}, "lisa_n_layers", {"lisa_step_interval": 5}),
    ("lisa_says_when", {"lisa_n_layers": 1, "lisa_step_interval": 5, "adapter": "lora"}, "lisa_n_layers", {"adapter": None}),
    (
        "lisa_says_when",
        {"lisa_n_layers": 1, "lisa_step_interval": 5, "unfrozen_parameters": ["a"]},
        "lisa_n_layers",
        {"unfrozen_parameters": None},
    ),
    ("relora_merges_plain_lora", {"relora": True, "peft_init_lora_weights": "eva"}, "peft_init_lora_weights", {"relora": False}),
    ("relora_merges_plain_lora", {"relora": True, "peft_use_dora": True}, "relora", {"peft_use_dora": False}),
    ("an_adapter_begins_once", {"lora_model_dir": "a", "relora": True}, "relora", {"relora": False}),
    (
        "an_adapter_begins_once",
        {"lora_model_dir": "a", "peft": {"loftq_config": {}}},
        "peft.loftq_config",
        {"lora_model_dir": None},
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
    ("training_has_rows", {"val_set_size": 1}, "val_set_size", {"val_set_size": 0.5}),
    (
        "groups_are_for_the_best_fit",
        {"sample_packing": True, "sample_packing_group_size": 9, "sample_packing_sequentially": True},
        "sample_packing_group_size",
        {"sample_packing_sequentially": False},
    ),
    ("streams_are_not_sorted", {"streaming": True, "group_by_length": True}, "group_by_length", {"group_by_length": False}),
    ("eight_bit_floats_want_a_compiler", {"fp8": True}, "fp8", {"torch_compile": True}),
    ("dependent_keys_have_effect", {"lora_r": 4}, "lora_r", {"adapter": "lora"}),
    ("steps_hold_whole_groups", GRPO | {"micro_batch_size": 12}, "micro_batch_size", {"gradient_accumulation_steps": 2}),
    ("generation_has_effect", {"trl": JUDGED}, "trl.reward_funcs", {"rl": "grpo"}),
    ("generation_has_effect", GRPO | {"trl": JUDGED | {"vllm_mode": "server"}}, "trl.vllm_mode", {"trl": JUDGED}),
    ("generation_has_effect", {"vllm": {"port": 9000}}, "vllm", {"rl": "grpo"}),
    (
        "whole_answers_weigh_the_same",
        GRPO | {"trl": JUDGED | {"importance_sampling_level": "sequence"}},
        "trl.importance_sampling_level",
        {"trl": JUDGED | {"importance_sampling_level": "sequence", "loss_type": "grpo"}},
    ),
    (
        "whole_answers_weigh_the_same",
        GRPO | {"trl": JUDGED | {"loss_type": "luspo"}},
        "trl.loss_type",
        {"trl": JUDGED | {"loss_type": "luspo", "importance_sampling_level": "sequence"}},
    ),
    ("several_processes_are_ddp", {"ddp": False, "train": {"num_processes": 2}}, "ddp", {"ddp": True}),
    (
        *("machines_have_as_many_processes", {"train": {"num_processes": 3, "num_machines": 2}}, "train.num_machines"),
        {"train": {"num_processes": 4, "num_machines": 2}},
    ),
    (
        *("machines_have_as_many_processes", {"train": {"num_machines": 2}}, "train.num_machines"),
        {"train": {"num_processes": 2, "num_machines": 2}},
    ),
    (
        *("a_port_is_for_several_machines", {"train": {"main_process_port": 29500}}, "train.main_process_port"),
        {"train": {"num_processes": 2, "num_machines": 2, "main_process_port": 29500}},
    ),
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
    found = refused(GOOD + "learnin_rate: 1\nwarmup_steps: 5\nwarmup_ratio: 0.1\nval_set_size: 1.5\n")
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
