"""A params.yaml as users write it, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.check import check
from pipeline.options.recipe import load_recipe
from pipeline.options.views import VIEWS, FetchOptions, TokenizeOptions, TrainOptions
from tests.options.configs import GOOD, accepted, message, refused


def test_views_hold_what_the_file_says() -> None:
    recipe = accepted(GOOD + "seed: 0x10\nnum_epochs: 3\nbf16: no\n")
    train = recipe.view(TrainOptions)
    assert (train.learning_rate, train.seed, train.num_epochs, train.bf16) == (2e-4, 16, 3.0, False)
    assert recipe.view(FetchOptions).canonical()["datasets"] == [{"path": "rows.jsonl"}]
    assert recipe.view(TokenizeOptions).datasets[0].type == "chat_template"


def test_a_view_has_no_option_of_another_stage() -> None:
    with pytest.raises(AttributeError):
        accepted(GOOD).view(TrainOptions).base_model  # type: ignore[attr-defined]  # noqa: B018


def test_a_view_has_no_option_that_does_not_work() -> None:
    view = accepted(GOOD).view(TrainOptions)
    for name in ("deepcompile", "trainer_cls", "flash_attention", "gc_steps"):
        with pytest.raises(AttributeError, match=name):
            getattr(view, name)


def test_all_problems_come_at_once_in_file_order() -> None:
    text = (
        "base_model: ./base\ndatasets:\n  - path: rows.jsonl\n    typ: chat_template\nlora_r: true\nlearnig_rate: 1\nwarmup_steps: 1\n"
        "warmup_ratio: 0.1\nseed: -1\neval:\n  batchsize: 3\nload_in_8bit: true\nunsloth_rope: true\nadapter: qlora\n"
    )
    assert [(line, key) for line, key, _ in refused(text)] == [
        (1, "learning_rate"),
        (4, "datasets.0.typ"),
        (5, "lora_r"),
        (6, "learnig_rate"),
        (8, "warmup_ratio"),
        (9, "seed"),
        (11, "eval.batchsize"),
        (12, "load_in_8bit"),
        (13, "unsloth_rope"),
        (14, "adapter"),
    ]


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("learning-rate: 1", "`learning_rate`"),
        ("eval: {batchsize: 3}", "`batch_size`"),
        ("special_tokens: {pad_tokn: x}", "`pad_token`"),
        ("field_messages: x", "`datasets.field_messages`"),
        ("max_new_tokens: 3", "`eval.max_new_tokens`"),
        ("trl: {bta: 3}", "`beta`"),
        ("fsdp_config: {reshard: true}", "`reshard_after_forward`"),
        ("sagittarius: 3", "`regrow explain`"),
        ("liger_rms_norm: true", "newer Axolotl"),
    ],
)
def test_misspelt_and_misplaced_keys_get_a_suggestion(line: str, suggestion: str) -> None:
    assert suggestion in refused(GOOD + line + "\n")[0][2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lora_r: eight", '"eight" — expected a whole number, at least 1, at most 65536; for example `lora_r: 8`, the default'),
        ("lora_r: true", "expected a whole number"),
        ("seed: 4.5", "expected a whole number"),
        ("num_epochs: .nan", "expected a number, more than 0"),
        ("max_grad_norm: .inf", "expected a number"),
        ("lora_target_modules: [1]", "expected text or a list of text"),
        ("eval: 3", "expected a mapping"),
        ("adapter: lorra", 'expected one of "lora", "qlora"'),
        ("adapter: llama-adapter", "no part of any weight"),
        ("revision_of_model: 1234567", "expected text"),
        ("val_set_size: 1.5", "a count of rows"),
        ("chat_template: jinja", "chat_template_jinja"),
    ],
)
def test_wrong_values_name_key_line_and_what_would_work(line: str, expected: str) -> None:
    found = refused(GOOD + line + "\n")
    assert [(number, key.split(".")[0]) for number, key, _ in found] == [(6, line.split(":")[0])]
    assert expected in found[0][2]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\na: 2\n", "params.yaml:2: a is given twice, first in line 1"),
        ("eval:\n  samples: 1\n  samples: 2\n", "params.yaml:3: eval.samples is given twice"),
        ("a: [1\n", "params.yaml:2"),
        ("a:\n\t- b\n", "params.yaml:2"),
        ("a: *x\n", "anchor"),
        ("a: &x [*x]\n", "contains itself"),
        ("a: &x\n  b: &y {<<: *x}\n", "merges something"),
        ("- a\n", "a list"),
        ("hello\n", "a single value"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("[a]: 1\n", "key"),
        ("a: \x00\n", "params.yaml"),
        ("", "base_model"),
        ("# nothing\n", "base_model"),
    ],
)
def test_what_is_no_yaml_is_one_clear_error(tmp_path: Path, text: str, where: str) -> None:
    assert where in message(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RegrowError):
            load_recipe(path)
    (tmp_path / "params.yaml").write_bytes(b"base_model: \xff\n")
    with pytest.raises(RegrowError, match="UTF-8"):
        load_recipe(tmp_path / "params.yaml")


def test_anchors_and_merges_are_read() -> None:
    text = (
        GOOD.replace("  - path: rows.jsonl\n", "  - &first\n    path: rows.jsonl\n")
        + "test_datasets:\n  - <<: *first\n    path: other.jsonl\n"
    )
    assert accepted(text).options.test_datasets[0].type == "chat_template"  # type: ignore[index]


def test_null_counts_as_not_given() -> None:
    empty = "wandb_project:\nadapter:\nlora_r:\nseed: null\neval:\ntrl: {beta: null}\nspecial_tokens:\n"
    for view in VIEWS.values():
        assert accepted(GOOD + empty).view(view).canonical() == accepted(GOOD).view(view).canonical()


def test_secrets_are_not_shown() -> None:
    text = GOOD + "comet_api_key: [abc123secret]\nhf_token: xyz789secret\nmlflow_tracking_uri: [https://me:pass@host]\n"
    found = refused(text)
    assert len(found) == 3 and not any("secret" in rest or "pass@" in rest for _, _, rest in found)


def test_secrets_that_are_used_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(GOOD + "comet_project_name: p\ncomet_api_key: abc123secret\ncomet_experiment_config: {a: hidden}\n", encoding="utf-8")
    told = check(file, resolved=True)
    assert 'comet_api_key: "(not shown)"' in told and "abc123secret" not in told and "hidden" not in told


def test_pretraining_stands_in_for_datasets() -> None:
    start = "base_model: ./base\nlearning_rate: 1e-4\nmax_steps: 10\nsequence_len: 100\nmicro_batch_size: 3\n"
    recipe = accepted(start + "pretraining_dataset:\n  - path: owner/name\n    skip: 7\n    text_column: body\n")
    fetch, tokenize = recipe.view(FetchOptions), recipe.view(TokenizeOptions)
    assert [(entry.path, entry.split, entry.skip) for entry in fetch.datasets] == [("owner/name", None, 7)]
    assert [(entry.type, entry.field) for entry in tokenize.datasets] == [("pretrain", "body")]
    assert (fetch.stream_bytes, fetch.stream_row_bytes) == (10 * 3 * 100 * 16, None)
    named = accepted(start + "pretraining_dataset: owner/name\n")
    assert [entry.path for entry in named.view(FetchOptions).datasets] == ["owner/name"]
    assert [entry.type for entry in named.view(TokenizeOptions).datasets] == ["pretrain"]
    both = refused(GOOD + "max_steps: 10\npretraining_dataset: owner/name\n")
    assert [(line, key) for line, key, _ in both] == [(7, "pretraining_dataset")]


def test_what_is_streamed_ends_with_max_steps() -> None:
    view = accepted(GOOD + "streaming: true\nmax_steps: 10\nsequence_len: 100\ngradient_accumulation_steps: 2\n").view(FetchOptions)
    assert (view.stream_bytes, view.stream_row_bytes) == (10 * 2 * 100 * 16, 1600)
    assert accepted(GOOD + "max_steps: 10\n").view(FetchOptions).stream_bytes is None


def test_only_random_parts_depend_on_the_seed() -> None:
    assert accepted(GOOD + "seed: 7\n").view(FetchOptions).rows_seed is None
    part = GOOD.replace("    type", "    shards: 2\n    type") + "seed: 7\n"
    assert accepted(part).view(FetchOptions).rows_seed == 7


@pytest.mark.parametrize(
    ("key", "most"),
    [
        *((key, 2**31 - 1) for key in ("sequence_len", "max_steps", "micro_batch_size", "gradient_accumulation_steps", "logging_steps")),
        *((key, 2**31 - 1) for key in ("save_steps", "warmup_steps", "val_set_size", "eval.samples", "eval.max_new_tokens")),
        *(("merge.max_shard_size_mb", 2**31 - 1), ("lora_r", 65536), ("eval.batch_size", 65536), ("num_epochs", 1_000_000)),
    ],
)
def test_absurd_numbers_are_refused(key: str, most: int) -> None:
    group, _, name = key.rpartition(".")
    text = f"{group}:\n  {name}" if group else name
    for value in (most + 1, 10**400):
        assert [found for _, found, rest in refused(GOOD + f"{text}: {value}\n") if f"at most {most}" in rest] == [key]
    rest = "max_steps: null\n" if key != "warmup_steps" else "max_steps: null\nlr_scheduler: linear\n"
    accepted(GOOD + (rest if key != "max_steps" else "") + f"{text}: {most}\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (GOOD.replace("./base", '""'), "base_model"),
        (GOOD.replace("./base", '" \\t"'), "base_model"),
        (GOOD + 'tokenizer_config: ""\n', "tokenizer_config"),
        (GOOD + "tokenizer_config: ' '\n", "tokenizer_config"),
        (GOOD.replace("rows.jsonl", '" "'), "datasets.0.path"),
        (GOOD.replace("    type", "    roles: {}\n    type"), "datasets.0.roles"),
    ],
)
def test_empty_values_are_refused_with_their_line(text: str, key: str) -> None:
    lines = {"base_model": 1, "tokenizer_config": 6, "datasets.0.path": 3, "datasets.0.roles": 4}
    assert [(line, found) for line, found, _ in refused(text)] == [(lines[key], key)]
